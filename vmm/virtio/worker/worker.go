// Package worker runs the data path of a queue that a goroutine serves: sleep
// until a kick, work, sleep again.
package worker

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/ashlar-hv/ashlar/vmm/memory"
	"github.com/ashlar-hv/ashlar/vmm/virtio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/eventfd"
	"github.com/ashlar-hv/ashlar/vmm/virtio/queue"
)

// ErrStopped says that the worker is being stopped.
var ErrStopped = errors.New("worker stopped")

// A Worker is one queue's kick file and, while the device is active, its
// goroutine. Start, Stop and Close are called by one goroutine at a time.
type Worker struct {
	kick    *os.File
	stop    atomic.Bool
	kicks   atomic.Uint64
	running chan struct{} // closed at the goroutine's end; nil when there is none
	vq      *virtio.Queue
	q       *queue.Queue
}

// New makes a worker; name is for messages.
func New(name string) (*Worker, error) {
	kick, err := eventfd.New(name, false)
	if err != nil {
		return nil, err
	}
	return &Worker{kick: kick}, nil
}

// Kick is the file for virtio.QueueSpec.
func (w *Worker) Kick() *os.File { return w.kick }

// Kicks is how often a kick has woken the worker; kicks that come together count
// once. It may be called at any time.
func (w *Worker) Kicks() uint64 { return w.kicks.Load() }

// Close closes the kick file. The worker is stopped.
func (w *Worker) Close() error { return w.kick.Close() }

// A Session is what a goroutine works with from Start to Stop.
type Session struct {
	Queue    *queue.Queue
	Memory   *memory.Memory
	Features virtio.Features
	// Idle is called each time before the worker sleeps, if it is set.
	Idle func()
	w    *Worker
	vq   *virtio.Queue
}

// Start runs serve in a goroutine on queue vq. When serve returns an error other
// than ErrStopped the device is broken.
func (w *Worker) Start(a virtio.Activation, vq *virtio.Queue, serve func(*Session) error) error {
	q, err := queue.New(a.Memory, vq.Config)
	if err != nil {
		return err
	}
	w.vq, w.q = vq, q
	w.stop.Store(false)
	w.running = make(chan struct{})
	s := &Session{Queue: q, Memory: a.Memory, Features: a.Features, w: w, vq: vq}
	go func(done chan struct{}) {
		defer close(done)
		if err := serve(s); err != nil && !errors.Is(err, ErrStopped) {
			a.Broken(err)
		}
	}(w.running)
	return nil
}

// Stop ends the goroutine and waits for it.
func (w *Worker) Stop() {
	if w.running == nil {
		return
	}
	w.stop.Store(true)
	if err := eventfd.Signal(w.kick); err != nil {
		return // only a closed file: then nothing runs
	}
	<-w.running
	w.running = nil
	w.vq.Config.Start = w.q.Indexes()
	w.vq, w.q = nil, nil
}

// Stopped tells whether the goroutine is to end.
func (s *Session) Stopped() bool { return s.w.stop.Load() }

// Interrupt signals the driver, if it wants to know of what was pushed.
func (s *Session) Interrupt() error {
	want, err := s.Queue.Interrupt()
	if err == nil && want {
		s.vq.Interrupt()
	}
	return err
}

// Next takes the next chain into c, and sleeps until there is one. It returns
// ErrStopped when the worker is to end. Before it sleeps or ends it interrupts
// the driver for what was pushed.
func (s *Session) Next(c *queue.Chain) error {
	for {
		if s.Stopped() {
			// What is signalled after a pause counts only what is pushed then.
			if err := s.Interrupt(); err != nil {
				return err
			}
			return ErrStopped
		}
		ok, err := s.Queue.Pop(c)
		if err != nil || ok {
			return err
		}
		if err := s.Interrupt(); err != nil {
			return err
		}
		if s.Idle != nil {
			s.Idle()
		}
		if err := s.sleep(); err != nil {
			return err
		}
	}
}

// sleep waits for a kick, unless there is a chain already.
func (s *Session) sleep() error {
	more, err := s.Queue.Arm()
	if err != nil || more {
		return err
	}
	if err := eventfd.Wait(s.w.kick); err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	s.w.kicks.Add(1)
	return s.Queue.Disarm()
}

// Each calls handle for each chain until the worker is stopped or handle fails.
// handle returns how many bytes it wrote to the chain, which is then pushed.
func (s *Session) Each(handle func(*queue.Chain) (uint32, error)) error {
	var c queue.Chain
	for {
		if err := s.Next(&c); err != nil {
			return err
		}
		n, err := handle(&c)
		if err != nil {
			return err
		}
		if err := s.Queue.Push(c.Head, n); err != nil {
			return err
		}
	}
}
