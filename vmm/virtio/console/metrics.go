package console

import (
	"fmt"
	"sync/atomic"
)

// Metrics counts what a console has done since it was made.
type Metrics struct {
	printed, typed, outputErrors, badControls atomic.Uint64
}

// portMetrics counts what a named port has done: bytes that the guest has received and
// sent, and those that it sent to nobody.
type portMetrics struct {
	received, sent, discarded, connections atomic.Uint64
}

// Counters returns the metrics by name; those of named ports begin with `portN.`.
func (d *Device) Counters() map[string]uint64 {
	m := &d.metrics
	out := map[string]uint64{
		"printed_bytes": m.printed.Load(), "typed_bytes": m.typed.Load(), "output_errors": m.outputErrors.Load(),
		"kicks": d.rx.Kicks() + d.tx.Kicks(),
	}
	if len(d.ports) > 0 {
		out["bad_control_messages"] = m.badControls.Load()
	}
	for _, p := range d.ports {
		name := fmt.Sprintf("port%d.", p.id)
		out[name+"received_bytes"] = p.metrics.received.Load()
		out[name+"sent_bytes"] = p.metrics.sent.Load()
		out[name+"discarded_bytes"] = p.metrics.discarded.Load()
		out[name+"connections"] = p.metrics.connections.Load()
	}
	return out
}
