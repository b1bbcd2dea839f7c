package machine

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/operation"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

var capital = regexp.MustCompile(`[A-Z]`)

// parseLimits returns limits, or what is wrong with which field of them.
func parseLimits(l *ashlarv1.DiskLimits) (limits *protocol.DiskLimits, field, wrong string) {
	limits = &protocol.DiskLimits{}
	if field, wrong = takeCounts([]count{
		{"bytes_per_second", l.GetBytesPerSecond(), &limits.BytesPerSecond},
		{"burst_bytes", l.GetBurstBytes(), &limits.BurstBytes},
		{"operations_per_second", l.GetOperationsPerSecond(), &limits.OperationsPerSecond},
		{"burst_operations", l.GetBurstOperations(), &limits.BurstOperations},
	}); wrong != "" {
		return nil, field, wrong
	}
	if field, wrong = limits.Check(); wrong != "" {
		return nil, snake(field), wrong
	}
	if *limits == (protocol.DiskLimits{}) {
		return nil, "", ""
	}
	return limits, "", ""
}

// A count is a field of the API that must not be below 0, and where it goes.
type count struct {
	name string
	from int64
	to   *uint64
}

// takeCounts takes counts over, or says what is wrong with which of them.
func takeCounts(counts []count) (field, wrong string) {
	for _, c := range counts {
		if c.from < 0 {
			return c.name, fmt.Sprintf("is %d: write a number from 0 on", c.from)
		}
		*c.to = uint64(c.from)
	}
	return "", ""
}

// snake is a field of core's as the API spells it.
func snake(field string) string {
	return capital.ReplaceAllStringFunc(field, func(c string) string { return "_" + strings.ToLower(c) })
}

// limitsProto is nil where there are no limits.
func limitsProto(l *protocol.DiskLimits) *ashlarv1.DiskLimits {
	if l == nil {
		return nil
	}
	return &ashlarv1.DiskLimits{
		BytesPerSecond: signed(l.BytesPerSecond), BurstBytes: signed(l.BurstBytes),
		OperationsPerSecond: signed(l.OperationsPerSecond), BurstOperations: signed(l.BurstOperations),
	}
}

// SetDiskLimits orders other limits for disk o.Disk.
func (g *Manager) SetDiskLimits(o Order, limits *ashlarv1.DiskLimits) (*operation.Op, error) {
	l, field, wrong := parseLimits(limits)
	if wrong != "" {
		return nil, refuse.Field("limits."+field, "%s", wrong)
	}
	o.Limits = l
	return g.submit(kindSetDiskLimits, o)
}

// hasDisk refuses an order for a disk that there is not. mu is held.
func (m *Machine) hasDisk(disk int) error {
	if place(m.rec.Disks, disk) < 0 {
		return m.noDisk(disk)
	}
	return nil
}

// stillHas is hasDisk when the order's turn has come.
func (m *Machine) stillHas(disk int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.hasDisk(disk)
}

func (m *Machine) noDisk(number int) error {
	return refuse.Field("disk", "is %d: %s", number, m.has(hostcall.DiskKind))
}

// ResizeDisk orders o.Size bytes for disk o.Disk.
func (g *Manager) ResizeDisk(o Order) (*operation.Op, error) { return g.submit(kindResizeDisk, o) }

// canGrow refuses a size that disk cannot grow to. mu is held.
func (m *Machine) canGrow(disk int, size int64) error {
	if err := m.hasDisk(disk); err != nil {
		return err
	}
	switch has := m.rec.Disks[place(m.rec.Disks, disk)].Size; {
	case size < has:
		return refuse.Field("size_bytes", "is %d: the disk has %d, and disks do not get smaller", size, has)
	case size > maxDisk:
		return refuse.Field("size_bytes", "is %d: up to %d (16 TiB)", size, int64(maxDisk))
	case size != has && size%growUnit != 0:
		return refuse.Field("size_bytes", "is %d: a multiple of %d", size, growUnit)
	}
	return nil
}

// resizeField turns a field of GuestResizeDisk into one of ResizeVirtualMachineDiskRequest.
func resizeField(field string) string {
	if field == "size" {
		return "size_bytes"
	}
	return field
}

// resizeDisk does a resize-disk operation: the file, the guest where it runs, then the
// record. A file that is larger than its record is fine, the other way round the
// machine would not start.
func (m *Machine) resizeDisk(ctx context.Context, op *operation.Op) error {
	rec := op.Record()
	op.Progress(10, "growing the disk")
	if err := m.stillHas(rec.Disk); err != nil {
		return err
	}
	if err := m.known(ctx); err != nil {
		return err
	}
	if err := m.toBoth(hostcall.Call{Method: hostcall.GuestResizeDisk, ID: m.uid, Disk: rec.Disk, Size: rec.Size}); err != nil {
		return refuse.Core(err, m.Name(), resizeField)
	}
	return m.saveDisk(rec.Disk, func(d *store.Disk) { d.Size = max(d.Size, rec.Size) })
}

// setDiskLimits does a set-disk-limits operation: in the guest, where it runs, then in
// the record. Cut off in between it is done again from the beginning.
func (m *Machine) setDiskLimits(ctx context.Context, op *operation.Op) error {
	rec := op.Record()
	op.Progress(10, "setting limits")
	if err := m.stillHas(rec.Disk); err != nil {
		return err
	}
	if err := m.toDevice(ctx, hostcall.Call{Method: hostcall.GuestSetDiskLimits, ID: m.uid, Disk: rec.Disk, Limits: rec.Limits}); err != nil {
		return err
	}
	return m.saveDisk(rec.Disk, func(d *store.Disk) { d.Limits = rec.Limits })
}

// toDevice makes a call about a device of a guest that runs; one that does not, or does not
// any more, needs none. All of that is between two starts.
func (m *Machine) toDevice(ctx context.Context, c hostcall.Call) error {
	if err := m.known(ctx); err != nil {
		return err
	}
	err := m.insist(m.g.ctx, c, m.Alive)
	if err != nil && m.hasEnded() {
		return nil
	}
	return refuse.Core(err, m.Name(), nil)
}

// hasEnded says, after an error, whether it may be because the guest has ended by itself
// just then.
func (m *Machine) hasEnded() bool { return m.sync() == nil && !m.Alive() }

// saveDisk records a change of a disk.
func (m *Machine) saveDisk(number int, change func(*store.Disk)) error {
	err := m.save(func(rec *store.VM) {
		rec.Disks = slices.Clone(rec.Disks)
		if i := place(rec.Disks, number); i >= 0 {
			change(&rec.Disks[i])
		}
	})
	if err != nil {
		return refuse.Internal(err)
	}
	return nil
}
