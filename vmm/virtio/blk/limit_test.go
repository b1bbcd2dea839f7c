package blk

import (
	"bytes"
	"encoding/binary"
	"math"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/vmm/virtio/internal/virtiotest"
)

func TestReserve(t *testing.T) {
	const ms = second / 1000
	type ask struct{ at, bytes, due int64 }
	for _, tt := range []struct {
		name string
		l    Limits
		asks []ask
	}{
		{"operations", Limits{OperationsPerSecond: 10, BurstOperations: 2}, []ask{
			{0, 1 << 40, 0}, {0, 0, 0}, {0, 0, 100 * ms}, {0, 0, 200 * ms},
			{1000 * ms, 0, 1000 * ms}, {1000 * ms, 0, 1000 * ms}, {1000 * ms, 0, 1100 * ms},
		}},
		{"bytes", Limits{BytesPerSecond: 1000, BurstBytes: 100}, []ask{
			{0, 60, 0}, {0, 60, 20 * ms}, {20 * ms, 0, 20 * ms}, {200 * ms, 100, 200 * ms}, {250 * ms, 100, 300 * ms},
		}},
		{"larger than the burst", Limits{BytesPerSecond: 1000, BurstBytes: 100}, []ask{
			{0, 1100, 0}, {0, 0, 1000 * ms}, {0, 200, 1100 * ms}, {0, 0, 1200 * ms},
		}},
		{"a burst of its own", Limits{BytesPerSecond: 1000, OperationsPerSecond: 5}, []ask{
			{0, 100, 0}, {0, 0, 200 * ms}, {0, 300, 400 * ms},
		}},
		{"as slow as can be", Limits{BytesPerSecond: 1}, []ask{{0, math.MaxInt64, 0}, {0, math.MaxInt64, never}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLimiter(tt.l)
			for i, a := range tt.asks {
				if got := l.reserve(uint64(a.bytes), a.at); got != a.due {
					t.Errorf("%d: reserve(%d, %d) = %d, want %d", i, a.bytes, a.at, got, a.due)
				}
			}
		})
	}
	if newLimiter(Limits{BurstBytes: 1, BurstOperations: 1}) != nil {
		t.Error("bursts alone are a limit")
	}
}

func FuzzReserve(f *testing.F) {
	f.Add(uint64(1), uint64(0), uint64(1), uint64(0), []byte{1, 2, 3, 4, 5, 6, 7, 8, 9})
	f.Add(uint64(math.MaxUint64), uint64(math.MaxUint64), uint64(1), uint64(math.MaxUint64), bytes.Repeat([]byte{255}, 64))
	f.Fuzz(func(t *testing.T, rate, burst, ops, opsBurst uint64, asks []byte) {
		l := newLimiter(Limits{rate, burst, ops, opsBurst})
		if l == nil {
			return
		}
		for now := int64(0); len(asks) >= 9; asks = asks[9:] {
			n := binary.LittleEndian.Uint64(asks[1:])
			now += int64(asks[0]) << 20
			if due := l.reserve(n, now); due < now || due > now+never {
				t.Fatalf("reserve(%d, %d) = %d", n, now, due)
			}
			switch asks[0] % 3 {
			case 1:
				l.giveBack(n)
			case 2:
				l.owe(n, now)
			}
		}
	})
}

// A limitedRig is a disk with a clock that stands still.
type limitedRig struct {
	*rig
	now atomic.Int64
}

func newLimitedRig(t *testing.T, l Limits, queues int) *limitedRig {
	r := &limitedRig{}
	r.rig = newRig(t, Config{Limits: l, Queues: queues, clock: r.now.Load}, 1<<20, os.O_RDWR, all)
	return r
}

// pass lets time pass, and tells the disk.
func (r *limitedRig) pass(d time.Duration) {
	r.now.Add(int64(d))
	for _, ring := range r.rings {
		ring.Kick()
	}
}

// read asks for n bytes from the beginning and returns where its status will be.
func (r *limitedRig) read(ring *virtiotest.Ring, n int) virtiotest.Buf {
	status := r.M.Room(1)
	ring.Add([]virtiotest.Buf{r.M.Put(header(typeIn, 0))}, []virtiotest.Buf{r.M.Room(n), status})
	ring.Kick()
	return status
}

// throttled waits until so many requests have been held back.
func (r *limitedRig) throttled(n uint64) {
	r.M.T.Helper()
	for end := time.Now().Add(virtiotest.Patience); r.dev.Counters()["throttled"] != n; time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			r.M.T.Fatalf("%d requests held back, want %d", r.dev.Counters()["throttled"], n)
		}
	}
}

// nothing says that no further chain of the ring's has been used.
func (r *limitedRig) nothing(ring *virtiotest.Ring) {
	r.M.T.Helper()
	if head, _, ok := ring.Done(); ok {
		r.M.T.Fatalf("chain %d is done before its time", head)
	}
}

func (r *limitedRig) ok(ring *virtiotest.Ring, status virtiotest.Buf) {
	r.M.T.Helper()
	ring.Wait()
	if s := r.M.Bytes(status)[0]; s != statusOK {
		r.M.T.Fatalf("status = %d, want 0", s)
	}
}

