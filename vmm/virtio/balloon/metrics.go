package balloon

import "sync/atomic"

type counter = atomic.Uint64

// Metrics counts what a balloon has done since it was made.
type Metrics struct {
	inflated, deflated, reported counter // bytes
	failures                     counter // runs of pages that the host could not take
	polls                        counter // of statistics
}

// Counters returns the metrics by name.
func (d *Device) Counters() map[string]uint64 {
	m := &d.metrics
	out := map[string]uint64{
		"inflated_bytes": m.inflated.Load(), "deflated_bytes": m.deflated.Load(), "reported_bytes": m.reported.Load(),
		"failures": m.failures.Load(), "polls": m.polls.Load(), "kicks": 0,
	}
	for _, w := range d.workers {
		out["kicks"] += w.Kicks()
	}
	return out
}
