package blk

import (
	"errors"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/ashlar-hv/ashlar/vmm/iouring"
	"github.com/ashlar-hv/ashlar/vmm/memory"
	"github.com/ashlar-hv/ashlar/vmm/virtio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/eventfd"
	"github.com/ashlar-hv/ashlar/vmm/virtio/queue"
)

// Files of a ring, and the user data of the read that waits for kicks; the
// user data of a request is its place in worker.reqs.
const (
	diskFile  = 0
	kickFile  = 1
	ringFiles = 2
	kickData  = 1 << 32
)

// A worker serves one queue. Its fields but stop belong to its goroutine while
// that runs.
type worker struct {
	d     *Device
	kick  *os.File
	ring  *iouring.Ring
	spare bool // ring was made before, and outlives the worker

	stop    atomic.Bool
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

	waiting bool   // a read of the kick file is under way
	counter []byte // where it goes
}

// ringOps is what a disk's ring may do.
var ringOps = []iouring.Op{iouring.OpRead, iouring.OpReadv, iouring.OpWritev, iouring.OpFsync, iouring.OpFallocate}

// newWorker makes a worker with the ring spare, or, where that is nil, one of its own.
func newWorker(d *Device, spare *iouring.Ring, buffers *iouring.Buffers) (*worker, error) {
	kick, err := eventfd.New("disk-kick", true)
	if err != nil {
		return nil, err
	}
	files := []*os.File{d.file, kick}
	ring := spare
	if spare != nil {
		err = spare.SetFiles(files)
	} else {
		ring, err = iouring.New(2*queueSize, files, ringOps, buffers)
	}
	if err != nil {
		return nil, errors.Join(err, kick.Close())
	}
	w := &worker{d: d, kick: kick, ring: ring, spare: spare != nil, counter: make([]byte, 8)}
	for i := range uint16(queueSize) {
		w.free = append(w.free, queueSize-1-i)
	}
	return w, nil
}

// close closes the ring, or, where that was spare, makes it let go of the files: a worker
// that could not wait for its requests has spoilt it.
func (w *worker) close() error {
	var err error
	if w.spare && w.inFlight == 0 && !w.waiting {
		err = w.ring.SetFiles(make([]*os.File, ringFiles))
	} else {
		err = w.ring.Close()
	}
	return errors.Join(err, w.kick.Close())
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
	if err := eventfd.Signal(w.kick); err != nil {
		w.d.broken(err) // cannot be: the file is open
	}
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

// run is the goroutine. It keeps its thread, since a thread's end would cancel
// its requests. There is one wait for kicks and completions alike: a read of the
// kick file is a request too. It ends when told to, with nothing under way.
func (w *worker) run(done chan struct{}) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(done)
	for {
		stop := w.stop.Load()
		if !stop && !w.broken {
			w.fail(w.take())
		}
		if stop || w.broken {
			w.putBack()
		}
		w.interrupt()
		if !stop && !w.waiting {
			w.waiting = w.ring.Read(kickFile, w.counter, kickData)
		}
		if stop && !w.waiting && w.inFlight == 0 {
			return
		}
		if err := w.ring.Enter(1, w.patience()); err != nil {
			w.fail(err)
			return
		}
		w.reap()
	}
}

// patience is how long to wait for kicks and completions: 0 is for ever.
func (w *worker) patience() time.Duration {
	if w.held == nil {
		return 0
	}
	return max(time.Duration(w.held.due-w.d.clock()), 1)
}

// take starts every request that is available and that the limits let go.
func (w *worker) take() error {
	if w.held != nil {
		if err := w.letGo(); err != nil {
			return err
		}
	}
	for w.held == nil {
		if err := w.q.Disarm(); err != nil {
			return err
		}
		for len(w.free) > 0 && w.held == nil {
			ok, err := w.takeOne()
			if err != nil {
				return err
			}
			if !ok {
				break
			}
		}
		if len(w.free) == 0 || w.held != nil {
			return nil // completions, or the clock, bring us back
		}
		if more, err := w.q.Arm(); err != nil || !more {
			return err
		}
	}
	return nil
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

// reap goes on with every request that has a completion.
func (w *worker) reap() {
	for {
		c, ok := w.ring.Next()
		switch {
		case !ok:
			return
		case c.Data == kickData:
			w.waiting = false
			w.d.metrics.kicks.Add(1)
		case c.Data < queueSize && w.reqs[c.Data] != nil:
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
