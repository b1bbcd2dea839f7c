package guest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/ashlar-hv/ashlar/mgmt/core/folder"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostdevice"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// hotPairs is how many pairs of queues a NIC has that is attached to a guest: few, so
// that threads and descriptors are enough for as many as there can be.
const hotPairs = 2

// nicNumber is what n is named by.
func nicNumber(n *folder.Interface) *int { return &n.Number }

// number gives the devices of g numbers where control has not.
func number(g *hostcall.Guest) {
	if len(g.DiskNumbers) == 0 {
		g.DiskNumbers = make([]int, len(g.Disks))
	}
	hostcall.Number(g.DiskNumbers, func(n *int) *int { return n })
	hostcall.Number(g.NICs, func(n *hostcall.NIC) *int { return &n.Number })
	hostcall.Number(g.Devices, func(d *hostcall.HostDevice) *int { return &d.Number })
}

// checkNumbers validates what the devices of g are named by.
func checkNumbers(g *hostcall.Guest) error {
	invalid := func(field, format string, args ...any) error {
		return &hostcall.Error{Code: hostcall.InvalidArgument, Field: "guest." + field, Message: fmt.Sprintf(format, args...)}
	}
	if n := len(g.DiskNumbers); n != len(g.Disks) {
		return invalid("diskNumbers", "There are numbers for %d disks of %d.", n, len(g.Disks))
	}
	if g.HotplugSlots < 0 || g.HotplugSlots > protocol.MaxHotplugSlots {
		return invalid("hotplugSlots", "A guest has 0 to %d hot-plug slots, not %d.", protocol.MaxHotplugSlots, g.HotplugSlots)
	}
	for i, n := range g.DiskNumbers {
		if n < 0 || n >= hostcall.MaxDisks || slices.Contains(g.DiskNumbers[:i], n) {
			return invalid(fmt.Sprintf("disks[%d].number", i), "Disks have numbers from 0 to %d, each its own: %d is none.", hostcall.MaxDisks-1, n)
		}
	}
	for i, n := range g.NICs {
		if n.Number < 0 || n.Number >= hostcall.MaxNICs || slices.ContainsFunc(g.NICs[:i], func(o hostcall.NIC) bool { return o.Number == n.Number }) {
			return invalid(fmt.Sprintf("nics[%d].number", i), "NICs have numbers from 0 to %d, each its own: %d is none.", hostcall.MaxNICs-1, n.Number)
		}
	}
	return nil
}

// newDisk is a disk of a VMM.
func newDisk(number int, file protocol.File, l *protocol.DiskLimits) protocol.Disk {
	return protocol.Disk{Number: number, File: file, Serial: fmt.Sprintf("ashlar-%d", number), Limits: l}
}

// parseDevice takes the name of a device apart.
func parseDevice(name string) (hostcall.DeviceKind, int, error) {
	kind, number, ok := hostcall.ParseDevice(name)
	if !ok {
		return "", 0, &hostcall.Error{Code: hostcall.InvalidArgument, Field: "device", Message: fmt.Sprintf("%.40q names no device.", name)}
	}
	return kind, number, nil
}

// Devices returns what a guest has (hostcall.GuestDevices).
func (m *Manager) Devices(ctx context.Context, id string) ([]protocol.PluggedDevice, error) {
	r, err := m.find(id)
	if err != nil {
		return nil, err
	}
	return r.devices(ctx)
}

