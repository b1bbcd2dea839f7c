package machine

import (
	"errors"
	"fmt"

	"github.com/ashlar-hv/ashlar/vmm/arch"
	"github.com/ashlar-hv/ashlar/vmm/kvm"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// errDeaf says that an NMI would reach nobody.
var errDeaf = errors.New("no processor of the guest takes NMIs: it has masked the LINT1 pins of all local APICs")

// NMI presses the guest's NMI button: every processor whose local APIC passes
// LINT1 on as an NMI gets one. KVM_NMI goes past the in-kernel local APIC, so that is
// looked up first, on the vCPU's own thread, as KVM's api.rst asks for. The error
// wraps ErrState where the guest does not run.
func (m *Machine) NMI() error {
	m.lifeMu.Lock()
	defer m.lifeMu.Unlock()
	if s := m.Status().State; s != protocol.Running {
		return stateError("send an NMI to", s)
	}
	type answer struct {
		took bool
		err  error
	}
	answers := make(chan answer, len(m.runners))
	asked := m.askAll(func(r *runner) {
		took, err := r.nmi()
		answers <- answer{took, err}
	})
	taken, errs := 0, []error(nil)
	for range asked {
		select {
		case a := <-answers:
			errs = append(errs, a.err)
			if a.took {
				taken++
			}
		case <-m.done:
			return stateError("send an NMI to", protocol.Stopped)
		}
	}
	switch err := errors.Join(errs...); {
	case err != nil:
		return fmt.Errorf("send NMI: %w", err)
	case asked < len(m.runners):
		return stateError("send an NMI to", protocol.Stopped)
	case taken == 0:
		return errDeaf
	}
	return nil
}

// askAll makes every vCPU call f on its thread, between two runs, and returns how
// many will: fewer than there are when the machine has ended meanwhile.
func (m *Machine) askAll(f func(*runner)) int {
	for i, r := range m.runners {
		select {
		case r.asks <- func() { f(r) }:
		case <-m.done:
			return i
		}
		r.kick()
	}
	return len(m.runners)
}

// nmi sends the vCPU an NMI if it takes one. It is called on its thread. One that
// waits to be started by another takes none: KVM would keep waking it.
func (r *runner) nmi() (took bool, err error) {
	s, err := r.cpu.MPState()
	if err != nil || s == kvm.Uninitialized || s == kvm.InitReceived {
		return false, err
	}
	l, err := r.cpu.LAPIC()
	if err != nil || !arch.TakesNMI(&l) {
		return false, err
	}
	return true, r.cpu.NMI()
}
