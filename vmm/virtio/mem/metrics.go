package mem

import "sync/atomic"

type counter = atomic.Uint64

// Metrics counts what a memory device has done since it was made.
type Metrics struct {
	plugged, unplugged counter // bytes
	refused            counter // requests that were the driver's fault, or for too much
	failures           counter // requests that the host could not do
}

// Counters returns the metrics by name.
func (d *Device) Counters() map[string]uint64 {
	m := &d.metrics
	return map[string]uint64{
		"plugged_bytes": m.plugged.Load(), "unplugged_bytes": m.unplugged.Load(),
		"refused": m.refused.Load(), "failures": m.failures.Load(), "kicks": d.w.Kicks(),
	}
}
