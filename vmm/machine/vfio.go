package machine

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/arch"
	"github.com/ashlar-hv/ashlar/vmm/jail"
	"github.com/ashlar-hv/ashlar/vmm/kvm"
	"github.com/ashlar-hv/ashlar/vmm/pci"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/vfio"
)

// VFIORules are the system calls that a machine with devices of the host's needs besides Rules.
func VFIORules() []jail.Rule { return slices.Concat(vfio.Rules(), kvm.VFIORules()) }

// VFIOFiles is how many descriptors such a machine may have: one for each interrupt that KVM
// has a route for, and those of others.
const VFIOFiles = kvm.MaxRoutes + 2048

// addVFIO makes what devices of the host's share, and adds those that there are at the start.
func (g *Guest) addVFIO(s *protocol.Spec, d *descriptors) *protocol.Error {
	v := s.VFIO
	if v == nil {
		return nil
	}
	dev, err := g.vm.CreateVFIO()
	if err != nil {
		return &protocol.Error{Code: protocol.Unavailable, Field: "vfio", Message: err.Error()}
	}
	g.vfio = vfio.NewHost(vfio.HostConfig{Memory: g.mem, KVM: dev, PeerToPeer: v.PeerToPeer})
	if perr := g.takeIOMMU("vfio", v.IOMMUFD, v.Container, d); perr != nil {
		return perr
	}
	ns, perr := numbers("vfio.devices", v.Devices, func(d protocol.VFIODevice) int { return d.Number })
	if perr != nil {
		return perr
	}
	for i := range v.Devices {
		field, c := fmt.Sprintf("vfio.devices[%d]", i), &v.Devices[i]
		device := g.nextDevice()
		var s *hotplugSlot
		number := 0
		if c.Slot {
			device = pci.PortDevice
			if s, number, perr = g.firstFree(); perr != nil {
				return perr
			}
		}
		name := vfioName(ns[i])
		fn, perr := g.newVFIO(field, name, c, device, d)
		if perr != nil {
			return perr
		}
		if s != nil {
			err = g.insert(s, number, name, fn)
		} else {
			err = g.listed(name)(fn)
		}
		if err != nil {
			return &protocol.Error{Code: protocol.Unavailable, Field: field, Message: errors.Join(err, fn.Close()).Error()}
		}
		g.devices[len(g.devices)-1].address = c.Address
	}
	return nil
}

// takeIOMMU hands on the descriptors that devices need.
func (g *Guest) takeIOMMU(field string, iommufd, container *protocol.File, d *descriptors) *protocol.Error {
	f, perr := d.takeOptional(field+".iommufd", iommufd)
	if perr != nil {
		return perr
	}
	if f != nil {
		g.vfio.UseIOMMUFD(f)
	}
	if f, perr = d.takeOptional(field+".container", container); perr != nil {
		return perr
	}
	if f != nil {
		g.vfio.UseContainer(f)
	}
	return nil
}

// newVFIO opens the device that the field describes, which is to have a device number.
func (g *Guest) newVFIO(field, name string, c *protocol.VFIODevice, device int, d *descriptors) (*vfio.Function, *protocol.Error) {
	conf := vfio.DeviceConfig{Address: c.Address, GroupID: c.GroupID, NoReset: c.NoReset}
	var perr *protocol.Error
	if conf.File, perr = d.takeOptional(field+".file", c.File); perr != nil {
		return nil, perr
	}
	if conf.Group, perr = d.takeOptional(field+".group", c.Group); perr != nil {
		if conf.File != nil {
			conf.File.Close()
		}
		return nil, perr
	}
	dev, err := g.vfio.Open(conf)
	if err != nil {
		return nil, vfioError(field, err)
	}
	w := &vfioWatch{m: g.Machine, name: name, address: c.Address}
	fn, err := vfio.New(dev, vfio.Config{
		Router: g.routes, Slots: &g.windows, Line: vfioLine{g.vm, arch.PCILine(device)},
		RootBus: device != pci.PortDevice, ROM: c.ROM,
		Error: w.failed, Request: w.wanted, Report: w.report,
	})
	if err != nil {
		return nil, vfioError(field, err)
	}
	return fn, nil
}

// vfioError says whose fault it is that a device cannot be had.
func vfioError(field string, err error) *protocol.Error {
	e := &protocol.Error{Code: protocol.Unavailable, Field: field, Message: err.Error()}
	switch {
	case errors.Is(err, vfio.ErrLocked):
		e.Code = protocol.ResourceExhausted
	case errors.Is(err, vfio.ErrReset):
		e.Code = protocol.FailedPrecondition
	case errors.Is(err, vfio.ErrNoIOMMU):
		e.Code = protocol.InvalidArgument
	}
	return e
}

