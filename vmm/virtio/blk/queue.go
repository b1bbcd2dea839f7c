package blk

import (
	"errors"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ashlar-hv/ashlar/vmm/iouring"
	"github.com/ashlar-hv/ashlar/vmm/memory"
	"github.com/ashlar-hv/ashlar/vmm/virtio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/eventfd"
	"github.com/ashlar-hv/ashlar/vmm/virtio/queue"
)

// diskFile is the file of a ring. The user data of a request is its place in worker.reqs.
const (
	diskFile  = 0
	ringFiles = 1
)

// A worker serves one queue. Its fields but stop and poked belong to its goroutine while
// that runs.
type worker struct {
	d     *Device
	ring  *iouring.Ring
	spare bool // ring was made before, and outlives the worker
	kick  *os.File
	raw   syscall.RawConn // kick's

	stop    atomic.Bool
	poked   atomic.Bool   // something besides the queue and the ring is to be looked at
	running chan struct{} // closed at the goroutine's end; nil when there is none

	mem      *memory.Memory
	features virtio.Features
	vq       *virtio.Queue
	q        *queue.Queue
	broken   bool // the queue is malformed: take nothing more from it

	reqs     [queueSize]*request // made when first needed
	free     []uint16            // places in reqs that are not under way
	inFlight int
	held     *request // popped last, waits for the limits; nil when none does

	asleep bool // by the next call of woken
	awake  func(uintptr) bool
	timed  bool // kick may have a deadline
}

// ringOps is what a disk's ring may do.
var ringOps = []iouring.Op{iouring.OpReadv, iouring.OpWritev, iouring.OpFsync, iouring.OpFallocate}

// newWorker makes a worker with the ring spare, or, where that is nil, one of its own.
func newWorker(d *Device, spare *iouring.Ring, buffers *iouring.Buffers) (*worker, error) {
	var err error
	files := []*os.File{d.file}
	ring := spare
	if spare != nil {
		err = spare.SetFiles(files)
	} else {
		ring, err = iouring.New(2*queueSize, files, ringOps, buffers)
	}
	if err != nil {
		return nil, err
	}
	w := &worker{d: d, ring: ring, spare: spare != nil, kick: ring.Event(), timed: spare != nil}
	w.awake = w.woken
	if w.raw, err = w.kick.SyscallConn(); err != nil {
		return nil, errors.Join(err, w.close())
	}
	for i := range uint16(queueSize) {
		w.free = append(w.free, queueSize-1-i)
	}
	return w, nil
}

// close closes the ring, or, where that was spare, makes it let go of the file: a worker
// that could not wait for its requests has spoilt it.
func (w *worker) close() error {
	if w.spare && w.inFlight == 0 {
		return w.ring.SetFiles(make([]*os.File, ringFiles))
	}
	return w.ring.Close()
}

func (w *worker) start(a virtio.Activation, vq *virtio.Queue) error {
	q, err := queue.New(a.Memory, vq.Config)
	if err != nil {
		return err
	}
	w.mem, w.features, w.vq, w.q, w.broken = a.Memory, a.Features, vq, q, false
	w.stop.Store(false)
	w.running = make(chan struct{})
	go w.run(w.running)
	return nil
}

// signalStop asks the goroutine to end; wait waits for that.
func (w *worker) signalStop() {
	if w.running == nil {
		return
	}
	w.stop.Store(true)
	if err := w.poke(); err != nil {
		w.d.broken(err) // cannot be: the file is open
	}
}

// poke has the goroutine look around.
func (w *worker) poke() error {
	w.poked.Store(true)
	return eventfd.Signal(w.kick)
}

func (w *worker) wait() {
	if w.running == nil {
		return
	}
	<-w.running
	w.running = nil
	w.vq.Config.Start = w.q.Indexes()
	w.q, w.vq, w.mem = nil, nil, nil
}

// fail marks the device broken; requests under way still end.
func (w *worker) fail(err error) {
	if err != nil && !w.broken {
		w.broken = true
		w.d.broken(err)
	}
}

// roundsMax is how often the goroutine works before it lets others run.
const roundsMax = 32

