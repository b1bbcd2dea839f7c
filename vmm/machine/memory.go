package machine

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/memory"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/virtio/mem"
)

// openMemory maps the memory file.
func (m *Machine) openMemory() (*memory.Memory, error) {
	p := m.c.Pluggable
	if p == nil {
		return memory.Map(m.c.Memory, m.c.MemoryBytes)
	}
	return memory.MapPluggable(m.c.Memory, m.c.MemoryBytes, memory.PluggableConfig{
		Size: p.MaxBytes, Block: p.Block(), Populate: m.c.Backing.Populated(),
	})
}

// addMemory plugs in the device by which memory comes and goes, where it does. It is of the
// last node: nodes have their memory by ascending addresses, and its are the highest.
func (g *Guest) addMemory(s *protocol.Spec) *protocol.Error {
	if s.Pluggable == nil {
		return nil
	}
	dev, err := mem.New(g.mem, s.Pluggable.Bytes, len(s.NUMA)-1)
	if errors.Is(err, mem.ErrRequested) {
		return invalid("pluggable.bytes", "%v", err)
	}
	if err != nil {
		return &protocol.Error{Code: protocol.Unavailable, Message: err.Error()}
	}
	g.pluggable = dev
	return g.plugFixed("memory", dev)
}

// SetMemory asks the guest to have so many bytes plugged in (protocol.SetMemory).
func (g *Guest) SetMemory(bytes uint64) *protocol.Error {
	if g.pluggable == nil {
		return &protocol.Error{Code: protocol.FailedPrecondition, Message: "the memory of this guest is fixed"}
	}
	if err := g.pluggable.SetRequested(bytes); err != nil {
		return invalid("pluggedBytes", "%v", err)
	}
	return nil
}

// MemoryState is how the memory is that comes and goes.
func (g *Guest) MemoryState() protocol.Memory {
	if g.pluggable == nil {
		return protocol.Memory{}
	}
	return protocol.Memory{RequestedBytes: g.pluggable.Requested(), PluggedBytes: g.mem.Pluggable().Plugged}
}

// touched adds to the error of KVM_RUN what it says of a guest that touches memory which
// is not plugged in, and not to be had. An access that KVM emulates does not come here:
// it is one where nothing answers.
func (m *Machine) touched(err error) error {
	if m.c.Pluggable == nil || !errors.Is(err, unix.EFAULT) {
		return err
	}
	return fmt.Errorf("%w: the guest touched memory that is not plugged in", err)
}
