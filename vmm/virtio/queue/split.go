package queue

import (
	"fmt"

	"github.com/ashlar-hv/ashlar/vmm/memory"
)

// A split is the ring of a split queue (section 2.7).
type split struct {
	walker
	c Config

	next     uint16 // next entry of the Available Ring to take
	used     uint16 // next entry of the Used Ring to fill
	signaled uint16 // value of used at the last interrupt decision
}

func newSplit(mem *memory.Memory, c Config) *split {
	return &split{
		walker: walker{mem: mem, indirect: c.Indirect}, c: c,
		next: c.Start.Avail, used: c.Start.Used, signaled: c.Start.Used,
	}
}

func (s *split) indexes() Indexes { return Indexes{Avail: s.next, Used: s.used} }

// pending is how many chains the driver has made available and pop not taken.
func (s *split) pending() (uint16, error) {
	idx, err := s.mem.Load16(s.c.Driver + 2)
	if err != nil {
		return 0, err
	}
	n := idx - s.next
	if n > s.c.Size {
		return 0, fmt.Errorf("available index %d is %d ahead of %d entries: %w", idx, n, s.c.Size, ErrMalformed)
	}
	return n, nil
}

func (s *split) pop(c *Chain) (bool, error) {
	n, err := s.pending()
	if err != nil || n == 0 {
		return false, err
	}
	head, err := s.mem.Load16(s.c.Driver + 4 + 2*uint64(s.next&(s.c.Size-1)))
	if err != nil {
		return false, err
	}
	if head >= s.c.Size {
		return false, fmt.Errorf("available ring names descriptor %d of %d: %w", head, s.c.Size, ErrMalformed)
	}
	w := walk{walker: &s.walker, c: c}
	if err := w.table(s.c.Desc, s.c.Size, head, false); err != nil {
		return false, fmt.Errorf("chain at descriptor %d: %w", head, err)
	}
	c.Head = Head{ID: head, Entries: 1}
	s.next++
	return true, nil
}

func (s *split) undo(entries uint16) { s.next -= entries }

func (s *split) stage(h Head, written uint32) error {
	at := s.c.Device + 4 + 8*uint64(s.used&(s.c.Size-1))
	if err := s.mem.Store32(at, uint32(h.ID)); err != nil {
		return err
	}
	if err := s.mem.Store32(at+4, written); err != nil {
		return err
	}
	s.used++
	return nil
}

func (s *split) publish() error { return s.mem.Store16(s.c.Device+2, s.used) }

func (s *split) interrupt() (bool, error) {
	old := s.signaled
	if old == s.used {
		return false, nil
	}
	s.signaled = s.used
	if s.c.EventIdx {
		event, err := s.mem.Load16(s.c.Driver + 4 + 2*uint64(s.c.Size))
		return crossed(event, s.used, old), err
	}
	const noInterrupt = 1
	flags, err := s.mem.Load16(s.c.Driver)
	return flags&noInterrupt == 0, err
}

// noNotify in the Used Ring's flags asks the driver for no kicks.
const noNotify = 1

func (s *split) disarm() error {
	if s.c.EventIdx {
		return nil // an avail_event that stands still is passed but once
	}
	return s.mem.Store16(s.c.Device, noNotify)
}

func (s *split) arm() (bool, error) {
	var err error
	if s.c.EventIdx {
		err = s.mem.Store16(s.c.Device+4+8*uint64(s.c.Size), s.next)
	} else {
		err = s.mem.Store16(s.c.Device, 0)
	}
	if err != nil {
		return false, err
	}
	// Memory's stores are full barriers: the load below comes after.
	n, err := s.pending()
	return n > 0, err
}
