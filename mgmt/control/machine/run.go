package machine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ashlar-hv/ashlar/mgmt/control/link"
	"github.com/ashlar-hv/ashlar/mgmt/control/operation"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

const (
	// callTimeout bounds one call of core.
	callTimeout = 3 * time.Minute
	// patience bounds how long an operation waits for a core that is away.
	patience = 5 * time.Minute
	// retryPause is between two tries that core's end has cut off.
	retryPause = 200 * time.Millisecond
	// A guest that resets itself over and over is started again ever later. One that
	// ran for steady counts as new.
	steady        = 30 * time.Second
	resetPause    = time.Second
	resetPauseMax = 30 * time.Second
)

// run does what is to be done until the machine is gone, or control ends.
func (m *Machine) run() {
	ctx := m.g.ctx
	for ctx.Err() == nil {
		wait, more := m.step(ctx)
		if !more {
			return
		}
		if wait == 0 {
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-m.wake:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// step does the next thing, if there is one; else it says how long to wait for a change.
// more is false when the machine is gone.
func (m *Machine) step(ctx context.Context) (wait time.Duration, more bool) {
	const idle = time.Hour
	m.mu.Lock()
	switch {
	case m.gone:
		m.mu.Unlock()
		return 0, false
	case m.making:
		m.mu.Unlock()
		return idle, true
	case m.rec.Phase == store.Creating, m.rec.Phase == store.Deleting && len(m.queue) == 0:
		m.mu.Unlock()
		return m.clear(ctx), true
	case len(m.queue) > 0:
		op := m.queue[0]
		m.current, m.queue = op, m.queue[1:]
		m.hurry = slices.ContainsFunc(m.queue, func(op *operation.Op) bool { return op.Record().Force && !op.Cancelled() })
		m.mu.Unlock()
		m.work(ctx, op)
		return 0, true
	case len(m.leftovers()) > 0:
		m.mu.Unlock()
		return m.clearDevices(ctx), true
	case m.rec.DesiredRunning && m.seen.State == hostcall.Stopped && !m.comesBack(m.seen.Reason):
		m.mu.Unlock()
		return m.settle(), true
	case m.rec.DesiredRunning && m.seen.State == hostcall.Stopped:
		pause := m.resetDelay() - time.Since(m.booted)
		m.mu.Unlock()
		if pause > 0 {
			return pause, true
		}
		return m.again(ctx), true
	}
	m.mu.Unlock()
	return idle, true
}

// work does one operation.
func (m *Machine) work(ctx context.Context, op *operation.Op) {
	opctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(op.Context(), func() { cancel(context.Cause(op.Context())) })
	defer cancel(nil)
	defer stop()
	var err error
	switch rec := op.Record(); {
	case op.Cancelled():
		err = operation.ErrCancelled
		if rec.Kind == kindStop && !rec.Deadline.IsZero() { // an earlier run was at it
			err = errors.Join(err, m.want(true, ""))
		}
	case rec.Kind == kindStart:
		err = m.start(opctx, op)
	case rec.Kind == kindStop:
		err = m.stop(opctx, op)
	case rec.Kind == kindPause:
		err = m.pause(opctx, op)
	case rec.Kind == kindResume:
		err = m.resume(opctx, op)
	case rec.Kind == kindReset:
		err = m.reset(opctx, op)
	case rec.Kind == kindSetDiskLimits:
		err = m.setDiskLimits(opctx, op)
	case rec.Kind == kindSetNICLimits:
		err = m.setNICLimits(opctx, op)
	case rec.Kind == kindSetNICLink:
		err = m.setNICLink(opctx, op)
	case rec.Kind == kindResizeDisk:
		err = m.resizeDisk(opctx, op)
	case rec.Kind == kindSetCPUs:
		err = m.setCPUs(opctx, op)
	case rec.Kind == kindAttachDisk, rec.Kind == kindAttachNIC, rec.Kind == kindAttachDevice:
		err = m.attach(opctx, op)
	case rec.Kind == kindDetachDisk, rec.Kind == kindDetachNIC, rec.Kind == kindDetachDevice:
		err = m.detach(opctx, op)
	case rec.Kind == kindDelete:
		err = m.delete(opctx, op)
	default:
		err = refuse.Internal(fmt.Errorf("no operation of kind %q is known", rec.Kind))
	}
	m.mu.Lock()
	m.current = nil
	m.mu.Unlock()
	if err != nil && ctx.Err() != nil {
		return // control ends: the operation is taken up again at its next start
	}
	m.unname(op.Record())
	op.Finish(err)
	m.mu.Lock()
	m.touch()
	m.mu.Unlock()
}

// want records whether the machine is to run; note says why not.
func (m *Machine) want(running bool, note string) error {
	m.mu.Lock()
	same := m.rec.DesiredRunning == running && m.rec.StopNote == note
	m.mu.Unlock()
	if same {
		return nil
	}
	err := m.save(func(rec *store.VM) { rec.DesiredRunning, rec.StopNote = running, note })
	if err != nil {
		return refuse.Internal(err)
	}
	return nil
}

// settle notes that the machine has stopped for good.
func (m *Machine) settle() time.Duration {
	m.mu.Lock()
	note := ""
	if m.seen.Reason == "" {
		note = "the host was restarted while it ran: start it again"
	}
	m.mu.Unlock()
	if err := m.want(false, note); err != nil {
		m.g.log.Error("stop not noted", "vm", m.id, "error", err)
		return time.Minute
	}
	return 0
}

// insist makes a call of core, again where core went away. Nothing but the end of
// control or patience ends it early.
func (m *Machine) insist(ctx context.Context, c hostcall.Call, needed func() bool) error {
	var populating time.Duration
	if g := c.Guest; g != nil {
		populating = g.Backing.PopulateTime(g.MemoryBytes)
		if len(g.Devices) > 0 {
			populating = takingTime
		}
	}
	if c.Method == hostcall.GuestAttachDisk || c.Method == hostcall.GuestAttachDevice {
		populating = createTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, patience+populating)
	defer cancel()
	for {
		if err := m.g.core.WaitUp(ctx); err != nil {
			return err
		}
		if !needed() {
			return nil
		}
		callCtx, cancel := context.WithTimeout(ctx, callTimeout+populating)
		_, err := m.g.core.Do(callCtx, c)
		cancel()
		if !errors.Is(err, link.ErrDown) {
			return err
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return err
		}
	}
}

// start does a start operation.
func (m *Machine) start(ctx context.Context, op *operation.Op) error {
	if err := m.want(true, ""); err != nil {
		return err
	}
	op.Progress(10, "starting")
	err := m.boot(ctx)
	if err == nil {
		return nil
	}
	if m.g.ctx.Err() == nil && !m.Alive() {
		if werr := m.want(false, "it could not be started: "+refuse.Sentence(err)); werr != nil {
			m.g.log.Error("failed start not noted", "vm", m.id, "error", werr)
		}
	}
	return err
}

// boot makes core start the guest. A start that core has begun is not cut off.
func (m *Machine) boot(ctx context.Context) error {
	up, cancel := context.WithTimeout(ctx, patience)
	err := m.g.core.WaitUp(up)
	cancel()
	if ctx.Err() != nil {
		return operation.ErrCancelled
	}
	if err != nil {
		return refuse.Core(err, m.Name(), nil)
	}
	if err := m.clearAway(); err != nil {
		return refuse.Core(err, m.Name(), nil)
	}
	call, err := m.startCall()
	if err != nil {
		return err
	}
	for {
		m.mu.Lock()
		m.booted = time.Now()
		m.mu.Unlock()
		var other time.Time // when a start that another call has begun began
		err = m.insist(m.g.ctx, call, func() bool {
			m.mu.Lock()
			defer m.mu.Unlock()
			other = time.Time{}
			if m.alive() {
				other = m.seen.Started
			}
			return !m.alive()
		})
		if err == nil {
			err = m.sync()
		}
		if err != nil {
			return refuse.Core(err, m.Name(), startField)
		}
		failed := false
		err = m.await(m.g.ctx, func() bool {
			// One that came to run would have left its end.
			failed = !m.alive() && !other.IsZero() && !m.seen.Started.Equal(other)
			return m.seen.State != hostcall.Starting
		})
		if err != nil {
			return err
		}
		if !failed {
			m.balloonAnew(int64(call.Guest.BalloonBytes))
			m.memoryAnew(call.Guest.Pluggable)
			return nil
		}
		// Whoever asked for that start has been told why it failed: ask again to hear it.
	}
}

// sync makes the machine's state at least as new as now.
func (m *Machine) sync() error {
	ctx, cancel := context.WithTimeout(m.g.ctx, patience)
	defer cancel()
	for {
		err := m.g.core.Sync(ctx)
		if !errors.Is(err, link.ErrDown) {
			return err
		}
		if err := m.g.core.WaitUp(ctx); err != nil { // which has synced when it is up again
			return err
		}
		time.Sleep(retryPause)
	}
}

// startCall is what core is told to start.
func (m *Machine) startCall() (hostcall.Call, error) {
	m.mu.Lock()
	rec := m.rec
	m.mu.Unlock()
	guest := &hostcall.Guest{Board: rec.Board, Name: rec.ID, VCPUs: int(rec.CPUs), MaxVCPUs: int(rec.MaxCPUs), CPU: rec.CPU, MemoryBytes: uint64(rec.MemoryBytes), Backing: rec.Backing.ForNodes(rec.NUMA), NUMA: rec.NUMA, Pluggable: rec.Pluggable, BalloonBytes: uint64(rec.BalloonBytes), HotplugSlots: rec.HotplugSlots, Cmdline: rec.Cmdline}
	var err error
	if guest.Kernel, err = m.imageUID("boot.kernel", rec.Kernel); err != nil {
		return hostcall.Call{}, err
	}
	if rec.Initramfs != "" {
		if guest.Initramfs, err = m.imageUID("boot.initramfs", rec.Initramfs); err != nil {
			return hostcall.Call{}, err
		}
	}
	for _, d := range rec.Disks {
		guest.Disks = append(guest.Disks, d.Size)
		guest.DiskNumbers = append(guest.DiskNumbers, d.Number)
		guest.DiskLimits = append(guest.DiskLimits, d.Limits)
	}
	for _, n := range rec.NICs {
		guest.NICs = append(guest.NICs, hostcall.NIC{Number: n.Number, Network: n.Network, MAC: n.MAC, Limits: n.Limits, LinkDown: n.LinkDown})
	}
	for _, d := range rec.Devices {
		guest.Devices = append(guest.Devices, d.HostDevice)
	}
	guest.Vsock, guest.SerialPorts, guest.Placement = rec.Vsock, rec.SerialPorts, rec.Placement
	return hostcall.Call{Method: hostcall.GuestStart, ID: rec.UID, Guest: guest}, nil
}

// resetDelay is how long after the last start the next one may be. mu is held.
func (m *Machine) resetDelay() time.Duration {
	if time.Since(m.booted) > steady {
		m.resets = 0
	}
	if m.resets == 0 {
		return 0
	}
	return min(resetPause<<min(m.resets-1, 10), resetPauseMax)
}

// again starts a guest that has asked for a reset.
func (m *Machine) again(ctx context.Context) time.Duration {
	m.mu.Lock()
	m.resets++
	m.booting = true
	m.touch()
	m.mu.Unlock()
	err := m.boot(ctx)
	m.mu.Lock()
	m.booting = false
	m.touch()
	m.mu.Unlock()
	if err == nil || ctx.Err() != nil {
		return 0
	}
	m.g.log.Error("guest not started again after its reset", "vm", m.id, "error", err)
	if refuse.IsDown(err) || m.Alive() { // an answer that came too late was none
		return resetPauseMax
	}
	if err := m.want(false, "it could not be started again after a reset: "+refuse.Sentence(err)); err != nil {
		return resetPauseMax
	}
	return 0
}
