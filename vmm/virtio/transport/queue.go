package transport

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/ashlar-hv/ashlar/vmm/virtio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/eventfd"
	"github.com/ashlar-hv/ashlar/vmm/virtio/queue"
)

// queueRegs is one queue as the transport knows it.
type queueRegs struct {
	t     *Transport
	index uint16
	spec  virtio.QueueSpec

	// Guarded by Transport.mu.
	config  queue.Config
	enabled bool
	live    *virtio.Queue // while the device is active

	// mu guards what follows: interrupts read it from the data path.
	mu     sync.Mutex
	vector uint16
	onCall func(*os.File)

	// placed is the address that the ioeventfd is at, 0 for none. Only
	// BARMapped touches it.
	placed uint64
}

func newQueueRegs(t *Transport, index uint16, s virtio.QueueSpec) (*queueRegs, error) {
	if n := s.MaxSize; n == 0 || n > queue.MaxSize || n&(n-1) != 0 {
		return nil, fmt.Errorf("queue %d of %d entries: %w", index, n, queue.ErrConfig)
	}
	return &queueRegs{t: t, index: index, spec: s}, nil
}

// reset puts the registers back to what a driver finds first. Transport.mu is
// held and the device not active.
func (q *queueRegs) reset() {
	q.config = queue.Config{Size: q.spec.MaxSize}
	q.enabled, q.live = false, nil
	q.setVector(virtio.NoVector)
}

// close takes the ioeventfd away.
func (q *queueRegs) close() {
	if q.placed != 0 {
		q.placeIOEventFD(q.placed, false)
	}
}

// setVector changes the queue's vector, also under a running device.
func (q *queueRegs) setVector(v uint16) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.vector = v
	if q.onCall != nil {
		q.onCall(q.t.callFile(v))
	}
}

// setOnCall makes f follow the queue's vector; nil ends that.
func (q *queueRegs) setOnCall(f func(*os.File)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.onCall = f
	if f != nil {
		f(q.t.callFile(q.vector))
	}
}

// interrupt tells the driver that buffers were used.
func (q *queueRegs) interrupt() {
	q.mu.Lock()
	v := q.vector
	q.mu.Unlock()
	q.t.signal(v, isrQueue, eventfd.Raise) // the vector stays open until the device is inactive
}

// open makes what the device works with. Transport.mu is held.
func (q *queueRegs) open(f virtio.Features) (*virtio.Queue, error) {
	c := q.config
	if c.Size > q.spec.MaxSize {
		return nil, fmt.Errorf("queue %d of %d entries, at most %d: %w", q.index, c.Size, q.spec.MaxSize, queue.ErrConfig)
	}
	c.EventIdx = f.Has(virtio.FeatureEventIdx)
	c.Indirect = f.Has(virtio.FeatureIndirectDesc)
	c.Packed = f.Has(virtio.FeatureRingPacked)
	if err := c.Check(q.t.mem); err != nil {
		return nil, fmt.Errorf("queue %d: %w", q.index, err)
	}
	q.live = &virtio.Queue{Config: c, Interrupt: q.interrupt, OnCall: q.setOnCall}
	return q.live, nil
}

// placeIOEventFD puts the queue's kick file at gpa on the MMIO bus, or takes it
// away. Where the hypervisor has no room, writes are trapped instead.
func (q *queueRegs) placeIOEventFD(gpa uint64, mapped bool) {
	const anySize = 0
	var err error
	switch {
	case mapped:
		if err = q.t.notifier.IOEventFD(gpa, anySize, q.spec.Kick); err == nil {
			q.placed = gpa
		}
	case q.placed == gpa && gpa != 0:
		q.placed = 0
		err = q.t.notifier.RemoveIOEventFD(gpa, anySize, q.spec.Kick)
	}
	if err != nil {
		q.t.report(fmt.Errorf("queue %d: ioeventfd at %#x, kicks take the slow way: %w", q.index, gpa, err))
	}
}

// callFile is the file that raises vector v, nil where it raises nothing.
func (t *Transport) callFile(v uint16) *os.File {
	if v == virtio.NoVector {
		return nil
	}
	return t.msix.EventFD(int(v))
}

// signal interrupts by vector v, or, with MSI-X off, notes why in the ISR
// register for a driver that polls it: there are no INTx wires.
func (t *Transport) signal(v uint16, isr uint32, write func(*os.File) error) {
	t.metrics.interrupts.Add(1)
	if !t.msix.Enabled() {
		t.isr.Or(isr)
		return
	}
	if err := write(t.callFile(v)); err != nil && !errors.Is(err, os.ErrClosed) {
		t.report(err)
	}
}

// notify is a kick that came by a trapped write.
func (t *Transport) notify(i uint64) {
	if i >= uint64(len(t.queues)) {
		return
	}
	t.metrics.trappedKicks.Add(1)
	if err := eventfd.Signal(t.queues[i].spec.Kick); err != nil && !errors.Is(err, os.ErrClosed) {
		t.report(err)
	}
}
