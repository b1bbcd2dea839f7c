package machine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/link"
	"github.com/ashlar-hv/ashlar/mgmt/control/operation"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

const (
	// detachPoll is how often a guest is looked at that is to give a device up.
	detachPoll = 300 * time.Millisecond
	// forceTime is how long a VMM may take to take a device away.
	forceTime = 30 * time.Second
)

// AttachDisk orders a new disk.
func (g *Manager) AttachDisk(o Order, d *ashlarv1.Disk) (*operation.Op, error) {
	c := &checker{images: g.images, root: "disk"}
	disk := c.disk("", d)
	if err := refuse.Invalid(c.wrong...); err != nil {
		return g.refusedAs(o, err)
	}
	o.NewDisk = &disk
	return g.submit(kindAttachDisk, o)
}

// refusedAs is the answer to an order with a mistake in it: what the same request has
// begun, when it was none yet, or err.
func (g *Manager) refusedAs(o Order, err error) (*operation.Op, error) {
	if op, rerr := g.repeated(o.Ticket); op != nil && rerr == nil {
		return op, nil
	}
	return nil, err
}

// AttachNIC orders a new network interface.
func (g *Manager) AttachNIC(ctx context.Context, o Order, n *ashlarv1.NetworkInterface) (*operation.Op, error) {
	host, err := g.host(ctx)
	if err != nil {
		return g.refusedAs(o, err)
	}
	c := &checker{root: "network_interface"}
	nic := c.nic("", n, host)
	if err := refuse.Invalid(c.wrong...); err != nil {
		return g.refusedAs(o, err)
	}
	o.NewNIC = &nic
	return g.submit(kindAttachNIC, o)
}

// DetachDisk orders the end of a disk.
func (g *Manager) DetachDisk(o Order, number int) (*operation.Op, error) {
	o.Disk, o.Device = number, hostcall.DeviceName(hostcall.DiskKind, number)
	return g.submit(kindDetachDisk, o)
}

// DetachNIC orders the end of a network interface.
func (g *Manager) DetachNIC(o Order, number int) (*operation.Op, error) {
	o.Device = hostcall.DeviceName(hostcall.NICKind, number)
	return g.submit(kindDetachNIC, o)
}

// attachField turns a field of GuestAttachDisk or GuestAttachNIC into one of the request.
func attachField(field string) string {
	_, rest, ok := strings.Cut(startField(field), "]")
	switch {
	case strings.HasPrefix(field, "device"):
		return "device"
	case ok && strings.Contains(field, "nics["):
		return "network_interface" + rest
	case ok:
		return "disk" + rest
	case strings.HasPrefix(field, "limits"):
		return "disk.limits"
	}
	return ""
}

