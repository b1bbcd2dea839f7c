package worker

import (
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/vmm/memory"
	"github.com/ashlar-hv/ashlar/vmm/virtio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/queue"
)

const (
	descAt   = 0x1000
	availAt  = 0x2000
	usedAt   = 0x3000
	bufferAt = 0x4000
)

// A rig is a worker with a queue of four entries, of which n are available.
type rig struct {
	*Worker
	a          virtio.Activation
	vq         *virtio.Queue
	interrupts atomic.Int32
	broken     chan error
}

func newRig(t *testing.T, n uint16) *rig {
	t.Helper()
	f, err := memory.Create("worker", 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := memory.Map(f, 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	w, err := New("test-kick")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(w.Close(), m.Close()); err != nil {
			t.Error(err)
		}
	})
	r := &rig{Worker: w, broken: make(chan error, 1)}
	r.a = virtio.Activation{Memory: m, Broken: func(err error) { r.broken <- err }}
	r.vq = &virtio.Queue{
		Config:    queue.Config{Size: 4, Desc: descAt, Driver: availAt, Device: usedAt},
		Interrupt: func() { r.interrupts.Add(1) },
	}
	for i := range uint64(4) {
		const lenAndWrite = 16 | 2<<32
		if err := errors.Join(
			m.Store64(descAt+16*i, bufferAt), m.Store64(descAt+16*i+8, lenAndWrite),
			m.Store16(availAt+4+2*i, uint16(i)),
		); err != nil {
			t.Fatal(err)
		}
	}
	r.makeAvailable(t, n)
	return r
}

func (r *rig) makeAvailable(t *testing.T, idx uint16) {
	t.Helper()
	if err := r.a.Memory.Store16(availAt+2, idx); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) start(t *testing.T, serve func(*Session) error) {
	t.Helper()
	if err := r.Start(r.a, r.vq, serve); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) used(t *testing.T) uint16 {
	t.Helper()
	n, err := r.a.Memory.Load16(usedAt + 2)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// wait waits for the used index.
func (r *rig) wait(t *testing.T, want uint16) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); r.used(t) != want; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("used index = %d, want %d", r.used(t), want)
		}
	}
}

// TestKicks serves what is available at the start, without a kick, and what
// comes with one.
func TestKicks(t *testing.T) {
	r := newRig(t, 1)
	r.start(t, func(s *Session) error {
		return s.Each(func(*queue.Chain) (uint32, error) { return 1, nil })
	})
	r.wait(t, 1)
	r.makeAvailable(t, 3)
	if _, err := r.Kick().Write([]byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	r.wait(t, 3)
	r.Stop()
	if got, want := r.vq.Config.Start, (queue.Indexes{Avail: 3, Used: 3}); got != want {
		t.Errorf("indexes = %+v, want %+v", got, want)
	}
}

// TestInterruptAtStop stops a worker between what it pushed and the interrupt
// for that, which no later life of the queue would make up for.
func TestInterruptAtStop(t *testing.T) {
	r := newRig(t, 1)
	taken := make(chan struct{})
	r.start(t, func(s *Session) error {
		return s.Each(func(*queue.Chain) (uint32, error) {
			close(taken)
			for !s.Stopped() {
				runtime.Gosched()
			}
			return 1, nil
		})
	})
	<-taken
	r.Stop()
	if used, n := r.used(t), r.interrupts.Load(); used != 1 || n != 1 {
		t.Errorf("%d chains used, %d interrupts, want one of each", used, n)
	}
}

func TestMalformed(t *testing.T) {
	r := newRig(t, 5) // more than there are entries
	r.start(t, func(s *Session) error {
		return s.Each(func(*queue.Chain) (uint32, error) { return 0, nil })
	})
	if err := <-r.broken; !errors.Is(err, queue.ErrMalformed) {
		t.Errorf("broken by %v, want %v", err, queue.ErrMalformed)
	}
	r.Stop()
	r.Stop() // is nothing
}

func TestBadQueue(t *testing.T) {
	r := newRig(t, 0)
	r.vq.Config.Size = 3
	if err := r.Start(r.a, r.vq, nil); !errors.Is(err, queue.ErrConfig) {
		t.Errorf("Start = %v, want %v", err, queue.ErrConfig)
	}
	r.Stop()
}
