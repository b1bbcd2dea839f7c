// Package queue is the device's side of virtqueues, split and packed (VIRTIO 1.2
// sections 2.7 and 2.8), with indirect descriptors and event index.
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
	// MaxSize is the most entries a queue has (sections 2.7 and 2.8.10.1).
	MaxSize = 32768
	// MaxChain is the most buffers that Pop takes in one chain. It is as many
	// as readv(2) takes in one call.
	MaxChain = 1024
)

var (
	// ErrConfig says that a queue's size or addresses are not allowed.
	ErrConfig = errors.New("bad queue configuration")
	// ErrMalformed says that the driver wrote something into the rings that
	// the specification forbids. The queue is of no use until the device is reset.
	ErrMalformed = errors.New("malformed queue")
)

// A Config is where a queue lies in guest memory. The addresses are those of the
// split queue; the packed one has its Descriptor Ring, Driver Event Suppression and
// Device Event Suppression there.
type Config struct {
	Size   uint16 // entries, up to MaxSize; a power of two where it is split
	Desc   uint64 // Descriptor Table, aligned to 16
	Driver uint64 // Available Ring, aligned to 2 (packed: to 4)
	Device uint64 // Used Ring, aligned to 4
	// EventIdx, Indirect and Packed tell whether VIRTIO_F_EVENT_IDX,
	// VIRTIO_F_INDIRECT_DESC and VIRTIO_F_RING_PACKED were negotiated.
	EventIdx, Indirect, Packed bool
	// Start is where the data path begins: zero, or as restored.
	Start Indexes
}

// Indexes are how far a device has come in a queue. In a packed one they are places
// in the ring, with the highest bit set on every second round.
type Indexes struct {
	Avail uint16 `json:"avail"` // next entry to take
	Used  uint16 `json:"used"`  // next entry to give back
}

// A Queue is one queue. Its methods are called by one goroutine at a time.
type Queue struct {
	r ring
	c Config
}

// A ring is what split and packed queues do in ways of their own.
type ring interface {
	pop(*Chain) (bool, error)
	undo(entries uint16)
	stage(h Head, written uint32) error
	publish() error
	interrupt() (bool, error)
	disarm() error
	arm() (bool, error)
	indexes() Indexes
}

// Check says whether the queue of c lies in mem as the specification wants it.
func (c Config) Check(mem *memory.Memory) error {
	n := uint64(c.Size)
	parts := []struct {
		name        string
		gpa, n, mod uint64
	}{
		{"descriptor table", c.Desc, descSize * n, 16},
		{"available ring", c.Driver, 6 + 2*n, 2},
		{"used ring", c.Device, 6 + 8*n, 4},
	}
	if c.Packed {
		parts[1].n, parts[1].mod = eventSize, eventSize
		parts[2].n, parts[2].mod = eventSize, eventSize
	}
	if n == 0 || n > MaxSize || n&(n-1) != 0 && !c.Packed {
		return fmt.Errorf("queue of %d entries: %w", c.Size, ErrConfig)
	}
	for _, p := range parts {
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
	if !c.Packed {
		return &Queue{newSplit(mem, c), c}, nil
	}
	r, err := newPacked(mem, c)
	if err != nil {
		return nil, err
	}
	return &Queue{r, c}, nil
}

// Size is the number of entries.
func (q *Queue) Size() uint16 { return q.c.Size }

// Indexes are how far the queue is, for Config.Start of its next life.
func (q *Queue) Indexes() Indexes { return q.r.indexes() }

// Pop takes the next chain that the driver has made available into c, and
// tells whether there was one. After an error nothing more can be taken.
func (q *Queue) Pop(c *Chain) (bool, error) {
	c.empty()
	ok, err := q.r.pop(c)
	if !ok || err != nil {
		c.empty()
	}
	return ok, err
}

// Undo gives back chains that Pop took last and that were not pushed: the next Pop
// takes the first of them again.
func (q *Queue) Undo(chains ...Chain) {
	for i := range chains {
		q.r.undo(chains[i].Head.Entries)
	}
}

// Push gives a chain back to the driver, with the first written bytes of its
// writable buffers filled (sections 2.7.8 and 2.8.6).
func (q *Queue) Push(h Head, written uint32) error {
	if err := q.r.stage(h, written); err != nil {
		return err
	}
	return q.r.publish()
}

// Stage is Push without telling the driver yet: Publish shows it all that was
// staged at once.
func (q *Queue) Stage(h Head, written uint32) error { return q.r.stage(h, written) }

// Publish shows the driver what was staged.
func (q *Queue) Publish() error { return q.r.publish() }

// Interrupt tells, after Push, whether the driver wants to be interrupted for
// what was pushed since the last call (sections 2.7.7 and 2.8.7).
func (q *Queue) Interrupt() (bool, error) { return q.r.interrupt() }

// Disarm asks the driver not to kick while the device is at work anyway. It is
// a wish: kicks may still come.
func (q *Queue) Disarm() error { return q.r.disarm() }

// Arm asks the driver to kick when it makes the next chain available, and tells
// whether there is one already: then there may be no kick for it, and Pop is
// to be called again before sleeping.
func (q *Queue) Arm() (bool, error) { return q.r.arm() }

// crossed tells whether an index that went from old to now has passed event:
// vring_need_event of section 2.7.7.1.
func crossed(event, now, old uint16) bool { return now-event-1 < now-old }
