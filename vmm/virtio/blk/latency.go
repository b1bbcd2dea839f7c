package blk

import (
	"math/bits"
	"slices"
	"sync/atomic"
	"time"
)

// Buckets is how many a histogram has at most: what takes 16.8 s and more is in the last.
const Buckets = 26

// A histogram counts requests by the time that they took: bucket 0 those of less than a
// microsecond, bucket i those of at least 1<<(i-1) and less than 1<<i microseconds.
type histogram [Buckets]atomic.Uint64

func (h *histogram) observe(ns int64) {
	us := uint64(max(ns, 0) / int64(time.Microsecond))
	h[min(bits.Len64(us), Buckets-1)].Add(1)
}

// counts are those up to the last that is not 0.
func (h *histogram) counts() []uint64 {
	out := make([]uint64, Buckets)
	for i := range h {
		out[i] = h[i].Load()
	}
	last := Buckets
	for last > 0 && out[last-1] == 0 {
		last--
	}
	return slices.Clip(out[:last])
}

// took counts a request that has done what was asked.
func (r *request) took(h *histogram) { h.observe(r.w.d.clock() - r.began) }

// Histograms returns how long requests took, from the time when they were given to the
// host's kernel, by what they were: counts for times that double from 1 µs on. Those
// that are missing at the end are 0.
func (d *Device) Histograms() map[string][]uint64 {
	m := &d.metrics
	return map[string][]uint64{"read": m.readTimes.counts(), "write": m.writeTimes.counts(), "flush": m.flushTimes.counts()}
}
