package kvm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A VCPU is one processor of a VM. All its methods but Interrupt belong to
// the thread that runs it.
type VCPU struct {
	id  int
	f   *os.File
	run *runMapping

	exits int // since a Run was interrupted, up to burst
}

// ID is the number that CreateVCPU took.
func (c *VCPU) ID() int { return c.id }

// Close closes the vCPU. No Run may be under way, and Interrupt is not to be
// called again.
func (c *VCPU) Close() error { return errors.Join(c.run.unmap(), c.f.Close()) }

// An ExitReason says why the guest stopped running (KVM_EXIT_*).
type ExitReason uint32

// Exit reasons.
const (
	ExitUnknown       ExitReason = 0
	ExitException     ExitReason = 1
	ExitIO            ExitReason = 2
	ExitDebug         ExitReason = 4
	ExitHLT           ExitReason = 5 // only without an in-kernel local APIC
	ExitMMIO          ExitReason = 6
	ExitIRQWindow     ExitReason = 7
	ExitShutdown      ExitReason = 8
	ExitFailEntry     ExitReason = 9
	ExitIntr          ExitReason = 10
	ExitInternalError ExitReason = 17
	ExitSystemEvent   ExitReason = 24
	ExitIOAPICEOI     ExitReason = 26
)

// ErrInterrupted says that Run ended by Interrupt, or by a signal. An I/O
// that was under way has been completed.
var ErrInterrupted = errors.New("vCPU interrupted")

// burst is after how many exits without an interruption Go's scheduler is told of Runs no more.
const burst = 8

// Run runs the guest until it needs something (KVM_RUN).
//
// A thread that makes a system call of which the scheduler is told soon loses its right to run Go code (its P), and
// wakes the thread that takes such rights away when it is back. A guest that needs something again and again, as while it
// starts, would do so each time: of its Runs the scheduler is not told. The thread keeps its right in the guest until somebody
// wants it back, as from any goroutine: by a signal, at once where the world is to stop, and after 10 ms in any case.
// So a program needs a P (GOMAXPROCS) for each vCPU, and others for what else it does.
func (c *VCPU) Run() (ExitReason, error) {
	call := ioctl
	if c.exits++; c.exits > burst {
		c.exits, call = burst, ioctlUntold
	}
	_, err := call(c.f, kvmRun, 0)
	if err != nil {
		c.exits = 0
	}
	switch {
	case err == nil:
		return ExitReason(c.run.exitReason()), nil
	case errors.Is(err, unix.EINTR):
		return ExitIntr, ErrInterrupted
	case errors.Is(err, unix.EAGAIN):
		// The vCPU had been waiting for INIT and got it.
		return ExitIntr, ErrInterrupted
	}
	return ExitUnknown, fmt.Errorf("KVM_RUN of vCPU %d: %w", c.id, err)
}

// Interrupt makes the Run under way, or else the next one, return
// ErrInterrupted, and so every one after it until ClearInterrupt. A Run under
// way needs a signal to its thread besides. It may be called from any thread.
func (c *VCPU) Interrupt() { c.run.setImmediateExit(1) }

// ClearInterrupt lets Run run again.
func (c *VCPU) ClearInterrupt() { c.run.setImmediateExit(0) }

// An IO is a port access: Count accesses of Size bytes each, all to or from
// Port. Data is Count*Size bytes: what the guest wrote, or where to put what it
// reads. It is good until the next Run.
type IO struct {
	Out   bool
	Port  uint16
	Size  int
	Count int
	Data  []byte
}

// IO is what ExitIO tells.
func (c *VCPU) IO() (IO, error) {
	e := c.run.io()
	n := uint64(e.size) * uint64(e.count)
	data, ok := c.run.bytes(e.dataOffset, n)
	if !ok || (e.size != 1 && e.size != 2 && e.size != 4) {
		return IO{}, fmt.Errorf("vCPU %d: port exit of %d*%d bytes at offset %#x of its run page", c.id, e.count, e.size, e.dataOffset)
	}
	return IO{Out: e.direction == 1, Port: e.port, Size: int(e.size), Count: int(e.count), Data: data}, nil
}

// An MMIO is a memory access where the guest has no memory. Data is what it
// wrote, or where to put what it reads. It is good until the next Run.
type MMIO struct {
	Write bool
	GPA   uint64
	Data  []byte // 1 to 8 bytes
}

// MMIO is what ExitMMIO tells.
func (c *VCPU) MMIO() (MMIO, error) {
	e := c.run.mmio()
	if e.len == 0 || e.len > uint32(len(e.data)) {
		return MMIO{}, fmt.Errorf("vCPU %d: memory exit of %d bytes", c.id, e.len)
	}
	return MMIO{Write: e.isWrite != 0, GPA: e.physAddr, Data: e.data[:e.len]}, nil
}

// Names of KVM_INTERNAL_ERROR_*.
var suberrors = [...]string{
	1: "it could not emulate an instruction",
	2: "exceptions met that cannot",
	3: "an exit came while an event was delivered",
	4: "the processor exited for an unknown reason",
}

// Failure describes ExitFailEntry, ExitInternalError and every other exit
// that a machine cannot go on from.
func (c *VCPU) Failure(r ExitReason) error {
	switch r {
	case ExitFailEntry:
		e := c.run.failEntry()
		return fmt.Errorf("vCPU %d: the processor refused to enter the guest, reason %#x, on CPU %d", c.id, e.reason, e.cpu)
	case ExitInternalError:
		return fmt.Errorf("vCPU %d: KVM gave up: %s", c.id, internalError(c.run.internal()))
	}
	return fmt.Errorf("vCPU %d: unexpected exit from KVM, reason %d", c.id, r)
}

func internalError(e *exitInternal) string {
	if e.suberror == 1 && e.ndata >= 3 && e.data[0]&1 != 0 {
		var b [16]byte
		binary.LittleEndian.PutUint64(b[:], e.data[1])
		binary.LittleEndian.PutUint64(b[8:], e.data[2])
		return fmt.Sprintf("%s: % x", suberrors[1], b[1:1+min(int(b[0]), 15)])
	}
	if int(e.suberror) < len(suberrors) && suberrors[e.suberror] != "" {
		return suberrors[e.suberror]
	}
	return fmt.Sprintf("internal error %d", e.suberror)
}
