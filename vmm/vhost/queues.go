package vhost

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/ashlar-hv/ashlar/vmm/memory"
	"github.com/ashlar-hv/ashlar/vmm/virtio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/eventfd"
)

// errMalformed says that the kernel found something wrong with a queue.
var errMalformed = errors.New("vhost found a queue malformed")

// A Serve starts or stops what the driver does with the queues of these indexes, which
// are set up. When a stop has returned, nothing of them is under way.
type Serve func(on bool, queues []uint32) error

// Queues are those of a virtio device that a Device serves, from its start to its end.
// Start and Stop are called by one goroutine at a time.
type Queues struct {
	v     *Device
	serve Serve
	kicks []*os.File
	errs  *os.File // signalled by vhost, or by Stop

	// While active:
	mem      *memory.Memory
	live     []*virtio.Queue // nil where the driver enabled none
	stopping atomic.Bool
	watching chan struct{} // closed at the end of watch
}

// NewQueues makes n queues, which own v, also after an error.
func NewQueues(v *Device, n int, serve Serve) (*Queues, error) {
	q := &Queues{v: v, serve: serve, kicks: make([]*os.File, n), live: make([]*virtio.Queue, n)}
	var err error
	if q.errs, err = eventfd.New("vhost-error", false); err != nil {
		return nil, errors.Join(err, q.Close())
	}
	for i := range q.kicks {
		if q.kicks[i], err = eventfd.New("vhost-kick", true); err != nil {
			return nil, errors.Join(err, q.Close())
		}
	}
	return q, nil
}

// Specs describe them, with up to size entries each.
func (q *Queues) Specs(size uint16) []virtio.QueueSpec {
	var specs []virtio.QueueSpec
	for _, k := range q.kicks {
		specs = append(specs, virtio.QueueSpec{MaxSize: size, Kick: k})
	}
	return specs
}

// Start lets the kernel serve a.Queues, of which there are as many.
func (q *Queues) Start(a virtio.Activation) error {
	q.mem = a.Memory
	q.stopping.Store(false)
	q.watching = make(chan struct{})
	go q.watch(q.watching, a.Broken)
	if err := q.begin(a); err != nil {
		return errors.Join(err, q.Stop())
	}
	return nil
}

func (q *Queues) begin(a virtio.Activation) error {
	if err := q.v.SetFeatures(uint64(a.Features) & q.v.Features()); err != nil {
		return err
	}
	if err := q.v.SetMemory(a.Memory); err != nil {
		return err
	}
	for i, one := range a.Queues {
		if one == nil {
			continue
		}
		index := uint32(i)
		if err := q.v.SetQueue(index, a.Memory, one.Config, q.kicks[i], q.errs); err != nil {
			return err
		}
		one.OnCall(func(f *os.File) {
			if err := q.v.SetCall(index, f); err != nil {
				a.Broken(err)
			}
		})
		q.live[i] = one
	}
	if err := q.serve(true, q.indexes()); err != nil {
		return err
	}
	for _, i := range q.indexes() {
		// What was made available before has kicked already, or never will.
		if err := eventfd.Signal(q.kicks[i]); err != nil {
			return err
		}
	}
	return nil
}

// indexes are those of the queues that are live.
func (q *Queues) indexes() []uint32 {
	var out []uint32
	for i, one := range q.live {
		if one != nil {
			out = append(out, uint32(i))
		}
	}
	return out
}

// watch waits for vhost to complain.
func (q *Queues) watch(done chan struct{}, broken func(error)) {
	defer close(done)
	for {
		if err := eventfd.Wait(q.errs); err != nil {
			broken(err)
			return
		}
		if q.stopping.Load() {
			return
		}
		broken(errMalformed)
	}
}

// Stop ends it, and notes how far the queues came. Nothing touches guest memory any
// more, whatever the error.
func (q *Queues) Stop() error {
	err := q.serve(false, q.indexes())
	for _, i := range q.indexes() {
		if err == nil {
			err = q.note(i, q.live[i])
		}
		q.live[i] = nil
	}
	q.stopping.Store(true)
	if serr := eventfd.Signal(q.errs); serr != nil {
		return errors.Join(err, serr)
	}
	<-q.watching
	q.mem = nil
	return err
}

// note takes the interrupt from a queue that is not served any more, and notes how far
// it came.
func (q *Queues) note(i uint32, one *virtio.Queue) error {
	err := q.v.SetCall(i, nil)
	avail, err1 := q.v.Base(i)
	used, err2 := q.mem.Load16(one.Config.Device + 2)
	if err := errors.Join(err, err1, err2); err != nil {
		return fmt.Errorf("stop queue %d: %w", i, err)
	}
	one.Config.Start.Avail, one.Config.Start.Used = avail, used
	return nil
}

// Close closes the Device, and what kicks it.
func (q *Queues) Close() error {
	errs := []error{q.v.Close()}
	for _, f := range append(q.kicks, q.errs) {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
