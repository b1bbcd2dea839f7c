package virtiotest

import (
	"time"

	"github.com/ashlar-hv/ashlar/vmm/pci"
	"github.com/ashlar-hv/ashlar/vmm/pci/pcitest"
	"github.com/ashlar-hv/ashlar/vmm/virtio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/transport"
)

// Registers of the common configuration.
const (
	DeviceFeatureSelect = 0x00
	DeviceFeature       = 0x04
	DriverFeatureSelect = 0x08
	DriverFeature       = 0x0c
	ConfigVector        = 0x10
	NumQueues           = 0x12
	DeviceStatus        = 0x14
	ConfigGeneration    = 0x15
	QueueSelect         = 0x16
	QueueSize           = 0x18
	QueueVector         = 0x1a
	QueueEnable         = 0x1c
	QueueNotifyOff      = 0x1e
	QueueDesc           = 0x20
	QueueDriver         = 0x28
	QueueDevice         = 0x30
)

// A Driver is the driver's side of one function, device 1 of the bus.
type Driver struct {
	M         *Machine
	Transport *transport.Transport
	BAR       uint64 // where it is mapped

	common, isr, device, notify uint64 // guest addresses
	multiplier                  uint64
	MSIX                        int // offset of the capability
	Window                      int // offset of the PCI configuration access capability
}

func newDriver(m *Machine, t *transport.Transport) *Driver {
	m.T.Helper()
	d := &Driver{M: m, Transport: t}
	d.BAR = d.Config(0x10, 4)&^0xf | d.Config(0x14, 4)<<32
	d.SetConfig(0x04, 2, 0x6) // memory, bus master
	for at := d.Config(0x34, 1); at != 0; at = d.Config(int(at)+1, 1) {
		d.capability(int(at))
	}
	if d.common == 0 || d.notify == 0 || d.device == 0 || d.isr == 0 || d.MSIX == 0 || d.Window == 0 {
		m.T.Fatalf("capabilities missing: %+v", d)
	}
	d.enableMSIX()
	return d
}

// capability notes where a structure is.
func (d *Driver) capability(at int) {
	switch d.Config(at, 1) {
	case pci.CapMSIX:
		d.MSIX = at
	case pci.CapVendor:
		where := d.BAR + d.Config(at+8, 4)
		switch d.Config(at+3, 1) {
		case 1:
			d.common = where
		case 2:
			d.notify, d.multiplier = where, d.Config(at+16, 4)
		case 3:
			d.isr = where
		case 4:
			d.device = where
		case 5:
			d.Window = at
		}
	}
}

// enableMSIX gives every vector a message and opens all.
func (d *Driver) enableMSIX() {
	n := d.Config(d.MSIX+2, 2)&0x7ff + 1
	table := d.BAR + d.Config(d.MSIX+4, 4)&^7
	for i := range n {
		e := table + 16*i
		d.Write(e, 4, 0xfee00000)
		d.Write(e+4, 4, 0)
		d.Write(e+8, 4, 0x40+i)
		d.Write(e+12, 4, 0)
	}
	d.SetConfig(d.MSIX+2, 2, 1<<15)
}

// Config reads n bytes of configuration space.
func (d *Driver) Config(reg, n int) uint64 {
	b := make([]byte, n)
	d.M.Bus.Read(uint64(1<<15|reg), b)
	return little(b)
}

// SetConfig writes n bytes of configuration space.
func (d *Driver) SetConfig(reg, n int, v uint64) {
	d.M.Bus.Write(uint64(1<<15|reg), bytesOf(v, n))
}

// Read reads n bytes of a BAR.
func (d *Driver) Read(gpa uint64, n int) uint64 {
	d.M.T.Helper()
	b := make([]byte, n)
	if !d.M.Bus.MMIORead(gpa, b) {
		d.M.T.Fatalf("nothing answers at %#x", gpa)
	}
	return little(b)
}

