package machine

import (
	"context"
	"errors"
	"time"

	"github.com/ashlar-hv/ashlar/mgmt/control/operation"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// pause does a pause operation.
func (m *Machine) pause(ctx context.Context, op *operation.Op) error {
	op.Progress(10, "pausing")
	return m.bring(ctx, hostcall.GuestPause, hostcall.Paused)
}

// resume does a resume operation.
func (m *Machine) resume(ctx context.Context, op *operation.Op) error {
	op.Progress(10, "resuming")
	return m.bring(ctx, hostcall.GuestResume, hostcall.Running)
}

// bring makes core bring a guest into a state. What it has begun is not cut off.
func (m *Machine) bring(ctx context.Context, method hostcall.Method, want hostcall.GuestState) error {
	if err := m.known(ctx); err != nil {
		return err
	}
	err := m.insist(m.g.ctx, hostcall.Call{Method: method, ID: m.uid}, func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.alive() && m.seen.State != want
	})
	if err == nil {
		err = m.sync()
	}
	if err != nil {
		return refuse.Core(err, m.Name(), nil)
	}
	if !m.Alive() {
		return m.hasStopped()
	}
	return nil
}

// hasStopped refuses what the guest's end has overtaken.
func (m *Machine) hasStopped() error {
	return refuse.Precondition(refuse.WrongState, m.Name(), m.Name()+" has stopped: start it")
}

// reset does a reset operation: it ends the run that it finds, once, and starts the
// next. An operation that an earlier run of control, or core's end, has cut off goes on
// from what it finds.
func (m *Machine) reset(ctx context.Context, op *operation.Op) error {
	if err := m.known(ctx); err != nil {
		return err
	}
	if op.Record().Run.IsZero() {
		began, alive := m.runBegan()
		if !alive {
			return m.hasStopped()
		}
		op.Amend(func(rec *store.Operation) { rec.Run = began })
	}
	op.Progress(10, "resetting")
	if err := m.endRun(op.Record().Run); err != nil {
		return err
	}
	m.mu.Lock()
	alive, back := m.alive(), m.comesBack(m.seen.Reason)
	m.mu.Unlock()
	switch {
	case alive: // again
		return nil
	case !back:
		return m.hasStopped()
	}
	return m.start(ctx, op)
}

// runBegan says since when the guest has been running.
func (m *Machine) runBegan() (time.Time, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seen.Started, m.alive()
}

// endRun pulls the reset line of the guest's run that began then, if it is not over.
func (m *Machine) endRun(then time.Time) error {
	err := m.insist(m.g.ctx, hostcall.Call{Method: hostcall.GuestReset, ID: m.uid}, func() bool {
		began, alive := m.runBegan()
		return alive && began.Equal(then)
	})
	var he *hostcall.Error
	if errors.As(err, &he) && he.Code == hostcall.FailedPrecondition {
		err = nil // it has ended by itself meanwhile; look
	}
	if err == nil {
		err = m.sync()
	}
	return refuse.Core(err, m.Name(), nil)
}
