package machine

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ashlar-hv/ashlar/vmm/iouring"
	"github.com/ashlar-hv/ashlar/vmm/pci"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/virtio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/blk"
	vnet "github.com/ashlar-hv/ashlar/vmm/virtio/net"
)

// slotQueues is how many queues a disk in a hot-plug slot has at most: their rings are made
// for each slot with the machine, as the jail lets nobody make one, and each takes memory
// of the kernel's whether there is a disk or not.
const slotQueues = 2

// askAgain is how long a guest is left alone once it was asked for a device: by a second
// press of the button, before the indicator blinks, it would keep it.
const askAgain = 10 * time.Second

// A hotplugSlot is a root port and what a disk in it will need.
type hotplugSlot struct {
	port  *pci.RootPort
	rings []*iouring.Ring
	taken bool // guarded by lifeMu: a device is in it, or has not been closed yet
}

// addSlots makes n empty hot-plug slots.
func (m *Machine) addSlots(n int) error {
	var reports atomic.Uint64
	report := func(err error) {
		// The first, the second, the fourth and so on: a guest can cause as many as it likes.
		if n := reports.Add(1); n&(n-1) == 0 {
			fmt.Fprintf(os.Stderr, "hot-plug slot: %v (message %d)\n", err, n)
		}
	}
	if err := m.bus.AddPorts(n, m.routes, report); err != nil {
		return err
	}
	for _, p := range m.bus.Ports() {
		s := &hotplugSlot{port: p}
		m.slots = append(m.slots, s)
		for range min(m.c.VCPUs, slotQueues) {
			r, err := blk.NewRing(m.buffers)
			if err != nil {
				return err
			}
			s.rings = append(s.rings, r)
		}
	}
	return nil
}

// closeSlots frees what the slots hold.
func (m *Machine) closeSlots() error {
	var errs []error
	for _, s := range m.slots {
		for _, r := range s.rings {
			errs = append(errs, r.Close())
		}
	}
	if m.bus != nil {
		for _, p := range m.bus.Ports() {
			errs = append(errs, p.Close())
		}
	}
	m.slots = nil
	return errors.Join(errs...)
}

// freeSlot finds a slot for a device that is to be called name, in a guest that has not
// ended. The number of the first slot is 1. lifeMu is held.
func (m *Machine) freeSlot(field, name string) (*hotplugSlot, int, *protocol.Error) {
	if s := m.Status().State; s != protocol.Running && s != protocol.Paused {
		return nil, 0, refused("%v", stateError("attach "+name+" to", s))
	}
	if m.plugged(name) != nil {
		return nil, 0, invalid(field+".number", "there is a %s already: choose another number", name)
	}
	return m.firstFree()
}

// firstFree is freeSlot without a look at the rest.
func (m *Machine) firstFree() (*hotplugSlot, int, *protocol.Error) {
	for i, s := range m.slots {
		if !s.taken {
			return s, i + 1, nil
		}
	}
	if len(m.slots) == 0 {
		return nil, 0, refused("the guest was started without hot-plug slots: give it some and start it again")
	}
	return nil, 0, refused("all %d hot-plug slots are taken: detach a device first", len(m.slots))
}

func refused(format string, args ...any) *protocol.Error {
	return &protocol.Error{Code: protocol.FailedPrecondition, Message: fmt.Sprintf(format, args...)}
}

// plugged finds a disk or network device by its name, nil where there is none. lifeMu is held.
func (m *Machine) plugged(name string) *plugged {
	if i := slices.IndexFunc(m.devices, func(d *plugged) bool { return d.listed && d.name == name }); i >= 0 {
		return m.devices[i]
	}
	return nil
}

// AttachDisk puts a disk into a free slot. files are the descriptors that came with it;
// AttachDisk owns them all, also after an error.
func (g *Guest) AttachDisk(disk *protocol.Disk, files []*os.File) *protocol.Error {
	const field = "newDisk"
	d := &descriptors{files}
	defer d.close()
	if disk == nil {
		return invalid(field, "no disk came with the request")
	}
	return g.attach(field, diskName, disk.Number, func(s *hotplugSlot) (virtio.Device, *protocol.Error) {
		return orError(newDisk(field, *disk, blk.Config{Queues: len(s.rings), Rings: s.rings, Trouble: g.diskTrouble(disk.Number)}, d))
	})
}

// AttachNIC is AttachDisk for a network device.
func (g *Guest) AttachNIC(nic *protocol.NIC, files []*os.File) *protocol.Error {
	const field = "newNic"
	d := &descriptors{files}
	defer d.close()
	if nic == nil {
		return invalid(field, "no network device came with the request")
	}
	return g.attach(field, nicName, nic.Number, func(*hotplugSlot) (virtio.Device, *protocol.Error) {
		return orError(newNIC(field, *nic, d))
	})
}

// orError makes a device that an error came instead of a nil one.
func orError[D virtio.Device](dev D, perr *protocol.Error) (virtio.Device, *protocol.Error) {
	if perr != nil {
		return nil, perr
	}
	return dev, nil
}

// attach puts what create makes into a free slot.
func (g *Guest) attach(field string, nameOf func(int) string, n int, create func(*hotplugSlot) (virtio.Device, *protocol.Error)) *protocol.Error {
	if perr := checkNumber(field, n); perr != nil {
		return perr
	}
	name := nameOf(n)
	g.lifeMu.Lock()
	defer g.lifeMu.Unlock()
	s, number, perr := g.freeSlot(field, name)
	if perr != nil {
		return perr
	}
	dev, perr := create(s)
	if perr != nil {
		return perr
	}
	if perr := g.plug(name, dev, func(fn pci.Function) error { return g.insert(s, number, name, fn) }); perr != nil {
		return perr
	}
	switch dev := dev.(type) {
	case *blk.Device:
		g.disks[n] = dev
	case *vnet.Device:
		g.nics[n] = dev
	}
	return nil
}

