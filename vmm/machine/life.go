package machine

import (
	"errors"
	"fmt"
	"os"

	"github.com/ashlar-hv/ashlar/vmm/kvm"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// ErrState says that a machine is not in the state that a call is for.
var ErrState = errors.New("not in this state")

func stateError(verb string, s protocol.State) error {
	return fmt.Errorf("cannot %s a guest that is %s: %w", verb, s, ErrState)
}

// Start runs the guest.
func (m *Machine) Start() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state != protocol.Waiting {
		return stateError("start", m.state)
	}
	m.state = protocol.Running
	for _, r := range m.runners {
		if r.present {
			r.launch()
		}
	}
	go func() {
		m.running.Wait()
		close(m.done)
		m.look.Close()
	}()
	m.watcher.Go(m.watchHalt)
	return nil
}

// Done is closed when the guest has ended and none of its vCPUs runs.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Result is why the guest ended; it is good after Done.
func (m *Machine) Result() protocol.Result {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.result
}

// Status is where the guest is in its life.
func (m *Machine) Status() protocol.Status {
	vcpus := m.vcpus() // before mu, which is below it
	m.mu.Lock()
	defer m.mu.Unlock()
	s := protocol.Status{
		State: m.state, PID: os.Getpid(), Reason: m.result.Reason, Message: m.result.Message,
		Panicked: m.notes.panicked, VCPUs: vcpus, DeviceEvents: m.events.list,
		DisksFull: m.notes.full, DisksFailed: m.notes.failed,
	}
	if m.state != protocol.Stopped {
		s.Devices = m.pluggedDevices()
	}
	return s
}

// end ends the guest; the first reason counts. It may be called from anywhere.
func (m *Machine) end(reason protocol.Reason, message string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state == protocol.Stopped {
		return
	}
	m.state = protocol.Stopped
	m.result = protocol.Result{Reason: reason, Message: message}
	m.changed.Broadcast()
	m.kickAll()
}

// fail ends the guest because the machine cannot go on.
func (m *Machine) fail(err error) { m.end(protocol.Failed, err.Error()) }

// kickAll kicks the vCPUs that have a thread; m.mu is held.
func (m *Machine) kickAll() {
	for _, r := range m.runners {
		if r.live {
			r.kick()
		}
	}
}

// between is what a vCPU's thread does after it was kicked: what is asked, and
// nothing while the machine is paused. It is false when the machine has ended, or
// the guest has given the vCPU up.
func (m *Machine) between(r *runner, asks <-chan func()) bool {
	select {
	case f := <-asks:
		f()
	default:
	}
	goesOn, err := m.stay(r)
	if err != nil {
		m.fail(err)
	}
	return goesOn && err == nil
}

// stay waits for the end of a pause, and says whether the vCPU goes on.
func (m *Machine) stay(r *runner) (goesOn bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	waited := false
	for m.paused && m.state != protocol.Stopped && r.present {
		if !waited {
			waited = true
			m.parked++
			m.changed.Broadcast()
		}
		m.changed.Wait()
	}
	if waited {
		m.parked--
		m.changed.Broadcast()
	}
	if m.state == protocol.Stopped {
		return false, nil
	}
	if r.ejected {
		// Whatever it was doing, it does nothing until it is started anew.
		r.ejected = false
		err = r.cpu.SetMPState(kvm.Uninitialized)
	}
	if !r.present {
		r.leave()
		return false, err
	}
	if waited {
		if err := r.cpu.Paused(); err != nil {
			// The guest's watchdogs may complain, no more.
			fmt.Fprintln(os.Stderr, err)
		}
	}
	return true, err
}

// PowerButton presses the ACPI power button.
func (m *Machine) PowerButton() error {
	if s := m.Status().State; s != protocol.Running {
		return stateError("press the power button of", s)
	}
	m.pm1.PressButton()
	return nil
}

// Stop ends the guest at once. Done follows.
func (m *Machine) Stop() { m.end(protocol.Killed, "") }

// Reset ends the guest at once as its reset line does, also where it is paused.
// Done follows, and the Result's reason is protocol.Reset. A guest that does not run
// has no reset line: ErrState.
func (m *Machine) Reset() error {
	if s := m.Status().State; s != protocol.Running && s != protocol.Paused {
		return stateError("reset", s)
	}
	m.end(protocol.Reset, "from outside")
	return nil
}

// A pauser is a device that stops and goes on with the guest.
type pauser interface {
	Pause()
	Resume()
}

// Pause stops all vCPUs and then all devices. When it returns nothing but the
// caller changes the guest's memory.
func (m *Machine) Pause() error {
	m.lifeMu.Lock()
	defer m.lifeMu.Unlock()
	if err := m.park(); err != nil {
		return err
	}
	for _, d := range m.devices {
		if p, ok := d.fn.(pauser); ok {
			p.Pause()
		}
	}
	return nil
}

// park stops all vCPUs.
func (m *Machine) park() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state != protocol.Running {
		return stateError("pause", m.state)
	}
	m.paused = true
	m.state = protocol.Paused
	m.kickAll()
	for m.parked < m.live && m.state == protocol.Paused {
		m.changed.Wait()
	}
	if m.state != protocol.Paused {
		return stateError("pause", m.state)
	}
	return nil
}

// Resume lets devices and vCPUs go on.
func (m *Machine) Resume() error {
	m.lifeMu.Lock()
	defer m.lifeMu.Unlock()
	if s := m.Status().State; s != protocol.Paused {
		return stateError("resume", s)
	}
	for _, d := range m.devices {
		if p, ok := d.fn.(pauser); ok {
			p.Resume()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state != protocol.Paused {
		return stateError("resume", m.state)
	}
	m.paused = false
	m.state = protocol.Running
	m.changed.Broadcast()
	for m.parked > 0 && m.state == protocol.Running {
		m.changed.Wait()
	}
	return nil
}
