package machine

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/image"
	"github.com/ashlar-hv/ashlar/mgmt/control/operation"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// Synced takes the state of all guests.
func (g *Manager) Synced(guests []hostcall.GuestStatus) {
	byID := make(map[string]hostcall.GuestStatus, len(guests))
	for _, st := range guests {
		byID[st.ID] = st
	}
	for _, m := range g.all() {
		st, ok := byID[m.uid]
		delete(byID, m.uid)
		m.observe(st, ok)
	}
	for id, st := range byID {
		g.mu.Lock()
		told := g.strange[id]
		g.strange[id] = true
		g.mu.Unlock()
		if told {
			continue
		}
		g.log.Warn("core has a guest that the store does not know; it is left alone", "uid", id, "state", st.State)
	}
}

// Changed takes the state of one guest.
func (g *Manager) Changed(st hostcall.GuestStatus) {
	g.mu.Lock()
	m := g.byUID[st.ID]
	g.mu.Unlock()
	if m != nil {
		m.observe(st, true)
	}
}

// observe takes what core sees; ok is whether core knows the guest at all.
func (m *Machine) observe(st hostcall.GuestStatus, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !ok {
		st = hostcall.GuestStatus{ID: m.uid, State: hostcall.Stopped}
	}
	if m.absent == !ok && equal(m.seen, st) {
		return
	}
	if m.seen.State != st.State {
		m.g.log.Info("guest", "vm", m.id, "state", st.State, "reason", st.Reason, "message", st.Message)
	}
	for _, d := range st.Devices {
		if d.Fault != "" && !slices.ContainsFunc(m.seen.Devices, d.Equal) {
			m.g.log.Warn("device of a guest", "vm", m.id, "device", d.Address, "fault", d.Fault)
		}
	}
	m.seen, m.absent = st, !ok
	m.touch()
}

func equal(a, b hostcall.GuestStatus) bool {
	return a.State == b.State && a.Reason == b.Reason && a.Message == b.Message && a.PID == b.PID && a.VCPUs == b.VCPUs &&
		a.Started.Equal(b.Started) && a.Panicked.Equal(b.Panicked) && a.Before == b.Before && slices.Equal(a.Addresses, b.Addresses) && a.CID == b.CID && slices.Equal(a.NICs, b.NICs) &&
		a.DisksFull == b.DisksFull && a.DisksFailed == b.DisksFailed && slices.Equal(a.TapsGone, b.TapsGone) &&
		slices.EqualFunc(a.Devices, b.Devices, hostcall.HeldDevice.Equal)
}

// alive reports whether a VMM runs, as far as known. mu is held.
func (m *Machine) alive() bool {
	switch m.seen.State {
	case hostcall.Starting, hostcall.Running, hostcall.Paused:
		return true
	}
	return false
}

// Alive reports whether a VMM runs, as far as known.
func (m *Machine) Alive() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.alive()
}

// Paused reports whether a VMM runs whose guest is paused, as far as known.
func (m *Machine) Paused() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seen.State == hostcall.Paused
}

// word is what a machine is, for messages.
func (m *Machine) word() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return string(m.stands())
}

