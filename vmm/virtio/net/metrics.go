package net

import "sync/atomic"

// Metrics counts what passed through this process since the device was made:
// nothing with vhost-net, where kicks and interrupts do not either, and
// the tap's own counters tell.
type Metrics struct {
	rxPackets, rxBytes, rxDropped atomic.Uint64
	txPackets, txBytes, txDropped atomic.Uint64
	errors                        atomic.Uint64
}

// Counters returns the metrics by name.
func (d *Device) Counters() map[string]uint64 {
	m := &d.metrics
	var kicks uint64
	for _, p := range d.paths {
		kicks += p.kickCount()
	}
	if d.control != nil {
		kicks += d.control.Kicks()
	}
	return map[string]uint64{
		"rx_packets": m.rxPackets.Load(), "rx_bytes": m.rxBytes.Load(), "rx_dropped": m.rxDropped.Load(),
		"tx_packets": m.txPackets.Load(), "tx_bytes": m.txBytes.Load(), "tx_dropped": m.txDropped.Load(),
		"errors": m.errors.Load(), "kicks": kicks,
	}
}
