package balloon

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/ashlar-hv/ashlar/vmm/memory"
	"github.com/ashlar-hv/ashlar/vmm/virtio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/queue"
	"github.com/ashlar-hv/ashlar/vmm/virtio/worker"
)

// Queues (section 5.5.2). Drivers leave out the numbers of queues that are not there,
// as Linux does: that of reported pages is the third or the fourth.
const (
	inflateQueue = 0
	deflateQueue = 1
	statsQueue   = 2
	queueCount   = 4
)

const (
	numberSize = 4 // bytes of a page number
	// batch is how many page numbers are taken at once: what a driver sends in one
	// chain, as a rule.
	batch = 256
	// piece is how many bytes are removed at once: a device that is to stop does not
	// wait for more.
	piece = 64 << 20
)

// serves is what is done with each queue, in their order, where these features
// were negotiated.
func (d *Device) serves(f virtio.Features) []func(*worker.Session) error {
	out := []func(*worker.Session) error{inflateQueue: d.inflate, deflateQueue: d.deflate}
	if f.Has(featStatsVQ) {
		out = append(out, d.statistics)
	}
	if f.Has(featReporting) {
		out = append(out, d.reported)
	}
	return out
}

// inflate takes pages into the balloon.
func (d *Device) inflate(s *worker.Session) error {
	return d.eachBatch(s, func(pages []uint32) {
		// Drivers name adjacent pages in any order.
		slices.Sort(pages)
		for len(pages) > 0 {
			n := run(pages)
			d.remove(s.Memory, uint64(pages[0])*PageSize, (uint64(pages[n-1]-pages[0])+1)*PageSize)
			pages = pages[n:]
		}
	}, &d.metrics.inflated)
}

// deflate gives pages back. There is nothing to do for them: the host puts a page
// wherever the guest touches none.
func (d *Device) deflate(s *worker.Session) error {
	return d.eachBatch(s, func([]uint32) {}, &d.metrics.deflated)
}

// run is how many of the first pages, which ascend, are adjacent, or the same again.
func run(pages []uint32) int {
	n := 1
	for n < len(pages) && pages[n]-pages[n-1] <= 1 {
		n++
	}
	return n
}

// remove gives n bytes at gpa back to the host. Where the host cannot take them the
// guest is none the worse.
func (d *Device) remove(m *memory.Memory, gpa, n uint64) {
	if err := m.Remove(gpa, n); err != nil {
		d.metrics.failures.Add(1)
	}
}

// eachBatch calls take for the page numbers of all chains, all of them of pages in
// memory, a batch at a time, and adds up their bytes.
func (d *Device) eachBatch(s *worker.Session, take func([]uint32), sum *counter) error {
	buf, pages := make([]byte, batch*numberSize), make([]uint32, 0, batch)
	return s.Each(func(c *queue.Chain) (uint32, error) {
		total := queue.Len(c.Readable)
		if total == 0 || total%numberSize != 0 || len(c.Writable) > 0 {
			return 0, fmt.Errorf("page numbers of %d bytes, %d buffers to write: %w", total, len(c.Writable), queue.ErrMalformed)
		}
		for off := uint64(0); off < total; {
			if s.Stopped() {
				return 0, putBack(s, c)
			}
			n, err := queue.CopyOut(s.Memory, c.Readable, off, buf)
			if err != nil {
				return 0, err
			}
			if pages, err = numbers(s.Memory, pages[:0], buf[:n]); err != nil {
				return 0, err
			}
			take(pages)
			sum.Add(uint64(len(pages)) * PageSize)
			off += uint64(n)
		}
		return 0, nil
	})
}

// numbers appends the page numbers in b.
func numbers(m *memory.Memory, pages []uint32, b []byte) ([]uint32, error) {
	for ; len(b) >= numberSize; b = b[numberSize:] {
		n := binary.LittleEndian.Uint32(b)
		if !m.Contains(uint64(n)*PageSize, PageSize) {
			return pages, fmt.Errorf("page %#x is outside guest memory: %w", n, queue.ErrMalformed)
		}
		pages = append(pages, n)
	}
	return pages, nil
}

// putBack leaves the chain at hand for the next life of the queue: what is done with
// a page twice is as if it were done once.
func putBack(s *worker.Session, c *queue.Chain) error {
	s.Queue.Undo(*c)
	return errors.Join(s.Interrupt(), worker.ErrStopped)
}

// reported takes pages that the guest has free, and uses again when it likes
// (section 5.5.6.7). They are not in the balloon.
func (d *Device) reported(s *worker.Session) error {
	return s.Each(func(c *queue.Chain) (uint32, error) {
		if len(c.Writable) == 0 || len(c.Readable) > 0 {
			return 0, fmt.Errorf("free pages in %d buffers to write, %d to read: %w", len(c.Writable), len(c.Readable), queue.ErrMalformed)
		}
		for _, b := range c.Writable {
			for off := uint64(0); off < uint64(b.Len); off += piece {
				if s.Stopped() {
					return 0, putBack(s, c)
				}
				n := min(uint64(b.Len)-off, piece)
				d.remove(s.Memory, b.GPA+off, n)
				d.metrics.reported.Add(n)
			}
		}
		return 0, nil
	})
}
