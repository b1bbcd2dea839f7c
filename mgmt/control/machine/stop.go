package machine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ashlar-hv/ashlar/mgmt/control/operation"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// errGraceOver says that the guest had its time.
var errGraceOver = errors.New("grace period over")

// stop does a stop operation.
func (m *Machine) stop(ctx context.Context, op *operation.Op) error {
	if err := m.want(false, ""); err != nil {
		return err
	}
	if err := m.known(ctx); errors.Is(err, operation.ErrCancelled) {
		return errors.Join(err, m.want(true, "")) // as it was
	} else if err != nil {
		return err
	}
	if !m.Alive() {
		return nil
	}
	if !op.Record().Force {
		err := m.ask(ctx, op)
		if !m.Alive() {
			return nil
		}
		if errors.Is(err, operation.ErrCancelled) {
			// It runs on, and is to run on. A guest that obeys the button all the same
			// has stopped for good then.
			return errors.Join(err, m.want(true, ""))
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	op.Progress(90, "ending the guest")
	return m.kill()
}

// known waits until core has told what runs, or the operation is cancelled.
func (m *Machine) known(ctx context.Context) error {
	up, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := m.g.core.WaitUp(up)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return refuse.Core(err, m.Name(), nil)
}

// ask presses the power button and waits until the guest has stopped, its time is over
// (errGraceOver), or somebody wants it faster.
func (m *Machine) ask(ctx context.Context, op *operation.Op) error {
	op.Amend(func(rec *store.Operation) {
		if rec.Deadline.IsZero() {
			rec.Deadline = time.Now().Add(rec.Grace)
		}
	})
	rec := op.Record()
	op.Progress(10, "pressing the power button")
	pressed, err := m.press()
	if err != nil {
		return errGraceOver // no use to wait
	}
	// A clock that was set back would have it wait for as long.
	if left := time.Until(rec.Deadline); left > rec.Grace {
		rec.Deadline = time.Now().Add(rec.Grace)
	}
	ctx, cancel := context.WithDeadlineCause(ctx, rec.Deadline, errGraceOver)
	defer cancel()
	over := func() bool { return !m.alive() || m.hurry }
	for {
		left := time.Until(rec.Deadline)
		done := 1 - float64(left)/float64(max(rec.Grace, 1))
		op.Progress(10+int32(80*min(max(done, 0), 1)), "waiting for the guest to switch itself off, until "+rec.Deadline.UTC().Format(time.TimeOnly)+" UTC")
		tick, cancel := context.WithTimeoutCause(ctx, 2*time.Second, errTick)
		err := m.await(tick, over)
		cancel()
		if !errors.Is(err, errTick) {
			return err
		}
		if !pressed {
			if pressed, err = m.press(); err != nil {
				return errGraceOver
			}
		}
	}
}

// press presses the power button, after it has resumed a guest that is paused. A VMM that does not answer just now is no error: it
// is asked again later.
func (m *Machine) press() (pressed bool, err error) {
	err = m.insist(m.g.ctx, hostcall.Call{Method: hostcall.GuestResume, ID: m.uid}, m.Paused)
	if err == nil {
		err = m.insist(m.g.ctx, hostcall.Call{Method: hostcall.GuestPowerButton, ID: m.uid}, m.Alive)
	}
	if err == nil {
		return true, nil
	}
	m.g.log.Warn("power button", "vm", m.id, "error", err)
	var he *hostcall.Error
	if errors.As(err, &he) && he.Code == hostcall.Unavailable {
		return false, nil
	}
	return false, err
}

var errTick = errors.New("tick")

// kill ends the guest at once.
func (m *Machine) kill() error {
	err := m.insist(m.g.ctx, hostcall.Call{Method: hostcall.GuestKill, ID: m.uid}, m.Alive)
	var he *hostcall.Error
	if errors.As(err, &he) && (he.Code == hostcall.NotFound || he.Code == hostcall.FailedPrecondition) {
		err = nil // it has ended by itself meanwhile; look
	}
	if err == nil {
		err = m.sync()
	}
	if err != nil {
		return refuse.Core(err, m.Name(), nil)
	}
	if m.Alive() {
		return refuse.Internal(fmt.Errorf("%s still runs after it was ended: look at the host's console", m.Name()))
	}
	return nil
}

// delete does a delete operation.
func (m *Machine) delete(ctx context.Context, op *operation.Op) error {
	if err := m.known(ctx); err != nil {
		return err
	}
	if m.Alive() && !op.Record().Force {
		return refuse.Precondition(refuse.WrongState, m.Name(), m.Name()+" is "+m.word()+": stop it first, or delete it with force")
	}
	if err := m.want(false, ""); err != nil {
		return err
	}
	op.Progress(20, "ending the guest")
	if err := m.kill(); err != nil {
		return err
	}
	if op.Cancelled() {
		return operation.ErrCancelled
	}
	op.Progress(50, "removing disks")
	if err := m.save(func(rec *store.VM) { rec.Phase = store.Deleting }); err != nil {
		return refuse.Internal(err)
	}
	if err := m.remove(); err != nil {
		var he *hostcall.Error
		if errors.As(err, &he) { // refused: it is as it was
			err = errors.Join(err, m.save(func(rec *store.VM) { rec.Phase = store.Ready }))
		}
		return refuse.Core(err, m.Name(), nil)
	}
	return nil
}

// remove makes core remove folder and disks, and forgets the machine.
func (m *Machine) remove() error {
	err := m.insist(m.g.ctx, hostcall.Call{Method: hostcall.GuestDelete, ID: m.uid}, func() bool { return true })
	var he *hostcall.Error
	if err != nil && (!errors.As(err, &he) || he.Code != hostcall.NotFound) {
		return err
	}
	return m.forget()
}

// clear removes what an earlier run, or a call that core's end cut off, left half made
// or half deleted. It returns when to try again.
func (m *Machine) clear(ctx context.Context) time.Duration {
	if err := m.g.core.WaitUp(ctx); err != nil {
		return time.Second
	}
	if err := m.remove(); err != nil && ctx.Err() == nil {
		m.g.log.Warn("half-made virtual machine not yet removed", "vm", m.id, "error", err)
		return time.Minute
	}
	return 0
}
