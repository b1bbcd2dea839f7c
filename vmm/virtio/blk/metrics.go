package blk

import "sync/atomic"

// Metrics counts what a disk has done since it was made.
type Metrics struct {
	reads, writes, flushes, discards, zeroes atomic.Uint64
	readBytes, writtenBytes                  atomic.Uint64
	errors                                   atomic.Uint64 // requests answered with IOERR
	hostErrors, hostFull                     atomic.Uint64 // of them: the file failed, had no room
	unsupported                              atomic.Uint64
	throttled                                atomic.Uint64 // requests that waited for the limits
	readTimes, writeTimes, flushTimes        histogram
	registered                               atomic.Uint64 // io_uring requests on registered memory
	kicks                                    atomic.Uint64 // wake-ups by them: those that come together count once
}

// Counters returns the metrics by name.
func (d *Device) Counters() map[string]uint64 {
	m := &d.metrics
	return map[string]uint64{
		"reads": m.reads.Load(), "writes": m.writes.Load(), "flushes": m.flushes.Load(),
		"discards": m.discards.Load(), "write_zeroes": m.zeroes.Load(),
		"read_bytes": m.readBytes.Load(), "written_bytes": m.writtenBytes.Load(),
		"errors": m.errors.Load(), "host_errors": m.hostErrors.Load(), "host_full": m.hostFull.Load(), "unsupported": m.unsupported.Load(),
		"throttled": m.throttled.Load(), "kicks": m.kicks.Load(), "registered": m.registered.Load(),
	}
}
