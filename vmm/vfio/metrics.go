package vfio

import "sync/atomic"

// metrics are what a function has done; protocol.VFIOCounters says what they are.
type metrics struct {
	resets, errors                           atomic.Uint64
	configReads, configWrites, configRefused atomic.Uint64
	barReads, barWrites                      atomic.Uint64
}

// Counters are those of the device. Accesses to BARs are those that come to this process.
func (f *Function) Counters() map[string]uint64 {
	m := &f.metrics
	vectors := 0
	if f.msix != nil {
		vectors = f.msix.Vectors()
	}
	if f.msi != nil {
		vectors += f.msi.count()
	}
	return map[string]uint64{
		"vectors": uint64(vectors), "resets": m.resets.Load(), "errors": m.errors.Load(),
		"config_reads": m.configReads.Load(), "config_writes": m.configWrites.Load(), "config_refused": m.configRefused.Load(),
		"bar_reads": m.barReads.Load(), "bar_writes": m.barWrites.Load(),
	}
}
