package guest

import (
	"context"
	"fmt"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
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
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, _, err := r.client.do(ctx, protocol.Request{Method: protocol.SetDiskLimits, Disk: disk, Limits: l}, nil); err != nil {
		return refusal(err)
	}
	return nil
}
