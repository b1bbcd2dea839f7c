// Package process starts programs and reaps them, as PID 1 has to: one loop
// waits for every child of init, its own as well as the orphans that the kernel
// hands to it (wait(2), credentials of PID 1 in pid_namespaces(7)).
//
// Nobody else in the process may wait for children: no os/exec.
package process

import (
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Reaper collects the children of this process.
type Reaper struct {
	mu       sync.Mutex // held while a child is started, so that it cannot end unregistered
	children map[int]*Process
	signals  chan os.Signal
}

// A Process is a child that was started with Reaper.Start.
type Process struct {
	// PID is its number.
	PID    int
	reaper *Reaper
	done   chan struct{}
	status syscall.WaitStatus // valid once done is closed
}

// NewReaper starts the loop that waits.
func NewReaper() *Reaper {
	r := &Reaper{children: make(map[int]*Process), signals: make(chan os.Signal, 1)}
	signal.Notify(r.signals, unix.SIGCHLD)
	go r.loop()
	return r
}

func (r *Reaper) loop() {
	for range r.signals {
		for r.reap() {
		}
	}
}

// reap collects one child; it reports whether there may be more.
func (r *Reaper) reap() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	var status syscall.WaitStatus
	pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
	if err == syscall.EINTR {
		return true
	}
	if err != nil || pid <= 0 {
		return false
	}
	if p := r.children[pid]; p != nil && (status.Exited() || status.Signaled()) {
		delete(r.children, pid)
		p.status = status
		close(p.done)
	}
	return true
}

// Start runs the program at path. attr is as for syscall.ForkExec.
func (r *Reaper) Start(path string, argv []string, attr *syscall.ProcAttr) (*Process, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := syscall.ForkExec(path, argv, attr)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	p := &Process{PID: pid, reaper: r, done: make(chan struct{})}
	r.children[pid] = p
	return p, nil
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends s to the process alone; to one that has ended it does nothing.
func (p *Process) Signal(s syscall.Signal) error {
	p.reaper.mu.Lock()
	defer p.reaper.mu.Unlock()
	select {
	case <-p.done:
		return nil
	default: // not reaped yet, so the number is still its own
		return syscall.Kill(p.PID, s)
	}
}

// End says in words how the process ended; it waits for that.
func (p *Process) End() string {
	<-p.done
	if p.status.Signaled() {
		return "killed by signal " + unix.SignalName(p.status.Signal())
	}
	return fmt.Sprintf("exit status %d", p.status.ExitStatus())
}
