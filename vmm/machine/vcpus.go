package machine

import (
	"fmt"
	"iter"
	"runtime"

	"github.com/ashlar-hv/ashlar/vmm/acpi"
	"github.com/ashlar-hv/ashlar/vmm/arch"
	"github.com/ashlar-hv/ashlar/vmm/device/cpus"
	"github.com/ashlar-hv/ashlar/vmm/device/ged"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// All vCPUs that there may come to be are made with the machine, before the process is
// confined: so a process that a guest has taken over can make none, the descriptors are
// there, and KVM starts their time stamp counters together. One that is not there costs
// its structures in the kernel, but no thread, and next to nothing of this process's
// memory; KVM has it wait to be started, as it would after INIT.

// most is how many vCPUs there may come to be.
func (c Config) most() int { return max(c.VCPUs, c.MostVCPUs) }

// addEvents makes the devices by which a guest learns what comes and goes.
func (m *Machine) addEvents() error {
	if m.c.MostVCPUs == 0 {
		return nil
	}
	events := ged.New(m.setEvents)
	m.cpus = cpus.New(cpus.Config{
		Count: m.c.most(), Present: m.c.VCPUs, Start: m.startVCPU, Stop: m.stopVCPU,
		Raise: func() { events.Raise(acpi.CPUEvent) },
	})
	if err := m.ports.Add(arch.PortEvents, acpi.EventsSize, events); err != nil {
		return err
	}
	return m.ports.Add(arch.PortCPUs, acpi.CPUsSize, m.cpus)
}

// setEvents sets the level of the generic event device's interrupt.
func (m *Machine) setEvents(high bool) {
	if err := m.vm.IRQLine(arch.IRQEvents, high); err != nil {
		m.fail(err)
	}
}

// startVCPU lets a vCPU run; it waits for the guest to start it.
func (m *Machine) startVCPU(i int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state == protocol.Stopped {
		return
	}
	r := m.runners[i]
	r.present = true
	if !r.live && m.state != protocol.Waiting {
		r.cpu.Interrupt() // it looks first whether the machine is paused
		r.launch()
	}
}

// stopVCPU ends a vCPU's thread, a moment later.
func (m *Machine) stopVCPU(i int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.runners[i]
	r.present, r.ejected = false, true
	m.changed.Broadcast()
	r.kick()
}

// lives are the vCPUs that have a thread, as it is now.
func (m *Machine) lives() iter.Seq2[*runner, life] {
	m.mu.Lock()
	defer m.mu.Unlock()
	type alive struct {
		*runner
		life
	}
	var all []alive
	for _, r := range m.runners {
		if r.live {
			all = append(all, alive{r, r.life})
		}
	}
	return func(yield func(*runner, life) bool) {
		for _, a := range all {
			if !yield(a.runner, a.life) {
				return
			}
		}
	}
}

// vcpus says how many vCPUs there are.
func (m *Machine) vcpus() *protocol.VCPUs {
	if m.cpus == nil {
		return &protocol.VCPUs{Present: m.c.VCPUs, Target: m.c.VCPUs}
	}
	s := m.cpus.State()
	return &protocol.VCPUs{Present: s.Present, Target: s.Target, Refused: s.Refused}
}

// highest is the number of the highest vCPU that is there, counted from 1.
func (m *Machine) highest() int {
	if m.cpus == nil {
		return m.c.VCPUs
	}
	return m.cpus.State().Highest
}

// SetVCPUs asks for n vCPUs (protocol.SetVCPUs), whether the guest runs or is paused.
func (m *Machine) SetVCPUs(n int) *protocol.Error {
	m.lifeMu.Lock()
	defer m.lifeMu.Unlock()
	switch s := m.Status().State; {
	case s != protocol.Running && s != protocol.Paused:
		return &protocol.Error{Code: protocol.FailedPrecondition, Message: stateError("change the vCPUs of", s).Error()}
	case m.cpus == nil:
		return &protocol.Error{Code: protocol.FailedPrecondition, Field: "vcpus", Message: fmt.Sprintf("the guest has been started with %d vCPUs for good", m.c.VCPUs)}
	case n < 1 || n > m.c.most():
		return invalid("vcpus", "%d vCPUs of a guest that has 1 to %d", n, m.c.most())
	}
	// As at the start: a vCPU in the guest keeps its place in the scheduler for a moment.
	if want := n + 2; want > runtime.GOMAXPROCS(0) {
		runtime.GOMAXPROCS(want)
	}
	m.cpus.SetTarget(n)
	return nil
}
