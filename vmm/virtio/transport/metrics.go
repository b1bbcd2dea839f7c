package transport

import "sync/atomic"

// Metrics counts what has passed between driver and device through this process:
// with vhost neither.
type Metrics struct {
	interrupts   atomic.Uint64 // raised, those of the configuration too
	trappedKicks atomic.Uint64 // that took the slow way, for want of an ioeventfd
}

// Counters returns the metrics by name.
func (t *Transport) Counters() map[string]uint64 {
	return map[string]uint64{
		"interrupts": t.metrics.interrupts.Load(), "trapped_kicks": t.metrics.trappedKicks.Load(),
	}
}
