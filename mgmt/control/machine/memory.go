package machine

import (
	"context"
	"errors"
	"fmt"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// pluggable checks the memory that is to come and go, where the other memory is right.
func (c *checker) pluggable(vm *ashlarv1.VirtualMachine, rec *store.VM) {
	n, most := vm.HotplugMemoryBytes, vm.MaxMemoryBytes
	switch {
	case vm.MemoryBytes < minMemory || vm.MemoryBytes%pageSize != 0:
		return
	case most == 0 && n != 0:
		c.bad(".hotplug_memory_bytes", "is %d without max_memory_bytes: say that, too", n)
		return
	case most == 0:
		return
	case most <= vm.MemoryBytes:
		c.bad(".max_memory_bytes", "is %d: more than memory_bytes (%d), or 0", most, vm.MemoryBytes)
		return
	}
	// What is below 0 is far too much.
	p := &protocol.Pluggable{MaxBytes: uint64(most - vm.MemoryBytes), Bytes: uint64(n)}
	switch field, wrong := p.Check(uint64(vm.MemoryBytes), rec.Backing); {
	case wrong == "":
		rec.Pluggable = p
	case field == "maxBytes" && rec.Backing.Kind().PoolSize() > 0:
		c.bad(".max_memory_bytes", "is %d with pages of a pool, which are set aside for good: choose other pages, or 0", most)
	case field == "maxBytes":
		c.bad(".max_memory_bytes", "is %d: memory_bytes and a multiple of %d (128 MiB), at most %d (1 TiB)", most, protocol.PluggableUnit, protocol.MaxPluggable)
	default:
		c.bad(".hotplug_memory_bytes", "%s", pluggedWrong(p, n))
	}
}

// pluggedWrong says why n bytes cannot be asked for besides the memory that is always
// there; "" where they can.
func pluggedWrong(p *protocol.Pluggable, n int64) string {
	if n >= 0 && p.Wrong(uint64(n)) == "" {
		return ""
	}
	return fmt.Sprintf("is %d: 0 to %d, a multiple of %d MiB", n, p.MaxBytes, p.Block()>>20)
}

// SetMemory notes how much memory a machine is to have in all, for this run and those to
// come, and asks a guest that runs. Where core cannot be reached the same request again
// makes up for it; where core refuses, it is as it was.
func (g *Manager) SetMemory(ctx context.Context, o Order, total int64) (*ashlarv1.VirtualMachine, error) {
	m, err := g.Find(o.Name)
	if err != nil {
		return nil, err
	}
	m.ballooning.Lock()
	defer m.ballooning.Unlock()
	var before, now *protocol.Pluggable
	err = m.note(o.Etag, func(rec *store.VM) (_ bool, err error) {
		before = rec.Pluggable
		now, err = resized(m.Name(), rec, total)
		rec.Pluggable = now
		return err == nil && *now != *before, err
	})
	if err != nil {
		return nil, err
	}
	if err := m.tellMemory(ctx, now); err != nil {
		var refused *hostcall.Error
		if errors.As(err, &refused) {
			err = errors.Join(err, m.note("", func(rec *store.VM) (bool, error) {
				rec.Pluggable = before
				return true, nil
			}))
		}
		return nil, refuse.Core(err, m.Name(), func(string) string { return "memory_bytes" })
	}
	return m.Proto(), nil
}

// resized is what comes and goes of the memory of rec where it is to have total bytes.
func resized(name string, rec *store.VM, total int64) (*protocol.Pluggable, error) {
	p := rec.Pluggable
	if p == nil {
		return nil, refuse.Precondition(refuse.WrongState, name, "its memory is fixed: it was created without max_memory_bytes")
	}
	if pluggedWrong(p, total-rec.MemoryBytes) != "" {
		return nil, refuse.Field("memory_bytes", "is %d: %d to %d, by steps of %d MiB",
			total, rec.MemoryBytes, rec.MemoryBytes+signed(p.MaxBytes), p.Block()>>20)
	}
	return &protocol.Pluggable{MaxBytes: p.MaxBytes, Bytes: uint64(total - rec.MemoryBytes)}, nil
}

// tellMemory asks the guest, if it runs, to have that plugged in.
func (m *Machine) tellMemory(ctx context.Context, p *protocol.Pluggable) error {
	return m.tellGuest(ctx, hostcall.Call{Method: hostcall.GuestSetMemory, ID: m.uid, Size: signed(p.Bytes)})
}

// memoryAnew asks a guest that has come to run for what was set while it was being
// started with told.
func (m *Machine) memoryAnew(told *protocol.Pluggable) {
	m.ballooning.Lock()
	defer m.ballooning.Unlock()
	m.mu.Lock()
	p := m.rec.Pluggable
	m.mu.Unlock()
	if p == nil || *p == *told {
		return
	}
	if err := m.tellMemory(m.g.ctx, p); err != nil {
		m.g.log.Warn("a guest was not told how much memory it is to have: set it again", "vm", m.id, "error", err)
	}
}

// Memory returns how much memory a guest has.
func (g *Manager) Memory(ctx context.Context, name string) (*ashlarv1.VirtualMachineMemory, error) {
	m, err := g.Find(name)
	if err != nil {
		return nil, err
	}
	msg, err := m.askFor(ctx, hostcall.GuestMemory, func(msg hostcall.Message) bool { return msg.Memory != nil })
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	base, most := m.rec.MemoryBytes, m.rec.Pluggable.Max()
	m.mu.Unlock()
	return &ashlarv1.VirtualMachineMemory{
		Name: m.Name(), TargetBytes: base + signed(msg.Memory.RequestedBytes), ActualBytes: base + signed(msg.Memory.PluggedBytes),
		MaxBytes: base + signed(most),
	}, nil
}

// note stores what change has made of a machine's record, if it says that it has; not
// of a machine that is gone, or is another than etag says.
func (m *Machine) note(etag string, change func(*store.VM) (bool, error)) error {
	m.deciding.Lock()
	defer m.deciding.Unlock()
	m.mu.Lock()
	gone, now, rec := m.gone, m.proto().Etag, m.rec
	m.mu.Unlock()
	switch {
	case gone:
		return refuse.NotFound(Kind, m.Name())
	case etag != "" && etag != now:
		return refuse.Etag(Kind, m.Name())
	}
	if changed, err := change(&rec); err != nil || !changed {
		return err
	}
	if err := m.put(func(old *store.VM) { *old = rec }); err != nil {
		return refuse.Internal(err)
	}
	return nil
}

// tellGuest makes a call about a guest, if it runs. One that is being started is told when it
// does.
func (m *Machine) tellGuest(ctx context.Context, call hostcall.Call) error {
	m.mu.Lock()
	known, ask := m.seen.State != "", m.alive() && m.seen.State != hostcall.Starting
	m.mu.Unlock()
	if !known {
		return refuse.Down()
	}
	if !ask {
		return nil
	}
	if _, err := m.g.ask(ctx, call); err != nil && m.Alive() {
		return err
	}
	return nil
}
