package machine

import (
	"sync/atomic"

	"github.com/ashlar-hv/ashlar/vmm/kvm"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// The local APICs are in the kernel, so a vCPU that halts does not exit: KVM
// waits for the interrupt that wakes it. One that halted with interrupts off
// waits for ever. To find a guest all of whose vCPUs do, without waking one
// that is merely idle, KVM's counters are looked at from outside: only when
// every vCPU has been waiting since the last look, and none has run since
// it was asked last, are the vCPUs asked for their interrupt flags.

// Counters of a vCPU.
const (
	counterBlocking = "blocking"
	counterExits    = "exits"
)

// watchHalt ends the machine when the guest has halted for good.
func (m *Machine) watchHalt() {
	var last, asked uint64     // exits of all vCPUs
	for m.look.Wait() == nil { // until it is closed
		exits, blocked := m.exits()
		idle := blocked && exits == last && exits != asked
		last = exits
		if !idle || m.Status().State != protocol.Running {
			continue
		}
		asked = exits
		if m.haltedForGood() {
			m.end(protocol.Halted, "all vCPUs halted with interrupts off")
			return
		}
	}
}

// exits sums the exits of all vCPUs that are there, and says whether all of them are
// waiting. Counters that cannot be read say that they are not.
func (m *Machine) exits() (sum uint64, blocked bool) {
	blocked = true
	for r := range m.lives() {
		b, err1 := r.stats.Counter(counterBlocking)
		n, err2 := r.stats.Counter(counterExits)
		if err1 != nil || err2 != nil || b == 0 {
			blocked = false
		}
		sum += n
	}
	return sum, blocked
}

// haltedForGood asks every vCPU, on its thread.
func (m *Machine) haltedForGood() bool {
	var dead atomic.Int32
	asked, ok := m.askAll(func(r *runner) {
		if r.halted() {
			dead.Add(1)
		}
	})
	return ok && int(dead.Load()) == asked
}

// halted says whether the vCPU waits for what cannot come: an interrupt while
// they are off, or to be started by another. It is called on its thread.
func (r *runner) halted() bool {
	const interruptFlag = 1 << 9
	s, err := r.cpu.MPState()
	if err != nil {
		return false
	}
	if s == kvm.Uninitialized {
		return true
	}
	regs, err := r.cpu.Regs()
	return err == nil && s == kvm.HaltedState && regs.RFLAGS&interruptFlag == 0
}