// devices asks the VMM of r.
func (r *run) devices(ctx context.Context) ([]protocol.PluggedDevice, error) {
	if r.rec.HotplugSlots == 0 {
		return nil, &hostcall.Error{Code: hostcall.FailedPrecondition, Message: "The guest has no hot-plug slots: stop it first."}
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	response, _, err := r.client.call(ctx, protocol.Query, nil, nil)
	if err != nil {
		return nil, refusal(err)
	}
	if response.Status == nil || response.Status.State == protocol.Stopped {
		return nil, &hostcall.Error{Code: hostcall.Unavailable, Message: "The guest is just ending."}
	}
	if err := checkDevices(response.Status.Devices, r.rec.HotplugSlots); err != nil {
		return nil, err
	}
	return response.Status.Devices, nil
}

// checkDevices refuses what no guest can have: a VMM may be in its guest's hands.
func checkDevices(devices []protocol.PluggedDevice, slots int) error {
	seen := make(map[string]bool)
	for _, d := range devices {
		if _, _, ok := hostcall.ParseDevice(d.Name); !ok || seen[d.Name] || d.Slot < 0 || d.Slot > slots {
			return &hostcall.Error{Code: hostcall.Internal,
				Message: clean(fmt.Sprintf("The guest's VMM tells of a device that makes no sense: %.40q in slot %d.", d.Name, d.Slot))}
		}
		seen[d.Name] = true
	}
	return nil
}

// mayPlug says whether the guest of r has the device already, and refuses where it has
// no slot for it.
func (r *run) mayPlug(ctx context.Context, device string) (has bool, err error) {
	devices, err := r.devices(ctx)
	if err != nil {
		return false, err
	}
	taken := 0
	for _, d := range devices {
		if d.Name == device {
			return true, nil
		}
		if d.Slot > 0 {
			taken++
		}
	}
	if taken >= r.rec.HotplugSlots {
		return false, &hostcall.Error{Code: hostcall.FailedPrecondition,
			Message: fmt.Sprintf("All %d hot-plug slots of the guest are taken: detach something, or stop the guest first.", r.rec.HotplugSlots)}
	}
	return false, nil
}

// refused says whether err means that nothing was done, and not that nobody knows.
func refused(err error) bool {
	var e *hostcall.Error
	return err != nil && (!errors.As(err, &e) || e.Code != hostcall.Unavailable)
}

// AttachDisk makes disk number, and gives it to the guest where that runs
// (hostcall.GuestAttachDisk). Cut off at any point it can be done again.
func (m *Manager) AttachDisk(ctx context.Context, id string, number int, d hostcall.Disk, l *protocol.DiskLimits) error {
	if err := checkLimits("limits", l); err != nil {
		return err
	}
	defer m.turns.take(id)()
	r, has := m.lookup(id), false
	if r != nil {
		var err error
		if has, err = r.mayPlug(ctx, hostcall.DeviceName(hostcall.DiskKind, number)); err != nil {
			return err
		}
	}
	made, err := m.c.Folders.AddDisk(id, number, d)
	if err != nil || r == nil || has {
		return err
	}
	if err = m.plugDisk(ctx, r, number, l); made && refused(err) {
		err = errors.Join(err, m.c.Folders.RemoveDisk(id, number))
	}
	return err
}

// plugDisk hands disk number to the VMM of r, which may have what it comes to.
func (m *Manager) plugDisk(ctx context.Context, r *run, number int, l *protocol.DiskLimits) error {
	f, err := m.c.Folders.OpenDisk(r.rec.ID, number)
	if err != nil {
		return fmt.Errorf("open disk %d: %w", number, err)
	}
	defer f.Close()
	if err := m.widen(r); err != nil {
		return err
	}
	return m.withLimits(r, number, l, func() error {
		d := newDisk(number, 0, l)
		return r.tellDevice(ctx, protocol.Request{Method: protocol.AttachDisk, NewDisk: &d}, f)
	})
}

// AttachNIC gives a NIC to a guest (hostcall.GuestAttachNIC). Cut off at any point it
// can be done again.
func (m *Manager) AttachNIC(ctx context.Context, id string, n hostcall.NIC) error {
	device := hostcall.DeviceName(hostcall.NICKind, n.Number)
	if _, _, err := parseDevice(device); err != nil {
		return err
	}
	if err := checkNICs(&hostcall.Guest{NICs: []hostcall.NIC{n}}); err != nil {
		return err
	}
	defer m.turns.take(id)()
	r, err := m.find(id)
	if err != nil {
		return err
	}
	if has, err := r.mayPlug(ctx, device); has || err != nil {
		return err
	}
	nic, err := m.noteNIC(r, n)
	if err == nil {
		err = m.plugNIC(ctx, r, nic, n)
	}
	if refused(err) {
		err = errors.Join(err, m.dropNIC(id, r, n.Number))
	}
	return err
}

// noteNIC gives a new NIC of r its address, before anything else of it is made. One that
// has been cut off has it already.
func (m *Manager) noteNIC(r *run, n hostcall.NIC) (folder.Interface, error) {
	m.mu.Lock()
	had := r.rec.NICs
	m.mu.Unlock()
	var all []hostcall.NIC
	for _, h := range had {
		if h.Number == n.Number {
			return h, nil
		}
		all = append(all, hostcall.NIC{Number: h.Number, Network: h.Network, MAC: h.MAC})
	}
	all = append(all, n)
	if err := m.c.Networks.Check(all); err != nil {
		return folder.Interface{}, err
	}
	nics, err := m.c.Networks.Assign(r.rec.ID, all)
	if err != nil {
		return folder.Interface{}, err
	}
	for i := range nics {
		nics[i].Number = all[i].Number
	}
	if err := m.c.Folders.SetInterfaces(r.rec.ID, nics); err != nil {
		return folder.Interface{}, err
	}
	m.mu.Lock()
	err = errEnded
	if !r.over {
		r.rec.NICs, r.rec.Leased = nics, append(slices.Clone(r.rec.Leased), "")
		err = m.writeRecord(r.rec)
	}
	m.mu.Unlock()
	if err != nil {
		return folder.Interface{}, err
	}
	nic := nics[len(nics)-1]
	if err := m.c.Networks.Activate([]folder.Interface{nic}); err != nil {
		return folder.Interface{}, err
	}
	m.mu.Lock()
	over := r.over
	m.mu.Unlock()
	if over { // it may have been cleared away before it was there
		m.c.Networks.Deactivate([]folder.Interface{nic})
		return folder.Interface{}, errEnded
	}
	return nic, nil
}

var errEnded = &hostcall.Error{Code: hostcall.Unavailable, Message: "The guest is just ending."}

// plugNIC makes the tap of a NIC and hands it to the VMM of r.
func (m *Manager) plugNIC(ctx context.Context, r *run, n folder.Interface, want hostcall.NIC) error {
	l := new(fileList)
	defer func() { l.close() }()
	nic, err := m.openNIC(r, n, want, min(hotPairs, r.rec.VCPUs), l)
	if err != nil {
		return err
	}
	return r.tellDevice(ctx, protocol.Request{Method: protocol.AttachNIC, NewNIC: &nic}, l.files...)
}

// Detach asks a guest to give a device up, or takes it away (hostcall.GuestDetach).
func (m *Manager) Detach(ctx context.Context, id, device string, force bool) error {
	if _, _, err := parseDevice(device); err != nil {
		return err
	}
	r, err := m.find(id)
	if err != nil {
		return err
	}
	if _, err := r.devices(ctx); err != nil {
		return err
	}
	return r.tellDevice(ctx, protocol.Request{Method: protocol.Detach, Device: device, Force: force})
}

// Drop removes what belongs to a device that the guest does not have
// (hostcall.GuestDrop). Cut off at any point it can be done again.
func (m *Manager) Drop(ctx context.Context, id, device string) error {
	kind, number, err := parseDevice(device)
	if err != nil {
		return err
	}
	defer m.turns.take(id)()
	if !m.c.Folders.Exists(id) {
		return folder.NotFound(id)
	}
	r := m.lookup(id)
	if r != nil && m.has(r, kind, number) {
		if err := r.lacks(ctx, device); err != nil {
			return err
		}
	}
	switch kind {
	case hostcall.NICKind:
		return m.dropNIC(id, r, number)
	case hostcall.VFIOKind:
		return m.dropHost(id, r, number)
	}
	if err := m.c.Folders.RemoveDisk(id, number); err != nil || r == nil {
		return err
	}
	if err := errors.Join(m.dropRate(r, number), m.widen(r)); err != nil && refused(err) {
		m.c.Log.Warn("bounds of VMM are not narrower without the disk", "guest", id, "error", err)
	}
	return nil
}

// has says whether there is anything of a device of r.
func (m *Manager) has(r *run, kind hostcall.DeviceKind, number int) bool {
	switch kind {
	case hostcall.DiskKind:
		return m.c.Folders.HasDisk(r.rec.ID, number)
	case hostcall.VFIOKind:
		return slices.ContainsFunc(m.devices.Of(r.rec.ID), func(h hostdevice.Held) bool { return h.Number == number })
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(r.rec.NICs, func(n folder.Interface) bool { return n.Number == number })
}

// lacks refuses where the guest of r has the device.
func (r *run) lacks(ctx context.Context, device string) error {
	devices, err := r.devices(ctx)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(devices, func(d protocol.PluggedDevice) bool { return d.Name == device }) {
		return &hostcall.Error{Code: hostcall.FailedPrecondition, Field: "device",
			Message: fmt.Sprintf("The guest has %s: detach it first, or stop the guest.", device)}
	}
	return nil
}

// dropNIC removes the tap of a NIC, if its guest runs, and lets its address go. The
// record goes last.
func (m *Manager) dropNIC(id string, r *run, number int) error {
	kept, err := m.c.Folders.Interfaces(id)
	if err != nil {
		return err
	}
	is := func(n folder.Interface) bool { return n.Number == number }
	if slices.ContainsFunc(kept, is) {
		kept = slices.DeleteFunc(kept, is)
		if err := m.c.Folders.SetInterfaces(id, kept); err != nil {
			return err
		}
		m.c.Networks.Keep(id, kept)
	}
	if r == nil {
		return nil
	}
	m.mu.Lock()
	rec := r.rec
	m.mu.Unlock()
	i := slices.IndexFunc(rec.NICs, is)
	if i < 0 {
		return nil
	}
	if err := m.c.Networks.RemoveTap(rec.tap(number)); err != nil {
		return err
	}
	m.c.Networks.Deactivate(rec.NICs[i : i+1])
	m.mu.Lock()
	defer m.mu.Unlock()
	r.rec.NICs = slices.Delete(slices.Clone(r.rec.NICs), i, i+1)
	r.rec.Leased = slices.Delete(slices.Clone(r.rec.Leased), i, i+1)
	r.rec.Counted = maps.Clone(r.rec.Counted)
	delete(r.rec.Counted, number)
	if m.running[id] == r {
		m.c.Notify(m.statusOf(r))
	}
	if r.over {
		return nil
	}
	return m.writeRecord(r.rec)
}
