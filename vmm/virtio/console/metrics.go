package console

import "sync/atomic"

// Metrics counts what a console has done since it was made.
type Metrics struct {
	printed, typed, outputErrors atomic.Uint64
}

// Counters returns the metrics by name.
func (d *Device) Counters() map[string]uint64 {
	m := &d.metrics
	return map[string]uint64{
		"printed_bytes": m.printed.Load(), "typed_bytes": m.typed.Load(), "output_errors": m.outputErrors.Load(),
		"kicks": d.rx.Kicks() + d.tx.Kicks(),
	}
}
