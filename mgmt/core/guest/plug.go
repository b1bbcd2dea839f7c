package guest

import (
	"context"
	"fmt"
	"time"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/seqpacket"
)

// rmapShare is the part of all memory that a guest may ever have which KVM may need for
// each page of its slot, whether there is memory or not: 8 of 4096 bytes.
const rmapShare = 512

// settleTimeout is how long a VMM is waited for that somebody else's memory depends on.
const settleTimeout = time.Second

// checkPluggable validates the memory that a guest is to get while it runs.
func checkPluggable(g *hostcall.Guest) error {
	if field, wrong := g.Pluggable.Check(g.MemoryBytes, g.Backing); wrong != "" {
		return &hostcall.Error{Code: hostcall.InvalidArgument, Field: "guest.pluggable." + field,
			Message: fmt.Sprintf("%s of memory that can be plugged in %s.", field, wrong)}
	}
	return nil
}

// plug notes in r what g may get while it runs, and is to have at first.
func (r *record) plug(g *hostcall.Guest) {
	if p := g.Pluggable; p != nil {
		r.MaxPlugged, r.Requested, r.Plugged = p.MaxBytes, p.Bytes, p.Bytes
	}
}

// settled is what of its memory the guest may keep that has so much of it plugged in, as
// its VMM says: no more than until now, and what it was asked to have.
func (r *record) settled(plugged uint64) uint64 {
	return min(r.Plugged, max(r.Requested, plugged))
}

// SetMemory asks a guest to have so many bytes plugged in (hostcall.GuestSetMemory). It
// may have more from now on; what it is to give back it may keep until it has.
func (m *Manager) SetMemory(ctx context.Context, id string, bytes int64) error {
	defer m.turns.take(id)()
	r, err := m.find(id)
	if err != nil {
		return err
	}
	m.settleAll(ctx)
	m.plugging.Lock()
	defer m.plugging.Unlock()
	rec := m.recordOf(r)
	if rec.MaxPlugged == 0 {
		return &hostcall.Error{Code: hostcall.FailedPrecondition, Message: "The guest's memory is fixed: it was made without a maximum."}
	}
	asked := uint64(bytes) // one below 0 is far too much
	if wrong := (&protocol.Pluggable{MaxBytes: rec.MaxPlugged}).Wrong(asked); wrong != "" {
		return &hostcall.Error{Code: hostcall.InvalidArgument, Field: "size", Message: fmt.Sprintf("Memory that is plugged in %s.", wrong)}
	}
	if err := m.promise(r, asked, max(rec.Plugged, asked)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, _, err := r.client.do(ctx, protocol.Request{Method: protocol.SetMemory, PluggedBytes: asked}, nil); err != nil {
		return refusal(err)
	}
	return nil
}

// recordOf is the record of r.
func (m *Manager) recordOf(r *run) record {
	m.mu.Lock()
	defer m.mu.Unlock()
	return r.rec
}

// promise notes what the guest of r is asked to have plugged in and what it may have, and
// lets its VMM use that, if there is room for it. The caller holds m.plugging.
func (m *Manager) promise(r *run, requested, plugged uint64) error {
	disks, err := m.c.Folders.AllDisks(r.rec.ID)
	defer seqpacket.CloseAll(disks)
	if err != nil {
		return err
	}
	use, err := useOf(disks)
	if err != nil {
		return err
	}
	rec, err := m.notePromise(r, requested, plugged)
	if err != nil {
		return err
	}
	if err := r.group.SetMemoryMax(vmmMemory(&rec, use)); err != nil {
		return fmt.Errorf("set memory of VMM: %w", err)
	}
	return nil
}

// notePromise is the part of promise that others must not come between.
func (m *Manager) notePromise(r *run, requested, plugged uint64) (record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	rec := r.rec
	if m.running[rec.ID] != r {
		return record{}, &hostcall.Error{Code: hostcall.FailedPrecondition, Message: "The guest has ended."}
	}
	before := rec.promised()
	rec.Requested, rec.Plugged = requested, plugged
	if more := rec.promised() - before; more > 0 {
		left, err := m.left()
		if err != nil {
			return record{}, err
		}
		if more > left {
			return record{}, &hostcall.Error{Code: hostcall.ResourceExhausted, Field: "size",
				Message: fmt.Sprintf("The host has %d MiB free for guests, %d MiB are asked for: stop another guest, or ask for less.", max(left, 0)>>20, more>>20)}
		}
		if err := m.admitMore(&rec, int64(rec.Plugged)-int64(r.rec.Plugged)); err != nil {
			return record{}, err
		}
	}
	if err := m.writeRecord(rec); err != nil {
		return record{}, err
	}
	r.rec = rec
	return rec, nil
}

// Memory is how the memory of a guest is that comes and goes (hostcall.GuestMemory).
func (m *Manager) Memory(ctx context.Context, id string) (protocol.Memory, error) {
	r, err := m.find(id)
	if err != nil {
		return protocol.Memory{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	m.plugging.Lock()
	defer m.plugging.Unlock()
	return m.settle(ctx, r)
}

// settle asks the VMM of r what is plugged in, and promises the guest no more than that
// and what it was asked to have. A VMM that says too little harms its own guest. The
// caller holds m.plugging.
func (m *Manager) settle(ctx context.Context, r *run) (protocol.Memory, error) {
	rec := m.recordOf(r)
	if rec.MaxPlugged == 0 {
		return protocol.Memory{}, nil
	}
	response, _, err := r.client.call(ctx, protocol.MemoryMethod, nil, nil)
	if err != nil {
		return protocol.Memory{}, refusal(err)
	}
	got := response.Memory
	if got == nil || got.PluggedBytes > rec.Plugged {
		return protocol.Memory{}, &hostcall.Error{Code: hostcall.Internal, Message: "The guest's VMM tells of memory that makes no sense."}
	}
	got.RequestedBytes = rec.Requested
	if n := rec.settled(got.PluggedBytes); n < rec.Plugged {
		if err := m.promise(r, rec.Requested, n); err != nil {
			return protocol.Memory{}, err
		}
	}
	return *got, nil
}

// settleAll settles the guests that may have more memory than they were asked to have,
// so that what they have given back can be had by others.
func (m *Manager) settleAll(ctx context.Context) {
	m.plugging.Lock()
	defer m.plugging.Unlock()
	var owing []*run
	m.mu.Lock()
	for _, r := range m.running {
		if r.rec.Plugged > r.rec.Requested && r.ran {
			owing = append(owing, r)
		}
	}
	m.mu.Unlock()
	for _, r := range owing {
		asked, cancel := context.WithTimeout(ctx, settleTimeout)
		_, err := m.settle(asked, r)
		cancel()
		if err != nil {
			m.c.Log.Warn("a guest's memory stays promised to it", "guest", r.rec.Name, "error", err)
		}
	}
}
