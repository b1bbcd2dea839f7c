package guest

import (
	"context"
	"fmt"
	"os"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/seqpacket"
)

// checkLimits refuses limits that stand in the field.
func checkLimits(field string, l *protocol.DiskLimits) error {
	if f, wrong := l.Check(); wrong != "" {
		return &hostcall.Error{Code: hostcall.InvalidArgument, Field: field + "." + f, Message: fmt.Sprintf("%s of a disk %s.", f, wrong)}
	}
	return nil
}

// limitsOf is what disk i of g may do.
func limitsOf(g *hostcall.Guest, i int) *protocol.DiskLimits {
	if i >= len(g.DiskLimits) {
		return nil
	}
	return g.DiskLimits[i]
}

// checkDisks validates what is said of a guest's disks besides their sizes.
func checkDisks(g *hostcall.Guest) error {
	if err := checkNumbers(g); err != nil {
		return err
	}
	if n := len(g.DiskLimits); n != 0 && n != len(g.Disks) {
		return &hostcall.Error{Code: hostcall.InvalidArgument, Field: "guest.diskLimits",
			Message: fmt.Sprintf("There are limits for %d disks of %d.", n, len(g.Disks))}
	}
	for i, l := range g.DiskLimits {
		if err := checkLimits(fmt.Sprintf("guest.disks[%d].limits", i), l); err != nil {
			return err
		}
	}
	return nil
}

// SetDiskLimits changes the limits of a disk (hostcall.GuestSetDiskLimits).
func (m *Manager) SetDiskLimits(ctx context.Context, id string, disk int, l *protocol.DiskLimits) error {
	if err := checkLimits("limits", l); err != nil {
		return err
	}
	defer m.turns.take(id)()
	r, err := m.find(id)
	if err != nil {
		return err
	}
	tell := func() error {
		return r.tellDevice(ctx, protocol.Request{Method: protocol.SetDiskLimits, Disk: disk, Limits: l})
	}
	if !m.c.Folders.HasDisk(id, disk) {
		return tell() // and be refused
	}
	return m.withLimits(r, disk, l, tell)
}

// tellDevice makes a request about a device of the VMM of r, with files beside it.
func (r *run) tellDevice(ctx context.Context, request protocol.Request, files ...*os.File) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, _, err := r.client.do(ctx, request, files); err != nil {
		return refusal(err)
	}
	return nil
}

// ResizeDisk makes a disk larger (hostcall.GuestResizeDisk): first its file, then what
// the VMM may do, then what the guest knows. Cut off at any point it can be done again.
func (m *Manager) ResizeDisk(ctx context.Context, id string, disk int, size int64) error {
	defer m.turns.take(id)()
	if err := m.c.Folders.Grow(id, disk, size); err != nil {
		return err
	}
	r := m.lookup(id)
	if r == nil {
		return nil
	}
	if err := m.widen(r); err != nil {
		return err
	}
	return r.tellDevice(ctx, protocol.Request{Method: protocol.ResizeDisk, Disk: disk, Size: uint64(size)})
}

// widen lets the VMM of r have what the disks may come to now.
func (m *Manager) widen(r *run) error {
	disks, err := m.c.Folders.AllDisks(r.rec.ID)
	defer seqpacket.CloseAll(disks)
	if err != nil {
		return err
	}
	use, err := useOf(disks)
	if err != nil {
		return err
	}
	m.mu.Lock()
	rec := r.rec
	m.mu.Unlock()
	if use.memory > 0 {
		if err := r.group.SetMemoryMax(vmmMemory(&rec, use)); err != nil {
			return fmt.Errorf("raise memory of VMM: %w", err)
		}
	}
	began, err := startTime(rec.PID)
	if err != nil || began != rec.StartTime {
		return &hostcall.Error{Code: hostcall.FailedPrecondition, Message: "The guest has ended."}
	}
	return limitFiles(rec.PID, fileMax(use))
}
