package balloon

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/ashlar-hv/ashlar/vmm/virtio/queue"
	"github.com/ashlar-hv/ashlar/vmm/virtio/worker"
)

const (
	// interval is how often a driver is asked for statistics at most.
	interval = time.Second

	statSize = 10 // bytes of struct virtio_balloon_stat
	maxStats = 64 // of a buffer, which may say the same again and again
)

// names are those of statistics by their tags (section 5.5.6.4, and from 10 on as in
// linux/virtio_balloon.h).
var names = []string{
	"swap_in_bytes", "swap_out_bytes", "major_faults", "minor_faults", "free_bytes", "total_bytes", "available_bytes",
	"cache_bytes", "hugetlb_allocations", "hugetlb_failures",
	"oom_kills", "alloc_stalls", "async_scans", "direct_scans", "async_reclaims", "direct_reclaims",
}

// Statistics are what a guest says of its memory.
type Statistics struct {
	Time   time.Time         // when it said so, UTC; zero where it never has
	Values map[string]uint64 // not to be changed
}

// Statistics asks the driver for statistics, unless it was asked within a second, and
// waits for them for patience at most. It returns the latest that there are.
func (d *Device) Statistics(patience time.Duration) Statistics {
	d.mu.Lock()
	fresh, ask := d.fresh, d.canAsk && time.Since(d.asked) >= interval
	if ask {
		d.asked = time.Now()
	}
	d.mu.Unlock()
	if ask {
		select {
		case d.ask <- struct{}{}:
		default: // the driver is slow; that wish counts
		}
		t := time.NewTimer(patience)
		defer t.Stop()
		select {
		case <-fresh:
		case <-t.C:
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stats
}

// statistics holds the driver's buffer, and gives it back when statistics are wanted:
// then the driver fills it anew (section 5.5.6.3). What is in a buffer that nobody has
// asked for may be old.
func (d *Device) statistics(s *worker.Session) error {
	var c queue.Chain
	for asked := false; ; asked = true {
		if err := s.Next(&c); err != nil {
			return err
		}
		if len(c.Writable) > 0 {
			return fmt.Errorf("statistics with %d buffers to write: %w", len(c.Writable), queue.ErrMalformed)
		}
		var b [maxStats * statSize]byte
		n, err := queue.CopyOut(s.Memory, c.Readable, 0, b[:])
		if err != nil {
			return err
		}
		if asked {
			d.note(values(b[:n]))
		}
		select {
		case <-d.ask:
		case <-d.quit:
			return putBack(s, &c)
		}
		d.metrics.polls.Add(1)
		if err := s.Queue.Push(c.Head, 0); err != nil {
			return err
		}
	}
}

// values are the statistics in b that have a name.
func values(b []byte) map[string]uint64 {
	out := make(map[string]uint64)
	for ; len(b) >= statSize; b = b[statSize:] {
		if tag := int(binary.LittleEndian.Uint16(b)); tag < len(names) {
			out[names[tag]] = binary.LittleEndian.Uint64(b[2:])
		}
	}
	return out
}

func (d *Device) note(v map[string]uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stats = Statistics{Time: time.Now().UTC(), Values: v}
	close(d.fresh)
	d.fresh = make(chan struct{})
}
