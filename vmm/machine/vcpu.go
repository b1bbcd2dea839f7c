package machine

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/arch"
	"github.com/ashlar-hv/ashlar/vmm/bios"
	"github.com/ashlar-hv/ashlar/vmm/kvm"
	"github.com/ashlar-hv/ashlar/vmm/pci"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// A runner runs one vCPU on a thread of its own.
type runner struct {
	m     *Machine
	cpu   *kvm.VCPU
	stats *kvm.Stats
	tid   atomic.Int32 // of the thread, 0 where it has none
	exits userExits
	// home has a thread that is there already run a life; nil where each has its own.
	home chan (<-chan func())

	// What follows is guarded by m.mu.
	life
	present bool // it is to have a thread
	live    bool // it has one
	ejected bool // the guest has given it up, perhaps to get it again
}

// A life is from the start of a vCPU's thread to its end.
type life struct {
	asks chan func()   // to be called on the thread, between two runs
	left chan struct{} // closed when the thread has made its last run
}

// kick makes the vCPU leave the guest and look what is asked of it. The flag
// makes a run that is about to start return too, so no kick is lost. SIGURG
// is a signal that the Go runtime handles and takes no offence at.
func (r *runner) kick() {
	r.cpu.Interrupt()
	if tid := r.tid.Load(); tid != 0 {
		// It fails only when the thread has ended.
		_ = unix.Tgkill(os.Getpid(), int(tid), unix.SIGURG)
	}
}

// launch gives the vCPU a thread; m.mu is held.
func (r *runner) launch() {
	r.life = life{asks: make(chan func(), 1), left: make(chan struct{})}
	r.live = true
	r.m.live++
	r.m.running.Add(1)
	if r.home != nil {
		r.home <- r.asks // it has room: the thread waits, or is about to
		return
	}
	go r.run(r.asks)
}

// leave is the end of the vCPU's thread, which does not run it any more; m.mu is held.
func (r *runner) leave() {
	r.live = false
	r.tid.Store(0)
	r.m.live--
	r.m.changed.Broadcast()
	close(r.left)
}

// run is the life of the vCPU.
func (r *runner) run(asks <-chan func()) {
	// The thread is never given back: it ends with the goroutine, which may run another life.
	runtime.LockOSThread()
	defer r.m.running.Done()
	tid := int32(unix.Gettid())
	defer r.tid.CompareAndSwap(tid, 0) // it may have another by then
	defer func() {
		if p := recover(); p != nil {
			fmt.Fprintf(os.Stderr, "vCPU %d: panic: %v\n%s", r.cpu.ID(), p, debug.Stack())
			r.m.fail(fmt.Errorf("vCPU %d: internal error: %v", r.cpu.ID(), p))
		}
	}()
	r.tid.Store(tid)
	for {
		reason, err := r.cpu.Run()
		r.exits.count(reason)
		if err == nil {
			err = r.handle(reason)
		}
		switch {
		case err == nil:
		case errors.Is(err, kvm.ErrInterrupted):
			r.cpu.ClearInterrupt()
			if !r.m.between(r, asks) {
				return
			}
		case r.m.faulted(err):
		default:
			r.m.fail(r.m.touched(err))
			return
		}
	}
}

// handle does what the guest needs. An error ends the machine.
func (r *runner) handle(reason kvm.ExitReason) error {
	switch reason {
	case kvm.ExitIO:
		return r.portIO()
	case kvm.ExitMMIO:
		return r.mmio()
	case kvm.ExitIntr, kvm.ExitIRQWindow:
		return nil
	case kvm.ExitHyperV:
		if r.cpu.HyperVExit() == kvm.HyperVSynIC {
			return nil // KVM has done what the guest asked for
		}
	case kvm.ExitShutdown:
		r.m.end(protocol.TripleFault, fmt.Sprintf("vCPU %d met a triple fault", r.cpu.ID()))
		return nil
	}
	return r.cpu.Failure(reason)
}

func (r *runner) portIO() error {
	io, err := r.cpu.IO()
	if err != nil {
		return err
	}
	if r.m.bios != nil && io.Out && io.Port == bios.Port {
		return r.callBIOS()
	}
	for b := io.Data; len(b) >= io.Size; b = b[io.Size:] {
		if io.Out {
			r.m.ports.Out(io.Port, b[:io.Size])
		} else {
			r.m.ports.In(io.Port, b[:io.Size])
		}
	}
	return nil
}

func (r *runner) mmio() error {
	a, err := r.cpu.MMIO()
	if err != nil {
		return err
	}
	r.m.access(a)
	return nil
}

// access makes an access to ECAM or a BAR.
func (m *Machine) access(a kvm.MMIO) {
	switch off, size := a.GPA-arch.ECAMBase, m.bus.ECAMSize(); {
	case off < size && a.Write:
		m.bus.Write(off, a.Data)
	case off < size:
		m.bus.Read(off, a.Data)
	case a.Write:
		m.bus.MMIOWrite(a.GPA, a.Data) // where nothing answers it is lost
	case !m.bus.MMIORead(a.GPA, a.Data):
		pci.Ones(a.Data)
	}
}