// attach does an attach operation: the record, where the device counts as half made, then
// core, then the record again. Whatever cuts it off, the record says what may be there,
// and the operation goes on, or it is cleared away.
func (m *Machine) attach(ctx context.Context, op *operation.Op) error {
	rec := op.Record()
	d, _ := attaching(rec)
	op.Progress(10, "attaching "+d.name())
	if err := m.known(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	has, begun := m.device(d.name())
	m.mu.Unlock()
	switch {
	case begun && has.phase == store.Ready: // all but the note was done
		return nil
	case !begun:
		if err := m.enterDevice(rec); err != nil {
			return refuse.Internal(err)
		}
	}
	err := m.plug(rec)
	if err == nil {
		if err = m.setPhase(d, store.Ready); err != nil {
			return refuse.Internal(err)
		}
		return nil
	}
	if m.g.ctx.Err() != nil { // it goes on at the next start
		return err
	}
	if cerr := m.clearDevice(d); cerr != nil {
		m.g.log.Warn("half-attached device not yet removed", "vm", m.id, "device", d.name(), "error", cerr)
	}
	return refuse.Core(err, m.Name(), attachField)
}

// enterDevice records what is to be made, in the order of numbers.
func (m *Machine) enterDevice(op store.Operation) error {
	return m.save(func(rec *store.VM) {
		if op.NewDisk != nil {
			d := *op.NewDisk
			d.Phase = store.Creating
			rec.Disks = append(slices.Clone(rec.Disks), d)
			slices.SortFunc(rec.Disks, func(a, b store.Disk) int { return cmp.Compare(a.Number, b.Number) })
			return
		}
		if op.NewDevice != nil {
			d := *op.NewDevice
			d.Phase = store.Creating
			rec.Devices = append(slices.Clone(rec.Devices), d)
			slices.SortFunc(rec.Devices, func(a, b store.HostDevice) int { return cmp.Compare(a.Number, b.Number) })
			return
		}
		n := *op.NewNIC
		n.Phase = store.Creating
		rec.NICs = append(slices.Clone(rec.NICs), n)
		slices.SortFunc(rec.NICs, func(a, b store.NIC) int { return cmp.Compare(a.Number, b.Number) })
	})
}

// plug makes core make the device, and give it to a guest that runs.
func (m *Machine) plug(op store.Operation) error {
	if op.NewDevice != nil {
		return m.plugDevice(op.NewDevice)
	}
	if op.NewNIC != nil {
		n := op.NewNIC
		err := m.insist(m.g.ctx, hostcall.Call{Method: hostcall.GuestAttachNIC, ID: m.uid,
			NewNIC: &hostcall.NIC{Number: n.Number, Network: n.Network, MAC: n.MAC, Limits: n.Limits, LinkDown: n.LinkDown}}, m.Alive)
		if err != nil && m.hasEnded() {
			return nil // the next start brings it
		}
		return err
	}
	d := op.NewDisk
	disk := hostcall.Disk{Size: d.Size}
	if d.Image != "" {
		var err error
		if disk.Image, err = m.imageUID("disk.image", d.Image); err != nil {
			return err
		}
	}
	call := hostcall.Call{Method: hostcall.GuestAttachDisk, ID: m.uid, Disk: d.Number, Disks: []hostcall.Disk{disk}, Limits: d.Limits}
	return m.toBoth(call)
}

// toBoth makes a call that is for the guest where it runs, and for what is on the host's disk also
// where it does not; it may end by itself just then.
func (m *Machine) toBoth(c hostcall.Call) error {
	always := func() bool { return true }
	err := m.insist(m.g.ctx, c, always)
	if err != nil && m.hasEnded() {
		err = m.insist(m.g.ctx, c, always)
	}
	return err
}

// detach does a detach operation: the guest gives the device up, then it counts as gone,
// then what belongs to it is removed.
func (m *Machine) detach(ctx context.Context, op *operation.Op) error {
	rec := op.Record()
	op.Progress(10, "detaching "+rec.Device)
	if err := m.known(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	d, there := m.device(rec.Device)
	m.mu.Unlock()
	if !there {
		return nil // all but the note was done
	}
	if d.phase == store.Ready {
		if err := m.unplug(ctx, op); err != nil {
			return err
		}
		if err := m.setPhase(d, store.Deleting); err != nil {
			return refuse.Internal(err)
		}
	}
	op.Progress(90, "removing what belonged to "+rec.Device)
	return refuse.Core(m.clearDevice(d), m.Name(), nil)
}

// unplug waits until a guest has given up the device of op, its time is over, or
// something more urgent waits.
func (m *Machine) unplug(ctx context.Context, op *operation.Op) error {
	op.Amend(func(rec *store.Operation) {
		if rec.Force {
			rec.Grace = forceTime
		}
		if rec.Deadline.IsZero() {
			rec.Deadline = time.Now().Add(rec.Grace)
		}
	})
	rec := op.Record()
	asked := false
	for {
		there, err := m.request(rec.Device, rec.Force, &asked)
		if !there || err != nil {
			return refuse.Core(err, m.Name(), nil)
		}
		left := time.Until(rec.Deadline)
		if left <= 0 {
			return m.notGivenUp(rec)
		}
		done := 1 - float64(left)/float64(max(rec.Grace, 1))
		op.Progress(10+int32(70*min(max(done, 0), 1)), fmt.Sprintf("waiting for the guest to give up %s, until %s UTC", rec.Device, rec.Deadline.UTC().Format(time.TimeOnly)))
		tick, cancel := context.WithTimeoutCause(ctx, min(detachPoll, left), errTick)
		var urgent *operation.Op
		err = m.await(tick, func() bool {
			urgent = m.urgent(rec)
			return urgent != nil || !m.alive()
		})
		cancel()
		switch {
		case urgent != nil:
			return refuse.Precondition(refuse.WrongState, m.Name(), fmt.Sprintf("%s was still attached when %s%s came: look whether it has gone", rec.Device, operation.Prefix, urgent.Record().ID))
		case err != nil && !errors.Is(err, errTick):
			return err
		}
	}
}

// notGivenUp says what to do about a guest that keeps a device.
func (m *Machine) notGivenUp(rec store.Operation) error {
	if rec.Force {
		return refuse.Internal(fmt.Errorf("%s was not taken away from %s in %v: reset or stop it", rec.Device, m.Name(), rec.Grace))
	}
	return refuse.Precondition(refuse.WrongState, m.Name(), fmt.Sprintf(
		"the guest has not given up %s in %v: it stays attached until the guest does. Look whether something uses it, then detach it again, or with force, which loses what the guest has not written", rec.Device, rec.Grace))
}

// urgent is an operation that waits and must not wait for a guest that keeps a device.
// mu is held.
func (m *Machine) urgent(detach store.Operation) *operation.Op {
	for _, op := range m.queue {
		switch rec := op.Record(); {
		case op.Cancelled():
		case rec.Kind == kindStop, rec.Kind == kindReset, rec.Kind == kindDelete, rec.Device == detach.Device && rec.Force:
			return op
		}
	}
	return nil
}

// request looks whether the guest has the device, and asks it to give it up where it has
// not been asked. A VMM, or core, that does not answer just now is asked again later.
func (m *Machine) request(device string, force bool, asked *bool) (there bool, err error) {
	if !m.Alive() {
		return false, nil
	}
	msg, err := m.g.ask(m.g.ctx, hostcall.Call{Method: hostcall.GuestDevices, ID: m.uid})
	if err != nil {
		return m.unsure(err)
	}
	i := slices.IndexFunc(msg.Devices, func(d protocol.PluggedDevice) bool { return d.Name == device })
	switch {
	case i < 0:
		return false, nil
	case msg.Devices[i].Slot == 0:
		return true, refuse.Precondition(refuse.WrongState, m.Name(),
			fmt.Sprintf("%s was there when %s was started, and is in no hot-plug slot: stop it first", device, m.Name()))
	case force && *asked, !force && msg.Devices[i].Detaching:
		return true, nil
	}
	if _, err = m.g.ask(m.g.ctx, hostcall.Call{Method: hostcall.GuestDetach, ID: m.uid, Device: device, Force: force}); err != nil {
		return m.unsure(err)
	}
	*asked = true
	return true, nil
}

// unsure says what an answer of core's about a device means that was an error.
func (m *Machine) unsure(err error) (there bool, _ error) {
	var he *hostcall.Error
	switch {
	case errors.Is(err, link.ErrDown), errors.Is(err, context.DeadlineExceeded),
		errors.As(err, &he) && he.Code == hostcall.Unavailable:
		return true, nil
	case m.hasEnded():
		return false, nil
	}
	return true, err
}

// leftovers are the devices that were half made or half removed by what is not under way
// any more. mu is held.
func (m *Machine) leftovers() []device {
	return slices.DeleteFunc(devices(m.rec), func(d device) bool { return d.phase == store.Ready })
}

// clearAway removes the leftovers.
func (m *Machine) clearAway() error {
	m.mu.Lock()
	half := m.leftovers()
	m.mu.Unlock()
	for _, d := range half {
		if err := m.clearDevice(d); err != nil {
			return err
		}
	}
	return nil
}

// clearDevices does so when there is nothing else to do, and returns when to try again.
func (m *Machine) clearDevices(ctx context.Context) time.Duration {
	if err := m.g.core.WaitUp(ctx); err != nil {
		return time.Second
	}
	if err := m.clearAway(); err != nil && ctx.Err() == nil {
		m.g.log.Warn("half-attached device not yet removed", "vm", m.id, "error", err)
		return time.Minute
	}
	return 0
}

// clearDevice makes core remove what there is of a device, and forgets it. A guest that
// has it, which only core's end can have brought about, loses it.
func (m *Machine) clearDevice(d device) error {
	if err := m.setPhase(d, store.Deleting); err != nil {
		return err
	}
	drop := hostcall.Call{Method: hostcall.GuestDrop, ID: m.uid, Device: d.name()}
	err := m.toBoth(drop)
	var he *hostcall.Error
	if errors.As(err, &he) && he.Code == hostcall.FailedPrecondition {
		if err = m.takeAway(d.name()); err == nil {
			err = m.toBoth(drop)
		}
	}
	if errors.As(err, &he) && he.Code == hostcall.NotFound {
		err = nil
	}
	if err != nil {
		return err
	}
	return m.forgetDevice(d)
}

// takeAway takes a device away from a guest.
func (m *Machine) takeAway(device string) error {
	ctx, cancel := context.WithTimeout(m.g.ctx, forceTime)
	defer cancel()
	for asked := false; ; {
		there, err := m.request(device, true, &asked)
		if !there || err != nil {
			return err
		}
		tick, cancel := context.WithTimeoutCause(ctx, detachPoll, errTick)
		err = m.await(tick, func() bool { return !m.alive() })
		cancel()
		if err != nil && !errors.Is(err, errTick) {
			return err
		}
	}
}
