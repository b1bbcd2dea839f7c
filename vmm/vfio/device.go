package vfio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/memory"
)

// ErrReset says that a device has no reset that touches nothing else: what one guest left in it the
// next would find.
var ErrReset = errors.New("the device cannot be reset")

// A DeviceConfig is what a device is opened by: File, or GroupID and, for the first of a
// group, Group. The Device owns them, also after an error.
type DeviceConfig struct {
	Address string // as Linux writes it
	File    *os.File
	GroupID int
	Group   *os.File
	// NoReset takes a device that cannot be reset as it is, and leaves it as it is.
	NoReset bool
}

// A region is a part of a device that is read and written.
type region struct {
	size   uint64 // bytes
	offset uint64 // of its first byte in the device's descriptor
	flags  uint32
	areas  []area // that can be mapped
}

// An area is a piece of a region.
type area struct{ off, size uint64 }

// irqs are the interrupts of one kind.
type irqs struct {
	count  int
	grows  bool // others can be added to those that are set up
	events bool // by eventfd
}

// A Device is a PCI function of the host's in this process. It implements backend.
type Device struct {
	host    *Host
	f       *os.File
	address string
	byFile  bool
	group   *group // of one that came without a File
	trans   translation
	resets  bool
	noReset bool // it may do without
	region  [regionCount]region
	irq     [irqCount]irqs
}

// Open binds a device, resets it and gives it the guest's memory. It does no DMA before the guest
// makes it a bus master.
func (h *Host) Open(c DeviceConfig) (*Device, error) {
	d := &Device{host: h, address: c.Address, byFile: c.File != nil, noReset: c.NoReset}
	if err := d.open(c); err != nil {
		return nil, fmt.Errorf("device %s: %w", c.Address, err)
	}
	if err := d.setUp(); err != nil {
		return nil, fmt.Errorf("device %s: %w", c.Address, errors.Join(err, d.release()))
	}
	return d, nil
}

func (d *Device) open(c DeviceConfig) error {
	if d.byFile {
		if c.Group != nil {
			c.Group.Close()
		}
		if err := d.host.bind(c.File); err != nil {
			c.File.Close()
			return err
		}
		d.f = c.File
		return nil
	}
	g, err := d.host.join(c.GroupID, c.Group)
	if err != nil {
		if c.Group != nil {
			c.Group.Close()
		}
		return err
	}
	fd, err := getDevice(g.f, c.Address)
	if err != nil {
		return errors.Join(fmt.Errorf("VFIO_GROUP_GET_DEVICE_FD: %w", err), d.host.part(g))
	}
	d.f, d.group = os.NewFile(uintptr(fd), "vfio-"+c.Address), g
	return nil
}

// setUp learns what the device has, resets it, and gives it memory.
func (d *Device) setUp() error {
	info := deviceInfo{argsz: size[deviceInfo]()}
	if err := ioctlPtr(d.f, deviceGetInfo, &info); err != nil {
		return fmt.Errorf("VFIO_DEVICE_GET_INFO: %w", err)
	}
	if info.flags&devicePCI == 0 || info.regions <= regionConfig || info.irqs <= irqMSIX {
		return fmt.Errorf("it is no PCI device (flags %#x, %d regions, %d interrupts)", info.flags, info.regions, info.irqs)
	}
	d.resets = info.flags&deviceResets != 0
	for i := range d.region {
		if err := d.readRegionInfo(i); err != nil {
			return err
		}
	}
	for i := range min(irqCount, int(info.irqs)) {
		q := irqInfo{argsz: size[irqInfo](), index: uint32(i)}
		err := ioctlPtr(d.f, deviceGetIRQ, &q)
		if errors.Is(err, unix.EINVAL) {
			continue // it has none of the kind
		}
		if err != nil {
			return fmt.Errorf("VFIO_DEVICE_GET_IRQ_INFO %d: %w", i, err)
		}
		d.irq[i] = irqs{count: int(q.count), grows: q.flags&irqNoResize == 0, events: q.flags&irqEventFD != 0}
	}
	if err := d.reset(); err != nil {
		return err
	}
	f := d.f
	if !d.byFile {
		f = nil
	}
	var err error
	d.trans, err = d.host.connect(f)
	return err
}

func (d *Device) readRegionInfo(i int) error {
	info := regionInfo{argsz: size[regionInfo](), index: uint32(i)}
	err := ioctlPtr(d.f, deviceGetRegion, &info)
	if errors.Is(err, unix.EINVAL) {
		return nil // not there
	}
	if err != nil {
		return fmt.Errorf("VFIO_DEVICE_GET_REGION_INFO %d: %w", i, err)
	}
	r := region{size: info.size, offset: info.offset, flags: info.flags}
	if r.flags&regionMappable != 0 && r.size > 0 {
		if r.areas, err = mappable(&info); err != nil {
			return fmt.Errorf("region %d: %w", i, err)
		}
	}
	d.region[i] = r
	return nil
}

