package rng

import "sync/atomic"

// Metrics counts what a device has done since it was made.
type Metrics struct {
	requests, bytes atomic.Uint64
}

// Counters returns the metrics by name.
func (d *Device) Counters() map[string]uint64 {
	return map[string]uint64{"requests": d.metrics.requests.Load(), "bytes": d.metrics.bytes.Load(), "kicks": d.w.Kicks()}
}
