package blk

import (
	"math"
	"math/bits"
	"sync"
)

// Limits bound what a disk does. 0 is no limit, of a burst a tenth of what a second
// brings.
type Limits struct {
	BytesPerSecond      uint64
	BurstBytes          uint64
	OperationsPerSecond uint64
	BurstOperations     uint64
}

const second = 1_000_000_000 // nanoseconds

// A bucket holds tokens, and gets as many a second as its rate says until it is full.
// It is kept as a time, after ITU-T I.371's virtual scheduling: nothing has to be
// filled in while nobody takes any.
type bucket struct {
	rate  uint64 // tokens a second; 0 is no limit
	burst int64  // nanoseconds in which an empty bucket gets full
	full  int64  // when it will be full, in nanoseconds of the disk's clock
}

func newBucket(rate, burst uint64) bucket {
	if rate == 0 {
		return bucket{}
	}
	b := bucket{rate: rate}
	if burst == 0 {
		burst = max(rate/10, 1)
	}
	b.burst = b.time(burst)
	return b
}

// never is as long as a bucket may be in debt: so its arithmetic cannot overflow.
const never = math.MaxInt64 / 4

// time is how long n tokens take to come.
func (b *bucket) time(n uint64) int64 {
	hi, lo := bits.Mul64(n, second)
	if hi >= b.rate {
		return never
	}
	t, _ := bits.Div64(hi, lo, b.rate)
	return int64(min(t, never))
}

// due is when n tokens can be had. More than the bucket holds can be had when it is
// full, and it is in debt then.
func (b *bucket) due(n uint64, now int64) int64 {
	if b.rate == 0 {
		return now
	}
	return max(now, b.full-b.burst+min(b.time(n), b.burst))
}

// take takes n tokens, also those that are yet to come.
func (b *bucket) take(n uint64, now int64) {
	if b.rate != 0 {
		b.full = min(max(b.full, now)+b.time(n), now+never)
	}
}

// give puts n tokens back.
func (b *bucket) give(n uint64) {
	if b.rate != 0 {
		b.full -= b.time(n)
	}
}

// A limiter is the Limits of a disk at work, for all of its queues.
type limiter struct {
	mu         sync.Mutex
	bytes, ops bucket
}

// newLimiter is nil where nothing is limited.
func newLimiter(l Limits) *limiter {
	if l.BytesPerSecond == 0 && l.OperationsPerSecond == 0 {
		return nil
	}
	return &limiter{
		bytes: newBucket(l.BytesPerSecond, l.BurstBytes),
		ops:   newBucket(l.OperationsPerSecond, l.BurstOperations),
	}
}

// reserve takes the tokens for one operation on n bytes and says when it may go. Who
// asks first goes first, in whatever queue: a large request is not overtaken for ever.
func (l *limiter) reserve(n uint64, now int64) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	due := max(l.bytes.due(n, now), l.ops.due(1, now))
	l.bytes.take(n, now)
	l.ops.take(1, now)
	return due
}

// giveBack undoes reserve, of an operation that has not gone.
func (l *limiter) giveBack(n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bytes.give(n)
	l.ops.give(1)
}

// owe takes n bytes for what goes at once.
func (l *limiter) owe(n uint64, now int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bytes.take(n, now)
}

// SetLimits changes the limits, also while the disk is at work, which begins with a
// full burst then. It is not called after Close.
func (d *Device) SetLimits(l Limits) error {
	d.limits.Store(newLimiter(l))
	for _, w := range d.queues { // one may be waiting for what was to be
		if err := w.poke(); err != nil {
			return err
		}
	}
	return nil
}

// Fail has every request from now on, and those that wait for the limits, answered with
// IOERR: the disk is about to go. What has begun ends as it would. It tells whether the
// disk is at work at all, and is not called after Close.
func (d *Device) Fail() (active bool, err error) {
	d.failing.Store(true)
	return d.active.Load(), d.SetLimits(Limits{})
}

// Answered is how many requests have been answered with IOERR.
func (d *Device) Answered() uint64 { return d.metrics.errors.Load() }

// admit begins r, or holds it back until the limits let it go. While one request of a
// queue is held back none is taken from it.
func (w *worker) admit(r *request) error {
	l := w.d.limits.Load()
	if l == nil {
		return r.begin()
	}
	now := w.d.clock()
	r.limiter, r.due = l, l.reserve(r.cost, now)
	if r.due <= now {
		return r.begin()
	}
	w.held = r
	w.d.metrics.throttled.Add(1)
	return nil
}

// letGo begins the request that was held back, when it is time.
func (w *worker) letGo() error {
	r, l := w.held, w.d.limits.Load()
	if l != nil {
		now := w.d.clock()
		if l != r.limiter { // what was reserved belongs to limits that are no more
			r.limiter, r.due = l, l.reserve(r.cost, now)
		}
		if r.due > now {
			return nil
		}
	}
	w.held = nil
	return w.settle(r, r.begin())
}

// putBack makes the request that was held back the queue's next one again.
func (w *worker) putBack() {
	if r := w.held; r != nil {
		w.held = nil
		r.limiter.giveBack(r.cost)
		w.q.Undo(r.chain)
		w.release(r)
	}
}
