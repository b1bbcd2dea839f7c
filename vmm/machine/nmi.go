package machine

import (
	"errors"
	"fmt"
	"sync"

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
	var mu sync.Mutex
	taken, errs := 0, []error(nil) // guarded by mu
	_, ok := m.askAll(func(r *runner) {
		took, err := r.nmi()
		mu.Lock()
		defer mu.Unlock()
		errs = append(errs, err)
		if took {
			taken++
		}
	})
	mu.Lock()
	defer mu.Unlock()
	switch err := errors.Join(errs...); {
	case err != nil:
		return fmt.Errorf("send NMI: %w", err)
	case !ok:
		return stateError("send an NMI to", protocol.Stopped)
	case taken == 0:
		return errDeaf
	}
	return nil
}

// askAll makes every vCPU that is there call f on its thread, between two runs, and
// waits until all have; it returns how many, one that the guest gives up meanwhile
// counted too. ok is false when the machine has ended meanwhile.
func (m *Machine) askAll(f func(*runner)) (asked int, ok bool) {
	type question struct{ answered, left <-chan struct{} }
	var questions []question
	for r, l := range m.lives() {
		answered := make(chan struct{})
		select {
		case l.asks <- func() { f(r); close(answered) }:
			r.kick()
		case <-l.left:
		case <-m.done:
			return 0, false
		}
		questions = append(questions, question{answered, l.left})
	}
	for _, q := range questions {
		select {
		case <-q.answered:
		case <-q.left:
		case <-m.done:
			return 0, false
		}
	}
	return len(questions), true
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
