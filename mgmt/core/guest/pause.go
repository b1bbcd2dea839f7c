package guest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// states are what core believes of a VMM whose guest has come to run.
var states = map[protocol.State]hostcall.GuestState{
	protocol.Running: hostcall.Running,
	protocol.Paused:  hostcall.Paused,
}

// Pause pauses a guest (hostcall.GuestPause).
func (m *Manager) Pause(ctx context.Context, id string) error {
	return m.turn(ctx, id, protocol.Pause, protocol.Paused)
}

// Resume lets a paused guest go on (hostcall.GuestResume).
func (m *Manager) Resume(ctx context.Context, id string) error {
	return m.turn(ctx, id, protocol.Resume, protocol.Running)
}

// turn brings a guest into a state, once it has been started.
func (m *Manager) turn(ctx context.Context, id string, method protocol.Method, want protocol.State) error {
	defer m.turns.take(id)()
	r, err := m.find(id)
	if err != nil {
		return err
	}
	return m.into(ctx, r, method, want)
}

// into makes the VMM of r carry out method unless its guest is in state want
// already. The VMM is asked first: what core knows may be older than an answer that
// came too late.
func (m *Manager) into(ctx context.Context, r *run, method protocol.Method, want protocol.State) error {
	ctx, cancel := context.WithTimeout(ctx, pauseTimeout)
	defer cancel()
	for _, step := range []protocol.Method{protocol.Query, method} {
		response, _, err := r.client.call(ctx, step, nil, nil)
		if err != nil {
			return refusal(err)
		}
		if m.learn(r, response.Status) == want {
			return nil
		}
	}
	return &hostcall.Error{Code: hostcall.Internal,
		Message: fmt.Sprintf("The guest's VMM does not say that the guest is %s now: reset the guest.", want)}
}

// learn takes over what a VMM says of the state of its guest, and tells it where it
// is new.
func (m *Manager) learn(r *run, s *protocol.Status) protocol.State {
	if s == nil {
		return ""
	}
	state, known := states[s.State]
	if !known {
		return s.State // its end is told by the end of the process
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running[r.rec.ID] != r || !r.ran {
		return s.State
	}
	news := r.notePanic(s, time.Now())
	if r.noteDisks(s) || news || r.state != state {
		r.state = state
		m.c.Notify(m.statusOf(r))
	}
	return s.State
}

// notPaused refuses what a paused guest cannot do.
func (m *Manager) notPaused(r *run) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.state == hostcall.Paused {
		return &hostcall.Error{Code: hostcall.FailedPrecondition, Message: "The guest is paused: resume it first."}
	}
	return nil
}

// Reset ends a guest as by its reset line (hostcall.GuestReset).
func (m *Manager) Reset(ctx context.Context, id string) error {
	defer m.turns.take(id)()
	r, err := m.find(id)
	if err != nil {
		return err
	}
	r.reset.Store(true)
	return m.finishBy(ctx, r, protocol.ResetMethod)
}

// NMI sends a guest an NMI (hostcall.GuestNMI).
func (m *Manager) NMI(ctx context.Context, id string) error {
	r, err := m.find(id)
	if err != nil {
		return err
	}
	if err := m.notPaused(r); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, _, err := r.client.call(ctx, protocol.NMI, nil, nil); err != nil {
		return refusal(err)
	}
	return nil
}

// wakeAndPress presses the power button of a guest that may be paused, which it is
// the VMM's to know.
func (m *Manager) wakeAndPress(ctx context.Context, r *run) error {
	err := r.powerButton(ctx)
	var e *hostcall.Error
	if !errors.As(err, &e) || e.Code != hostcall.FailedPrecondition {
		return err
	}
	if err := m.into(ctx, r, protocol.Resume, protocol.Running); err != nil {
		return err
	}
	return r.powerButton(ctx)
}