// mappable are the areas that info says can be mapped: all of the region, where it does not
// say.
func mappable(info *regionInfo) ([]area, error) {
	le := binary.LittleEndian
	whole := []area{{0, info.size}}
	if info.flags&regionHasCaps == 0 {
		return whole, nil
	}
	// Offsets count from the start of the structure. Each hop goes further, so they end.
	for at := info.capOffset; at != 0; {
		if at < regionInfoSize || at > regionInfoSize+uint32(len(info.caps))-16 {
			return nil, fmt.Errorf("a capability at %#x", at)
		}
		b := info.caps[at-regionInfoSize:]
		if le.Uint16(b) == capSparseMap {
			return sparse(b, info.size)
		}
		next := le.Uint32(b[4:])
		if next != 0 && next <= at {
			return nil, fmt.Errorf("capabilities go round at %#x", at)
		}
		at = next
	}
	return whole, nil
}

// sparse reads struct vfio_region_info_cap_sparse_mmap.
func sparse(b []byte, size uint64) ([]area, error) {
	le := binary.LittleEndian
	n := int(le.Uint32(b[8:]))
	if n > maxSparse || 16+16*n > len(b) {
		return nil, fmt.Errorf("%d areas to map", n)
	}
	var out []area
	for i := range n {
		a := area{le.Uint64(b[16+16*i:]), le.Uint64(b[24+16*i:])}
		if a.size == 0 {
			continue
		}
		if a.off%memory.PageSize != 0 || a.off > size || a.size > size-a.off {
			return nil, fmt.Errorf("an area of %#x bytes at %#x of %#x", a.size, a.off, size)
		}
		out = append(out, a)
	}
	return out, nil
}

// reset resets the function, or all that is reset with it where that is all this guest's. What
// may do without a reset, and has none, stays as it is.
func (d *Device) reset() error {
	err := d.tryReset()
	if d.noReset && !d.resets {
		return nil
	}
	return err
}

func (d *Device) tryReset() error {
	if d.resets {
		if err := ioctl(d.f, deviceReset, 0); err != nil {
			return fmt.Errorf("%w: VFIO_DEVICE_RESET: %w", ErrReset, err)
		}
		return nil
	}
	if !d.byFile {
		return fmt.Errorf("%w by itself", ErrReset)
	}
	h := hotReset{argsz: size[hotReset]()}
	if err := ioctlPtr(d.f, deviceHotReset, &h); err != nil {
		return fmt.Errorf("%w by itself, nor with others on its bus: VFIO_DEVICE_PCI_HOT_RESET: %w", ErrReset, err)
	}
	return nil
}

func (d *Device) regionOf(i int) region { return d.region[i] }
func (d *Device) irqOf(i int) irqs      { return d.irq[i] }

func (d *Device) read(i int, off uint64, b []byte) error {
	_, err := d.f.ReadAt(b, int64(d.region[i].offset+off))
	return err
}

func (d *Device) write(i int, off uint64, b []byte) error {
	_, err := d.f.WriteAt(b, int64(d.region[i].offset+off))
	return err
}

func (d *Device) mapArea(i int, a area, align uint64) (mapping, error) {
	return memory.MapDevice(d.f, d.region[i].offset+a.off, (a.size+memory.PageSize-1)&^(memory.PageSize-1), a.off, align)
}

// setIRQs has interrupts from start on signal fds; -1 is nothing.
func (d *Device) setIRQs(index, start int, fds ...int) error {
	s := irqSet{argsz: irqSetSize + 4*uint32(len(fds)), flags: setDataEventFD | setActionTrigger, index: uint32(index), start: uint32(start), count: uint32(len(fds))}
	for i, fd := range fds {
		s.fds[i] = int32(fd)
	}
	return d.irqIoctl("set up", &s)
}

// unmaskBy has INTx unmasked by a signal of fd.
func (d *Device) unmaskBy(fd int) error {
	s := irqSet{argsz: irqSetSize + 4, flags: setDataEventFD | setActionUnmask, index: irqINTx, count: 1}
	s.fds[0] = int32(fd)
	return d.irqIoctl("unmask", &s)
}

// disableIRQs ends all interrupts of a kind.
func (d *Device) disableIRQs(index int) error {
	return d.irqIoctl("disable", &irqSet{argsz: irqSetSize, flags: setDataNone | setActionTrigger, index: uint32(index)})
}

func (d *Device) irqIoctl(what string, s *irqSet) error {
	if err := ioctlPtr(d.f, deviceSetIRQs, s); err != nil {
		return fmt.Errorf("VFIO_DEVICE_SET_IRQS to %s interrupts %d of kind %d: %w", what, s.start, s.index, err)
	}
	return nil
}

func (d *Device) mapBAR(gpa, size uint64, host uintptr) error {
	if !d.host.c.PeerToPeer {
		return nil
	}
	return d.trans.mapBAR(gpa, size, host)
}

func (d *Device) unmapBAR(gpa, size uint64) error {
	if !d.host.c.PeerToPeer {
		return nil
	}
	return d.trans.unmapBAR(gpa, size)
}

// close resets the device and gives it back. Nothing of it is mapped any more.
func (d *Device) close() error {
	err := d.reset()
	if errors.Is(err, unix.EAGAIN) {
		err = nil // the host holds it, to take it away: whoever uses it next resets it first
	}
	return errors.Join(err, d.release())
}

func (d *Device) release() error {
	var errs []error
	if d.byFile {
		errs = append(errs, d.host.c.KVM.Remove(d.f))
	}
	errs = append(errs, d.f.Close())
	if d.trans != nil {
		errs = append(errs, d.host.disconnect(d.trans))
	}
	if d.group != nil {
		errs = append(errs, d.host.part(d.group))
	}
	return errors.Join(errs...)
}
