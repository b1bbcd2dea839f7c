// Package queue is the device's side of a virtio split virtqueue (VIRTIO 1.2
// section 2.7), with indirect descriptors and event index.
//
// The driver is not trusted: it may change any byte of the rings at any time.
// A descriptor is copied once, the copy is checked, and only the copy is used;
// indices go through atomic loads. Whatever the rings hold, Pop ends after at
// most MaxChain descriptors and hands out nothing outside guest memory.
package queue

import (
	"errors"
	"fmt"

	"github.com/ashlar-hv/ashlar/vmm/memory"
)

const (
	// MaxSize is the most entries a split queue has (section 2.7).
	MaxSize = 32768
	// MaxChain is the most buffers that Pop takes in one chain. It is as many
	// as readv(2) takes in one call.
	MaxChain = 1024
)

var (
	// ErrConfig says that a queue's size or addresses are not allowed.
	ErrConfig = errors.New("bad queue configuration")
	// ErrMalformed says that the driver wrote something into the rings that
	// section 2.7 forbids. The queue is of no use until the device is reset.
	ErrMalformed = errors.New("malformed queue")
)

// A Config is where a queue lies in guest memory.
type Config struct {
	Size   uint16 // entries, a power of two up to MaxSize
	Desc   uint64 // Descriptor Table, aligned to 16
	Driver uint64 // Available Ring, aligned to 2
	Device uint64 // Used Ring, aligned to 4
	// EventIdx and Indirect tell whether VIRTIO_F_EVENT_IDX and
	// VIRTIO_F_INDIRECT_DESC were negotiated.
	EventIdx, Indirect bool
	// Start is where the data path begins: zero, or as restored.
	Start Indexes
}

// Indexes are how far a device has come in a queue.
type Indexes struct {
	Avail uint16 `json:"avail"` // next entry of the Available Ring to take
	Used  uint16 `json:"used"`  // next entry of the Used Ring to fill
}

// A Queue is one split queue. Its methods are called by one goroutine at a
// time.
type Queue struct {
	mem *memory.Memory
	c   Config

	next     uint16 // next entry of the Available Ring to take
	used     uint16 // next entry of the Used Ring to fill
	signaled uint16 // value of used at the last interrupt decision
}

// Check says whether the queue of c lies in mem as section 2.7 wants it.
func (c Config) Check(mem *memory.Memory) error {
	if c.Size == 0 || c.Size > MaxSize || c.Size&(c.Size-1) != 0 {
		return fmt.Errorf("queue of %d entries: %w", c.Size, ErrConfig)
	}
	n := uint64(c.Size)
	for _, p := range []struct {
		name        string
		gpa, n, mod uint64
	}{
		{"descriptor table", c.Desc, 16 * n, 16},
		{"available ring", c.Driver, 6 + 2*n, 2},
		{"used ring", c.Device, 6 + 8*n, 4},
	} {
		if p.gpa%p.mod != 0 || !mem.Contains(p.gpa, p.n) {
			return fmt.Errorf("%s of %d bytes at %#x: %w", p.name, p.n, p.gpa, ErrConfig)
		}
	}
	return nil
}

// New returns the queue of c in mem.
func New(mem *memory.Memory, c Config) (*Queue, error) {
	if err := c.Check(mem); err != nil {
		return nil, err
	}
	return &Queue{mem: mem, c: c, next: c.Start.Avail, used: c.Start.Used, signaled: c.Start.Used}, nil
}

// Unpop makes the chain that Pop handed out last, and that was not pushed, the next one
// again.
func (q *Queue) Unpop() { q.next-- }

// Size is the number of entries.
func (q *Queue) Size() uint16 { return q.c.Size }

// Indexes are how far the queue is, for Config.Start of its next life.
func (q *Queue) Indexes() Indexes { return Indexes{Avail: q.next, Used: q.used} }

func (q *Queue) availIdx() (uint16, error) { return q.mem.Load16(q.c.Driver + 2) }

// pending is how many chains the driver has made available and Pop not taken.
func (q *Queue) pending() (uint16, error) {
	idx, err := q.availIdx()
	if err != nil {
		return 0, err
	}
	n := idx - q.next
	if n > q.c.Size {
		return 0, fmt.Errorf("available index %d is %d ahead of %d entries: %w", idx, n, q.c.Size, ErrMalformed)
	}
	return n, nil
}

// Push gives the chain that began at head back to the driver, with the first
// written bytes of its writable buffers filled (section 2.7.8).
func (q *Queue) Push(head uint16, written uint32) error {
	if err := q.Stage(head, written); err != nil {
		return err
	}
	return q.Publish()
}

// Stage is Push without telling the driver yet: Publish shows it all that was
// staged at once.
func (q *Queue) Stage(head uint16, written uint32) error {
	at := q.c.Device + 4 + 8*uint64(q.used&(q.c.Size-1))
	if err := q.mem.Store32(at, uint32(head)); err != nil {
		return err
	}
	if err := q.mem.Store32(at+4, written); err != nil {
		return err
	}
	q.used++
	return nil
}

// Publish shows the driver what was staged.
func (q *Queue) Publish() error { return q.mem.Store16(q.c.Device+2, q.used) }

// Interrupt tells, after Push, whether the driver wants to be interrupted for
// what was pushed since the last call (section 2.7.7).
func (q *Queue) Interrupt() (bool, error) {
	old := q.signaled
	if old == q.used {
		return false, nil
	}
	q.signaled = q.used
	if q.c.EventIdx {
		event, err := q.mem.Load16(q.c.Driver + 4 + 2*uint64(q.c.Size))
		return crossed(event, q.used, old), err
	}
	const noInterrupt = 1
	flags, err := q.mem.Load16(q.c.Driver)
	return flags&noInterrupt == 0, err
}

// crossed tells whether an index that went from old to now has passed event:
// vring_need_event of section 2.7.7.1.
func crossed(event, now, old uint16) bool { return now-event-1 < now-old }

// noNotify in the Used Ring's flags asks the driver for no kicks.
const noNotify = 1

// Disarm asks the driver not to kick while the device is at work anyway. It is
// a wish: kicks may still come.
func (q *Queue) Disarm() error {
	if q.c.EventIdx {
		return nil // an avail_event that stands still is passed but once
	}
	return q.mem.Store16(q.c.Device, noNotify)
}

// Arm asks the driver to kick when it makes the next chain available, and tells
// whether there is one already: then there may be no kick for it, and Pop is
// to be called again before sleeping.
func (q *Queue) Arm() (bool, error) {
	var err error
	if q.c.EventIdx {
		err = q.mem.Store16(q.c.Device+4+8*uint64(q.c.Size), q.next)
	} else {
		err = q.mem.Store16(q.c.Device, 0)
	}
	if err != nil {
		return false, err
	}
	// Memory's stores are full barriers: the load below comes after.
	n, err := q.pending()
	return n > 0, err
}
