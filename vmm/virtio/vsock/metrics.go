package vsock

import "sync/atomic"

// Metrics counts what happened in this process: data, kicks and interrupts do not come
// by.
type Metrics struct {
	errors atomic.Uint64
}

// Counters returns the metrics by name.
func (d *Device) Counters() map[string]uint64 {
	return map[string]uint64{"errors": d.metrics.errors.Load(), "kicks": 0}
}