// AttachVFIO is AttachDisk for a device of the host's.
func (g *Guest) AttachVFIO(n *protocol.NewVFIO, files []*os.File) *protocol.Error {
	const field = "newVfio"
	d := &descriptors{files}
	defer d.close()
	if n == nil {
		return invalid(field, "no device came with the request")
	}
	if g.vfio == nil {
		return refused("the guest was started without devices of the host's, and gets none while it runs")
	}
	if perr := checkNumber(field+".device", n.Device.Number); perr != nil {
		return perr
	}
	iommufd, container := g.vfio.Has()
	if f, wrong := n.Device.Check(iommufd || n.IOMMUFD != nil, container || n.Container != nil); wrong != "" {
		return invalid(field+".device."+f, "%s.device.%s %s", field, f, wrong)
	}
	name := vfioName(n.Device.Number)
	g.lifeMu.Lock()
	defer g.lifeMu.Unlock()
	s, number, perr := g.freeSlot(field+".device", name)
	if perr != nil {
		return perr
	}
	if len(g.vfioDevices()) >= protocol.MaxVFIODevices {
		return refused("the guest has %d devices of the host's, the most there may be", protocol.MaxVFIODevices)
	}
	if perr := g.takeIOMMU(field, n.IOMMUFD, n.Container, d); perr != nil {
		return perr
	}
	fn, perr := g.newVFIO(field+".device", name, &n.Device, pci.PortDevice, d)
	if perr != nil {
		return perr
	}
	if err := g.insert(s, number, name, fn); err != nil {
		return &protocol.Error{Code: protocol.Unavailable, Message: errors.Join(err, fn.Close()).Error()}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.devices[len(g.devices)-1].address = n.Device.Address
	return nil
}

// vfioDevices are the devices of the host's.
func (m *Machine) vfioDevices() []*vfio.Function {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []*vfio.Function
	for _, d := range m.devices {
		if fn, ok := d.fn.(*vfio.Function); ok {
			out = append(out, fn)
		}
	}
	return out
}

// faulted tells whether KVM's error may be of a device's memory that does not answer any more; its
// accesses come to this process from then on.
func (m *Machine) faulted(err error) bool {
	if !errors.Is(err, unix.EFAULT) {
		return false
	}
	found := false
	for _, fn := range m.vfioDevices() {
		found = fn.Faulted() || found
	}
	return found
}

// A vfioLine is an interrupt pin. It implements vfio.Line.
type vfioLine struct {
	vm  *kvm.VM
	gsi uint32
}

// Connect implements vfio.Line.
func (l vfioLine) Connect(trigger, resample *os.File) error {
	return l.vm.LevelIRQFD(trigger, resample, l.gsi)
}

// Disconnect implements vfio.Line.
func (l vfioLine) Disconnect(trigger *os.File) error { return l.vm.RemoveIRQFD(trigger, l.gsi) }

// A vfioWatch follows what comes of a device.
type vfioWatch struct {
	m             *Machine
	name, address string
	reports       atomic.Uint64
	asked         atomic.Bool
}

// report writes the first message, the second, the fourth and so on: a guest can cause as many as it likes.
func (w *vfioWatch) report(err error) {
	if n := w.reports.Add(1); n&(n-1) == 0 {
		fmt.Fprintf(os.Stderr, "%s (%s): %v (message %d)\n", w.name, w.address, err, n)
	}
}

// failed notes an error of the device.
func (w *vfioWatch) failed() {
	w.m.deviceEvent(w, protocol.DeviceError, "the host reports an uncorrected error (AER)")
}

// wanted gives the device back to the host, which says so again and again.
func (w *vfioWatch) wanted() {
	if w.asked.Swap(true) {
		return
	}
	w.m.deviceEvent(w, protocol.DeviceRequested, "the host wants the device back")
	go w.m.giveBack(w)
}

// deviceEvent notes what has come of a device.
func (m *Machine) deviceEvent(w *vfioWatch, kind protocol.DeviceEventKind, message string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events.last++
	list := append(m.events.list, protocol.DeviceEvent{
		Seq: m.events.last, Time: time.Now(), Device: w.name, Address: w.address, Kind: kind, Message: message,
	})
	m.events.list = slices.Clone(list[max(0, len(list)-protocol.MaxDeviceEvents):])
}

// deviceEvents are the last events of devices of the host's; guarded by Machine.mu.
type deviceEvents struct {
	last uint64 // Seq of the last one
	list []protocol.DeviceEvent
}

// giveBack has the guest give up a device that the host wants, and takes it away where it does not
// in time. What is on bus 0 goes at once: there is no asking for it.
func (m *Machine) giveBack(w *vfioWatch) {
	m.lifeMu.Lock()
	d := m.plugged(w.name)
	if d == nil {
		m.lifeMu.Unlock()
		return
	}
	if fn, ok := d.fn.(*vfio.Function); ok && d.slot == 0 {
		err := fn.Abandon()
		m.lifeMu.Unlock()
		if err != nil {
			w.report(err)
		}
		m.deviceEvent(w, protocol.DeviceGone, "taken away from its place on bus 0, where it does not answer any more")
		return
	}
	m.lifeMu.Unlock()
	for _, force := range []bool{false, true} {
		if perr := m.detach(d, force); perr != nil {
			w.report(perr)
		}
		if m.hasLeft(d, protocol.ReturnTime) {
			m.deviceEvent(w, protocol.DeviceGone, "given back to the host")
			return
		}
	}
}

// hasLeft waits until d is gone, for as long as most, or until the guest has ended.
func (m *Machine) hasLeft(d *plugged, most time.Duration) bool {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(most); time.Now().Before(end); {
		m.mu.Lock()
		there := slices.Contains(m.devices, d)
		m.mu.Unlock()
		if !there {
			return true
		}
		select {
		case <-tick.C:
		case <-m.done:
			return true
		}
	}
	return false
}