// insert puts fn into the slot. Where the guest is paused so is the device: Resume
// lets both go on. lifeMu is held.
func (m *Machine) insert(s *hotplugSlot, number int, name string, fn pci.Function) error {
	if p, ok := fn.(pauser); ok && m.Status().State == protocol.Paused {
		p.Pause()
	}
	d := &plugged{name: name, fn: fn, slot: number, listed: true}
	// The guest gives it up on a vCPU's thread, which has to wait for nobody.
	if err := s.port.Plug(fn, func() { go m.remove(s, d) }); err != nil {
		return err
	}
	s.taken = true
	m.mu.Lock()
	defer m.mu.Unlock()
	m.devices = append(m.devices, d)
	return nil
}

// remove closes a device that is out of its slot, unless that was done.
func (m *Machine) remove(s *hotplugSlot, d *plugged) {
	m.lifeMu.Lock()
	defer m.lifeMu.Unlock()
	i := slices.Index(m.devices, d)
	if i < 0 {
		return
	}
	s.port.Retire()
	if err := d.close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	maps.DeleteFunc(m.disks, func(n int, _ *blk.Device) bool { return diskName(n) == d.name })
	maps.DeleteFunc(m.nics, func(n int, _ *vnet.Device) bool { return nicName(n) == d.name })
	s.taken = false
	m.mu.Lock()
	defer m.mu.Unlock()
	m.devices = slices.Delete(slices.Clone(m.devices), i, i+1)
}

// A failing disk is looked at every failLook, and pulled out once failQuiet looks in a row have
// found no new request, or after failMost looks. They are counted, not timed: after a pause of
// everything here, the guest's vCPUs included, there is one look.
const (
	failLook  = 50 * time.Millisecond
	failQuiet = 10
	failMost  = 60
)

// failDisk has the requests of a disk that the guest is using answered with errors, and returns
// it; nil is anything else. lifeMu is held.
func (m *Machine) failDisk(d *plugged) *blk.Device {
	for n, disk := range m.disks {
		if diskName(n) != d.name {
			continue
		}
		active, err := disk.Fail()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		if active {
			return disk
		}
	}
	return nil
}

// pullOut takes a disk away that fails all requests. Linux's driver waits for ever, and its
// slot with it, for a request that was in the queue when the device went (virtblk_remove,
// 6.12); programs that are told of an error ask no more.
func (m *Machine) pullOut(s *hotplugSlot, d *plugged, disk *blk.Device) {
	untilQuiet(disk.Answered, m.done)
	m.lifeMu.Lock()
	if slices.Contains(m.devices, d) {
		s.port.Unplug()
	}
	m.lifeMu.Unlock()
	m.remove(s, d)
}

// untilQuiet waits until a failing disk, which has answered so many requests, gets no more, or until
// the guest has ended.
func untilQuiet(answered func() uint64, ended <-chan struct{}) {
	tick := time.NewTicker(failLook)
	defer tick.Stop()
	quiet, before := 0, answered()
	for looks := 0; quiet < failQuiet && looks < failMost; looks++ {
		select {
		case <-tick.C:
		case <-ended:
			return
		}
		now := answered()
		if now == before {
			quiet++
		} else {
			quiet, before = 0, now
		}
	}
}

// Detach asks the guest to give a device up, or with force takes it away: then accesses to
// it give all ones, and requests under way end before it leaves the Status. A disk that
// is in use fails all requests before, for 3 s (failMost) at most. So does a device go that
// the guest has not switched on. A paused guest is asked when it goes on.
func (m *Machine) Detach(name string, force bool) *protocol.Error {
	m.lifeMu.Lock()
	defer m.lifeMu.Unlock()
	if s := m.Status().State; s != protocol.Running && s != protocol.Paused {
		return refused("%v", stateError("detach "+name+" from", s))
	}
	d := m.plugged(name)
	if d == nil {
		return invalid("device", "there is no device %q", name)
	}
	return m.release(d, force)
}

// detach is Detach of d, unless it has gone.
func (m *Machine) detach(d *plugged, force bool) *protocol.Error {
	m.lifeMu.Lock()
	defer m.lifeMu.Unlock()
	if m.plugged(d.name) != d {
		return nil
	}
	return m.release(d, force)
}

// release is Detach of d. lifeMu is held.
func (m *Machine) release(d *plugged, force bool) *protocol.Error {
	if d.slot == 0 {
		return refused("%s was there when the guest was started, and cannot be taken away while it runs", d.name)
	}
	s := m.slots[d.slot-1]
	m.mu.Lock()
	d.detaching = true
	m.mu.Unlock()
	switch {
	case !force && !d.asked.IsZero() && time.Since(d.asked) < askAgain:
	case force:
		if disk := m.failDisk(d); disk != nil {
			go m.pullOut(s, d, disk)
			break
		}
		fallthrough
	case !s.port.Ask():
		s.port.Unplug()
		go m.remove(s, d)
	default:
		d.asked = time.Now()
	}
	return nil
}

// pluggedDevices lists disks and network devices. mu is held.
func (m *Machine) pluggedDevices() []protocol.PluggedDevice {
	var out []protocol.PluggedDevice
	for _, d := range m.devices {
		if d.listed {
			out = append(out, protocol.PluggedDevice{Name: d.name, Slot: d.slot, Detaching: d.detaching, Address: d.address})
		}
	}
	return out
}