// Write writes n bytes of a BAR, as a guest does: an ioeventfd may take it.
func (d *Driver) Write(gpa uint64, n int, v uint64) {
	d.M.T.Helper()
	if !d.M.Notifier.Write(gpa) && !d.M.Bus.MMIOWrite(gpa, bytesOf(v, n)) {
		d.M.T.Fatalf("nothing answers at %#x", gpa)
	}
}

// Common reads a common configuration register.
func (d *Driver) Common(reg, n int) uint64 { return d.Read(d.common+uint64(reg), n) }

// SetCommon writes a common configuration register.
func (d *Driver) SetCommon(reg, n int, v uint64) { d.Write(d.common+uint64(reg), n, v) }

// Device reads n bytes of the device configuration.
func (d *Driver) Device(off uint64, n int) uint64 { return d.Read(d.device+off, n) }

// SetDevice writes n bytes of the device configuration.
func (d *Driver) SetDevice(off uint64, n int, v uint64) { d.Write(d.device+off, n, v) }

// ISR reads, and so clears, the ISR status.
func (d *Driver) ISR() uint64 { return d.Read(d.isr, 1) }

// Status reads the device status.
func (d *Driver) Status() virtio.Status { return virtio.Status(d.Common(DeviceStatus, 1)) }

// AddStatus sets bits of the device status.
func (d *Driver) AddStatus(s virtio.Status) {
	d.SetCommon(DeviceStatus, 1, uint64(d.Status()&^virtio.NeedsReset|s))
}

// Reset resets the device.
func (d *Driver) Reset() {
	d.M.T.Helper()
	d.SetCommon(DeviceStatus, 1, 0)
	if s := d.Status(); s != 0 {
		d.M.T.Fatalf("status after reset = %#x, want 0", s)
	}
}

// Offered reads the features the device offers.
func (d *Driver) Offered() virtio.Features {
	d.SetCommon(DeviceFeatureSelect, 4, 1)
	high := d.Common(DeviceFeature, 4)
	d.SetCommon(DeviceFeatureSelect, 4, 0)
	return virtio.Features(high<<32 | d.Common(DeviceFeature, 4))
}

// Accept writes features and FEATURES_OK, and tells whether the device agreed.
func (d *Driver) Accept(f virtio.Features) bool {
	d.AddStatus(virtio.Acknowledge | virtio.Driver)
	d.SetCommon(DriverFeatureSelect, 4, 0)
	d.SetCommon(DriverFeature, 4, uint64(f)&0xffffffff)
	d.SetCommon(DriverFeatureSelect, 4, 1)
	d.SetCommon(DriverFeature, 4, uint64(f)>>32)
	d.AddStatus(virtio.FeaturesOK)
	return d.Status()&virtio.FeaturesOK != 0
}

// Negotiate resets the device and accepts what it offers of want, with
// VERSION_1.
func (d *Driver) Negotiate(want virtio.Features) virtio.Features {
	d.M.T.Helper()
	d.Reset()
	f := d.Offered() & (want | virtio.FeatureVersion1)
	if !d.Accept(f) {
		d.M.T.Fatalf("device refused features %#x of %#x", f, d.Offered())
	}
	d.SetCommon(ConfigVector, 2, 0)
	return f
}

// Start sets DRIVER_OK.
func (d *Driver) Start() {
	d.M.T.Helper()
	d.AddStatus(virtio.DriverOK)
	if s := d.Status(); s&virtio.NeedsReset != 0 {
		d.M.T.Fatalf("status after DRIVER_OK = %#x", s)
	}
}

// Vector is MSI-X vector i.
func (d *Driver) Vector(i int) *pcitest.Vector { return d.M.Router.Vectors[i] }

// WaitBroken waits for NEEDS_RESET and its interrupt.
func (d *Driver) WaitBroken() {
	d.M.T.Helper()
	for end := time.Now().Add(Patience); d.Status()&virtio.NeedsReset == 0; {
		if time.Now().After(end) {
			d.M.T.Fatalf("status = %#x, want NEEDS_RESET", d.Status())
		}
		time.Sleep(100 * time.Microsecond)
	}
	if !d.Vector(0).Take(Patience) {
		d.M.T.Fatal("no configuration change interrupt after NEEDS_RESET")
	}
}