// await waits until cond, which is called with mu held.
func (m *Machine) await(ctx context.Context, cond func() bool) error {
	for {
		m.mu.Lock()
		ok, changed := cond(), m.changed
		m.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// A View is a machine at one moment.
type View struct {
	VM *ashlarv1.VirtualMachine
	// Alive is whether a VMM runs.
	Alive bool
	// Coming is whether it will run without anybody asking for it: it is being
	// started, or was reset.
	Coming bool
	// Gone is whether it has been deleted.
	Gone bool
	// Changed is closed when there is something new to look at.
	Changed <-chan struct{}
}

// Look returns how the machine is now.
func (m *Machine) Look() View {
	m.mu.Lock()
	defer m.mu.Unlock()
	return View{
		VM: m.proto(), Alive: m.alive(), Gone: m.gone, Changed: m.changed,
		Coming: !m.alive() && (m.awaits(kindStart) || m.wanted()),
	}
}

// Proto returns the machine as clients see it.
func (m *Machine) Proto() *ashlarv1.VirtualMachine {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.proto()
}

// pending is the operation worked on, or the next one. mu is held.
func (m *Machine) pending() *operation.Op {
	if m.current != nil {
		return m.current
	}
	if len(m.queue) > 0 {
		return m.queue[0]
	}
	return nil
}

// awaits reports whether an operation of kind is under way or queued. mu is held.
func (m *Machine) awaits(kind string) bool {
	return m.current != nil && m.current.Record().Kind == kind ||
		slices.ContainsFunc(m.queue, func(op *operation.Op) bool { return op.Record().Kind == kind })
}

// wanted reports whether the host keeps the machine running: one that was reset, or is to be by
// its watchdog or a panic, is started again, one that stopped for another reason is not. mu is held.
func (m *Machine) wanted() bool {
	if !m.rec.DesiredRunning {
		return false
	}
	if m.seen.State == hostcall.Stopped && !m.comesBack(m.seen.Reason) {
		return m.awaits(kindStart)
	}
	return true
}

var reasons = map[string]ashlarv1.VirtualMachine_StopReason{
	"":                           ashlarv1.VirtualMachine_STOP_REASON_NOT_STARTED,
	string(protocol.PoweredOff):  ashlarv1.VirtualMachine_STOP_REASON_POWERED_OFF,
	string(protocol.Reset):       ashlarv1.VirtualMachine_STOP_REASON_RESET,
	string(protocol.Halted):      ashlarv1.VirtualMachine_STOP_REASON_HALTED,
	string(protocol.TripleFault): ashlarv1.VirtualMachine_STOP_REASON_TRIPLE_FAULT,
	string(protocol.Killed):      ashlarv1.VirtualMachine_STOP_REASON_KILLED,
	string(protocol.Failed):      ashlarv1.VirtualMachine_STOP_REASON_FAILED,
	hostcall.Lost:                ashlarv1.VirtualMachine_STOP_REASON_LOST,

	string(protocol.Panicked):        ashlarv1.VirtualMachine_STOP_REASON_PANICKED,
	string(protocol.WatchdogExpired): ashlarv1.VirtualMachine_STOP_REASON_WATCHDOG,
}

// state is called with mu held.
func (m *Machine) state() ashlarv1.VirtualMachine_State {
	kind := ""
	if op := m.pending(); op != nil {
		kind = op.Record().Kind
	}
	switch {
	case m.rec.Phase == store.Deleting, kind == kindDelete:
		return ashlarv1.VirtualMachine_STATE_DELETING
	case kind == kindStop && m.alive():
		return ashlarv1.VirtualMachine_STATE_STOPPING
	case !m.alive() && (kind == kindStart || kind == kindReset || m.booting):
		return ashlarv1.VirtualMachine_STATE_STARTING
	}
	switch m.seen.State {
	case hostcall.Starting:
		return ashlarv1.VirtualMachine_STATE_STARTING
	case hostcall.Running:
		return ashlarv1.VirtualMachine_STATE_RUNNING
	case hostcall.Paused:
		return ashlarv1.VirtualMachine_STATE_PAUSED
	case hostcall.Stopped:
		return ashlarv1.VirtualMachine_STATE_STOPPED
	}
	return ashlarv1.VirtualMachine_STATE_UNSPECIFIED // core has not told yet
}

// proto is called with mu held.
func (m *Machine) proto() *ashlarv1.VirtualMachine {
	p := describe(m.rec)
	p.State, p.DesiredRunning = m.state(), m.wanted()
	if m.seen.State == hostcall.Stopped {
		reason, known := reasons[m.seen.Reason]
		if !known {
			reason = ashlarv1.VirtualMachine_STOP_REASON_FAILED
		}
		p.StopReason, p.StopMessage = reason, m.seen.Message
		switch {
		case m.absent:
			p.StopMessage = "its disks are not on the host: delete it, or bring back the data disk"
		case p.StopMessage == "":
			p.StopMessage = m.rec.StopNote
		}
	}
	if m.alive() {
		p.StopReason, p.StopMessage = trouble(m.seen)
		p.Problems = problems(m.seen)
	}
	if m.alive() && !m.seen.Started.IsZero() {
		p.StartTime = timestamppb.New(m.seen.Started)
	}
	if p.Vsock != nil && m.alive() {
		p.Vsock.Cid = m.seen.CID
	}
	for i, nic := range p.NetworkInterfaces {
		if n := slices.Index(m.seen.NICs, int(nic.Number)); n >= 0 {
			i = n
		} else if len(m.seen.NICs) > 0 {
			continue
		}
		if m.alive() && i < len(m.seen.Addresses) {
			nic.IpAddress = m.seen.Addresses[i]
		}
	}
	if m.alive() && m.rec.MaxCPUs > 0 {
		p.PresentCpus = int32(m.seen.VCPUs)
	}
	if m.alive() {
		m.seeDevices(p)
	}
	p.Etag = image.Etag(p)
	return p
}

// describe is the recorded part of a machine.
func describe(rec store.VM) *ashlarv1.VirtualMachine {
	p := &ashlarv1.VirtualMachine{
		Name: Prefix + rec.ID, Uid: rec.UID, Cpus: rec.CPUs, MaxCpus: rec.MaxCPUs, MemoryBytes: rec.MemoryBytes, BalloonBytes: rec.BalloonBytes,
		Boot:       &ashlarv1.Boot{Kernel: image.Prefix + rec.Kernel, Cmdline: rec.Cmdline},
		CreateTime: timestamppb.New(rec.CreateTime), HotplugSlots: proto.Int32(int32(rec.HotplugSlots)),
	}
	if rec.Initramfs != "" {
		p.Boot.Initramfs = image.Prefix + rec.Initramfs
	}
	if b := rec.Backing; b != nil {
		p.MemoryBacking = &ashlarv1.MemoryBacking{Populate: b.Populate}
		for name, kind := range pages {
			if kind == b.Pages {
				p.MemoryBacking.Pages = name
			}
		}
	}
	describeBoard(p, rec.Board.Get())
	if mem := rec.Pluggable; mem != nil {
		p.MaxMemoryBytes, p.HotplugMemoryBytes = rec.MemoryBytes+signed(mem.MaxBytes), signed(mem.Bytes)
	}
	if c := rec.CPU; c != nil {
		p.Processor = &ashlarv1.Processor{
			Model: c.Model, Sockets: int32(c.Sockets), Cores: int32(c.Cores), Threads: int32(c.Threads), Hyperv: c.HyperV,
		}
		if ns := c.HaltPollNs; ns != nil {
			p.Processor.HaltPoll = durationpb.New(time.Duration(*ns))
		}
	}
	p.SerialPorts = rec.SerialPorts
	if rec.Vsock {
		p.Vsock = &ashlarv1.Vsock{}
	}
	p.NumaNodes, p.Placement = numaProto(rec.NUMA), placementProto(rec.Placement)
	for _, d := range rec.Disks {
		if d.Phase != store.Ready {
			continue
		}
		disk := &ashlarv1.Disk{SizeBytes: d.Size, Limits: limitsProto(d.Limits), Number: int32(d.Number)}
		if d.Image != "" {
			disk.Image = image.Prefix + d.Image
		}
		p.Disks = append(p.Disks, disk)
	}
	for _, n := range rec.NICs {
		if n.Phase != store.Ready {
			continue
		}
		p.NetworkInterfaces = append(p.NetworkInterfaces, nicProto(n))
	}
	p.Devices = devicesProto(rec)
	return p
}