// run is the goroutine. There is one wait for kicks and completions alike: both signal
// the ring's event. It ends when told to, with nothing under way.
//
// It waits by the runtime's poller, and all its system calls are such that the scheduler
// is not told of: a thread that waits in a call of which it is told costs several
// switches between threads for each wait (docs/performance.md).
func (w *worker) run(done chan struct{}) {
	defer close(done)
	for round, slept := 1, true; ; round++ {
		stop := w.stop.Load()
		if !stop && !w.broken {
			took, err := w.take()
			if took && slept {
				w.d.metrics.kicks.Add(1)
			}
			w.fail(err)
		}
		if stop || w.broken {
			w.putBack()
		}
		w.interrupt()
		if stop && w.inFlight == 0 {
			return
		}
		if err := w.ring.Submit(); err != nil {
			w.fail(err)
			return
		}
		slept = false
		switch {
		case w.reap(): // what has ended at once
			if round%roundsMax == 0 {
				runtime.Gosched()
			}
		case w.ring.Behind():
			time.Sleep(busyDelay)
		default:
			if err := w.sleep(); err != nil {
				w.fail(err)
				return
			}
			round, slept = 0, true
			w.reap()
		}
		w.interrupt()
	}
}

// busyDelay is how long a kernel without memory for requests is left alone.
const busyDelay = time.Millisecond

// sleep waits for kicks, completions, pokes, and until a request that is held back may go.
func (w *worker) sleep() error {
	if err := w.setDeadline(); err != nil {
		return err
	}
	w.asleep = false
	err := w.raw.Read(w.awake)
	w.ring.Announce(false)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// setDeadline has a wait for the kick file end when the request that is held back may go.
func (w *worker) setDeadline() error {
	var at time.Time
	if w.held != nil {
		at = time.Now().Add(max(time.Duration(w.held.due-w.d.clock()), 1))
	} else if !w.timed {
		return nil
	}
	w.timed = w.held != nil
	return w.kick.SetReadDeadline(at)
}

// woken is called by the poller of the kick file before it sleeps, when a signal from
// then on ends the sleep, and after it. It tells whether there is something to do. The
// counter of the file is never read: the poller is told of each signal (EPOLLET).
func (w *worker) woken(uintptr) bool {
	if w.asleep {
		return true
	}
	w.asleep = true
	if w.poked.Swap(false) || w.ring.Announce(true) {
		return true
	}
	if w.stop.Load() || w.broken || w.held != nil || len(w.free) == 0 {
		return false
	}
	more, err := w.q.Arm()
	w.fail(err)
	return more || err != nil
}

// take starts every request that is available and that the limits let go, and tells
// whether there was one.
func (w *worker) take() (took bool, err error) {
	if w.held != nil {
		if err := w.letGo(); err != nil {
			return false, err
		}
	}
	if err := w.q.Disarm(); err != nil {
		return false, err
	}
	for len(w.free) > 0 && w.held == nil {
		ok, err := w.takeOne()
		if err != nil || !ok {
			return took, err
		}
		took = true
	}
	return took, nil // completions, or the clock, bring us back
}

// takeOne starts one request, if there is one.
func (w *worker) takeOne() (bool, error) {
	i := w.free[len(w.free)-1]
	if w.reqs[i] == nil {
		w.reqs[i] = &request{w: w, id: uint64(i)}
	}
	r := w.reqs[i]
	ok, err := w.q.Pop(&r.chain)
	if err != nil || !ok {
		return false, err
	}
	w.free = w.free[:len(w.free)-1]
	w.inFlight++
	r.open = true
	return true, w.settle(r, r.start())
}

// settle forgets a request that could not go on: the queue is malformed.
func (w *worker) settle(r *request, err error) error {
	if err != nil {
		w.release(r)
	}
	return err
}

// release makes r's place free. What an uncommonly long chain needed is not kept.
func (w *worker) release(r *request) {
	if r.open {
		r.open = false
		if cap(r.chain.Readable)+cap(r.chain.Writable) > 4*segMax {
			r.bufs, r.iov, r.chain.Readable, r.chain.Writable = nil, nil, nil, nil
		}
		w.inFlight--
		w.free = append(w.free, uint16(r.id))
	}
}

// reap goes on with every request that has a completion, and tells whether there was one.
func (w *worker) reap() (some bool) {
	for {
		c, ok := w.ring.Next()
		if !ok {
			return some
		}
		some = true
		if c.Data < queueSize && w.reqs[c.Data] != nil {
			r := w.reqs[c.Data]
			w.fail(w.settle(r, r.complete(c.Result)))
		}
	}
}

// done gives a request back to the driver.
func (w *worker) done(r *request, written uint32) error {
	head := r.chain.Head
	w.release(r)
	return w.q.Push(head, written)
}

// interrupt tells the driver about what was pushed, if it wants to know.
func (w *worker) interrupt() {
	want, err := w.q.Interrupt()
	if err != nil {
		w.fail(err)
		return
	}
	if want {
		w.vq.Interrupt()
	}
}
