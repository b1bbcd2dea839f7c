package machine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/operation"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

const (
	// cpuPoll is how often a guest is looked at that is to give processors up.
	cpuPoll = 250 * time.Millisecond
	// lookTimeout bounds a look at a guest that nobody insists on.
	lookTimeout = 2 * time.Second
)

// SetCPUs orders o.CPUs processors.
func (g *Manager) SetCPUs(o Order) (*operation.Op, error) { return g.submit(kindSetCPUs, o) }

// canHave refuses a number of processors. mu is held.
func (m *Machine) canHave(n int32) error {
	switch {
	case m.rec.MaxCPUs == 0:
		return refuse.Precondition(refuse.WrongState, m.Name(),
			fmt.Sprintf("%s has %d processors for good: only one that is created with max_cpus can have another number", m.Name(), m.rec.CPUs))
	case n < 1 || n > m.rec.MaxCPUs:
		return refuse.Field("cpus", "is %d: 1 to %d (max_cpus)", n, m.rec.MaxCPUs)
	}
	return nil
}

// setCPUs does a set-cpus operation: in the guest, where it runs, then in the record; and
// it waits for the guest to give up what is too many. Cut off it is done again from the
// beginning; one that is cancelled has asked all the same.
func (m *Machine) setCPUs(ctx context.Context, op *operation.Op) error {
	n := op.Record().CPUs
	op.Progress(10, "changing the number of processors")
	if err := m.known(ctx); err != nil {
		return err
	}
	if m.Paused() {
		return refuse.Precondition(refuse.WrongState, m.Name(), m.Name()+" is paused: resume it")
	}
	err := m.insist(m.g.ctx, hostcall.Call{Method: hostcall.GuestSetVCPUs, ID: m.uid, VCPUs: int(n)}, m.Alive)
	if err != nil && !m.hasEnded() {
		return refuse.Core(err, m.Name(), func(string) string { return "cpus" })
	}
	if err := m.save(func(rec *store.VM) { rec.CPUs = n }); err != nil {
		return refuse.Internal(err)
	}
	return m.awaitCPUs(ctx, op)
}

// awaitCPUs waits until the guest has no more processors than it is to have, has refused
// to give up what is too many, or has had its time; or somebody wants it ended.
func (m *Machine) awaitCPUs(ctx context.Context, op *operation.Op) error {
	op.Amend(func(rec *store.Operation) {
		if rec.Deadline.IsZero() {
			rec.Deadline = time.Now().Add(rec.Grace)
		}
	})
	rec := op.Record()
	op.Progress(50, "waiting for the guest to give processors up, until "+rec.Deadline.UTC().Format(time.TimeOnly)+" UTC")
	over := func() bool {
		return !m.alive() || slices.ContainsFunc(m.queue, func(op *operation.Op) bool { return op.Record().Force })
	}
	for {
		v, err := m.lookAtCPUs(ctx)
		if !m.Alive() || v != nil && v.Present <= int(rec.CPUs) {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		late := !time.Now().Before(rec.Deadline)
		switch {
		case v != nil && v.Present-v.Refused <= int(rec.CPUs):
			return m.keeps(v, rec.CPUs, "refuses to give up more")
		case v != nil && late:
			return m.keeps(v, rec.CPUs, fmt.Sprintf("has not given up more in %v", rec.Grace))
		case late:
			return refuse.Core(err, m.Name(), nil)
		}
		tick, cancel := context.WithTimeoutCause(ctx, cpuPoll, errTick)
		waited := m.await(tick, over)
		cancel()
		switch {
		case errors.Is(waited, errTick):
		case waited != nil:
			return waited
		case !m.Alive():
			return nil
		case v != nil:
			return m.keeps(v, rec.CPUs, "was not waited for, as it is to end")
		default:
			return refuse.Core(err, m.Name(), nil)
		}
	}
}

// keeps says what a guest has kept.
func (m *Machine) keeps(v *protocol.VCPUs, asked int32, why string) error {
	return refuse.Precondition(refuse.WrongState, m.Name(),
		fmt.Sprintf("%s has %d processors, not %d: its guest %s. It begins with %d when it is started next", m.Name(), v.Present, asked, why, asked))
}

// lookAtCPUs asks how many processors a guest has, and takes that over.
func (m *Machine) lookAtCPUs(ctx context.Context) (*protocol.VCPUs, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	began, _ := m.runBegan()
	msg, err := m.g.core.Do(ctx, hostcall.Call{Method: hostcall.GuestVCPUs, ID: m.uid})
	if err != nil || msg.VCPUs == nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.alive() && m.seen.Started.Equal(began) && m.seen.VCPUs != msg.VCPUs.Present {
		m.seen.VCPUs = msg.VCPUs.Present
		m.touch()
	}
	return msg.VCPUs, nil
}

// Fresh is Proto with the processors that the guest has just now, where that can change
// without anybody's asking and core can tell, and with where on the host it is.
func (m *Machine) Fresh(ctx context.Context) *ashlarv1.VirtualMachine {
	m.mu.Lock()
	look := m.rec.MaxCPUs > 0 && m.alive() && m.seen.State != hostcall.Starting
	m.mu.Unlock()
	if look {
		if _, err := m.lookAtCPUs(ctx); err != nil {
			m.g.log.Debug("processors of a guest not looked at", "vm", m.id, "error", err)
		}
	}
	where := m.whereItIs(ctx)
	vm := m.Proto()
	vm.ObservedPlacement = where // etag does not count it: only this call tells of it
	return vm
}
