package machine

import (
	"errors"

	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/virtio/blk"
)

// diskTrouble returns what is told of errors of the file of a new disk with that number.
func (m *Machine) diskTrouble(number int) func(full bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.notes.full.Remove(number)
	m.notes.failed.Remove(number)
	return func(full bool) {
		m.mu.Lock()
		set, what := &m.notes.failed, "the host's disk fails"
		if full {
			set, what = &m.notes.full, "the host's disk is full"
		}
		set.Add(number)
		m.mu.Unlock()
		note(diskName(number) + " gets errors: " + what)
	}
}

// diskLimits checks limits that stand in the field.
func diskLimits(field string, l *protocol.DiskLimits) (blk.Limits, *protocol.Error) {
	if l == nil {
		return blk.Limits{}, nil
	}
	if f, wrong := l.Check(); wrong != "" {
		return blk.Limits{}, invalid(field+"."+f, "%s.%s %s", field, f, wrong)
	}
	return blk.Limits(*l), nil
}

// disk finds the disk with number i of a machine that has not ended. lifeMu is held.
func (m *Machine) disk(i int) (*blk.Device, *protocol.Error) {
	if s := m.Status().State; s == protocol.Stopped {
		return nil, &protocol.Error{Code: protocol.FailedPrecondition, Message: stateError("change a disk of", s).Error()}
	}
	d, ok := m.disks[i]
	if !ok {
		return nil, invalid("disk", "there is no disk%d", i)
	}
	return d, nil
}

// SetDiskLimits changes the limits of disk i, whether the guest runs or is paused.
func (m *Machine) SetDiskLimits(i int, l *protocol.DiskLimits) *protocol.Error {
	limits, perr := diskLimits("limits", l)
	if perr != nil {
		return perr
	}
	m.lifeMu.Lock()
	defer m.lifeMu.Unlock()
	d, perr := m.disk(i)
	if perr != nil {
		return perr
	}
	if err := d.SetLimits(limits); err != nil {
		return &protocol.Error{Code: protocol.Internal, Message: err.Error()}
	}
	return nil
}

// ResizeDisk makes disk i larger, whose file has size bytes already, whether the guest
// runs or is paused.
func (m *Machine) ResizeDisk(i int, size uint64) *protocol.Error {
	m.lifeMu.Lock()
	defer m.lifeMu.Unlock()
	d, perr := m.disk(i)
	if perr != nil {
		return perr
	}
	err := d.Resize(size)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, blk.ErrSize) || errors.Is(err, blk.ErrFile):
		return invalid("size", "%v", err)
	}
	return &protocol.Error{Code: protocol.Internal, Message: err.Error()}
}