func TestThrottle(t *testing.T) {
	r := newLimitedRig(t, Limits{OperationsPerSecond: 10, BurstOperations: 1}, 2)
	a, b := r.rings[0], r.rings[1]
	r.ok(a, r.read(a, 512))
	second := r.read(a, 512)
	r.throttled(1)
	third := r.read(b, 512) // the limits are those of all queues
	r.throttled(2)
	fourth := r.read(a, 512)
	r.nothing(a)
	r.pass(100 * time.Millisecond)
	r.ok(a, second)
	r.throttled(3)
	r.nothing(b)
	r.pass(100 * time.Millisecond)
	r.ok(b, third)
	r.nothing(a)
	r.pass(100 * time.Millisecond)
	r.ok(a, fourth)
}

// TestFlushIsAnOperation has everything count that a driver can ask for.
func TestFlushIsAnOperation(t *testing.T) {
	for _, typ := range []uint32{typeFlush, typeID, typeDiscard, 77} {
		r := newLimitedRig(t, Limits{OperationsPerSecond: 1, BurstOperations: 1}, 1)
		r.do(r.rings[0], typ, 0, nil, 0)
		r.read(r.rings[0], 512)
		r.throttled(1)
	}
}

// Zeros that are written count as written bytes.
func TestZeroesAreOwed(t *testing.T) {
	r := newLimitedRig(t, Limits{BytesPerSecond: 1 << 16, BurstBytes: 1 << 10}, 1)
	r.SetDevice(cfgWriteback, 1, 0)
	if _, s, _ := r.do(r.rings[0], typeWriteZeroes, 0, segment(0, 128, 0), 0); s != statusOK {
		t.Fatalf("status = %d", s)
	}
	status := r.read(r.rings[0], 1024)
	r.throttled(1)
	r.pass(time.Second)
	r.ok(r.rings[0], status)
}

// TestDebt lets a request through that is larger than the bucket.
func TestDebt(t *testing.T) {
	r := newLimitedRig(t, Limits{BytesPerSecond: 4096, BurstBytes: 512}, 1)
	ring := r.rings[0]
	r.ok(ring, r.read(ring, 8192))
	status := r.read(ring, 512)
	r.throttled(1)
	r.pass(2*time.Second - 1)
	r.nothing(ring)
	r.pass(1)
	r.ok(ring, status)
}

// A wait ends by itself, too, with the clock that disks have.
func TestThrottleByTheClock(t *testing.T) {
	r := newRig(t, Config{Limits: Limits{OperationsPerSecond: 100, BurstOperations: 1}}, 1<<20, os.O_RDWR, all)
	for range 5 {
		if got, s, _ := r.do(r.rings[0], typeIn, 0, nil, 4096); s != statusOK || !bytes.Equal(got, r.want[:4096]) {
			t.Fatalf("status %d, or other bytes", s)
		}
	}
}

func TestChangeLimits(t *testing.T) {
	slow := Limits{OperationsPerSecond: 1, BurstOperations: 1}
	r := newLimitedRig(t, Limits{}, 1)
	ring := r.rings[0]
	for range 3 {
		r.ok(ring, r.read(ring, 512))
	}
	r.M.Must(r.dev.SetLimits(slow))
	r.ok(ring, r.read(ring, 512))
	status := r.read(ring, 512)
	r.throttled(1)
	r.M.Must(r.dev.SetLimits(slow)) // with a full burst
	r.ok(ring, status)
	status = r.read(ring, 512)
	r.throttled(2)
	r.M.Must(r.dev.SetLimits(Limits{}))
	r.ok(ring, status)
	r.ok(ring, r.read(ring, 512))
}

// What waits holds up neither a pause nor a reset, and is not let through by them.
func TestThrottledPauseAndReset(t *testing.T) {
	r := newLimitedRig(t, Limits{OperationsPerSecond: 1, BurstOperations: 1}, 1)
	ring := r.rings[0]
	r.ok(ring, r.read(ring, 512))
	var waiting []virtiotest.Buf
	for range 3 {
		waiting = append(waiting, r.read(ring, 512))
	}
	r.throttled(1)
	r.Transport.Pause()
	r.Transport.Resume()
	r.throttled(2)
	r.nothing(ring)
	for range waiting {
		r.pass(time.Second)
		ring.Wait()
	}
	for i, b := range waiting {
		if s := r.M.Bytes(b)[0]; s != statusOK {
			t.Errorf("request %d: status %d", i, s)
		}
	}
	lost := r.read(ring, 512)
	r.throttled(5)
	r.Reset()
	r.start(all)
	if s := r.M.Bytes(lost)[0]; s != 0xaa {
		t.Errorf("a request that waited was answered by a reset with %d", s)
	}
	r.read(r.rings[0], 512)
	r.throttled(6) // the end of the test closes the disk while it waits
}

// A queue that breaks while a request waits goes down all the same.
func TestThrottledAndBroken(t *testing.T) {
	r := newLimitedRig(t, Limits{OperationsPerSecond: 1, BurstOperations: 1}, 1)
	ring := r.rings[0]
	r.ok(ring, r.read(ring, 512))
	r.read(ring, 512)
	r.throttled(1)
	ring.Add([]virtiotest.Buf{r.M.Room(15)}, []virtiotest.Buf{r.M.Room(1)})
	r.pass(2 * time.Second)
	r.WaitBroken()
	r.Reset()
	r.start(all)
	r.pass(time.Second)
	if _, s, _ := r.do(r.rings[0], typeIn, 0, nil, 512); s != statusOK {
		t.Errorf("after the reset: status %d", s)
	}
}
