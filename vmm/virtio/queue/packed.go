package queue

import (
	"fmt"

	"github.com/ashlar-hv/ashlar/vmm/memory"
)

// Flags of a packed descriptor besides those it shares with the split one (section
// 2.8.1), and values of the flags of an event suppression structure (section 2.8.10).
const (
	flagAvail = 1 << 7
	flagUsed  = 1 << 15

	eventSize    = 4
	eventEnable  = 0
	eventDisable = 1
	eventDesc    = 2
	eventFlags   = 3 // their mask

	// secondRound is the bit of Indexes, and of the offset in an event suppression
	// structure, for the wrap counter: there it is the counter, here its opposite, so
	// that zero is the beginning.
	secondRound = 1 << 15
)

// A place is an entry of the ring, and whether the round is one in which the wrap
// counter is 0.
type place struct {
	at     uint16
	second bool
}

func placeOf(index uint16) place { return place{index &^ secondRound, index&secondRound != 0} }

func (p place) index() uint16 {
	if p.second {
		return p.at | secondRound
	}
	return p.at
}

// on is the place n entries on, n up to size.
func (p place) on(n, size uint16) place {
	at := uint32(p.at) + uint32(n)
	if at < uint32(size) {
		return place{uint16(at), p.second}
	}
	return place{uint16(at - uint32(size)), !p.second}
}

// back is the place n entries before, n up to size.
func (p place) back(n, size uint16) place {
	if p.at >= n {
		return place{p.at - n, p.second}
	}
	return place{uint16(uint32(p.at) + uint32(size) - uint32(n)), !p.second}
}

// A packed is the ring of a packed queue (section 2.8).
type packed struct {
	walker
	c Config

	next place // next entry to take
	used place // next entry to give back

	unpublished bool   // whether something was staged that publish is to show
	first       uint64 // where that begins: the flags there are written last
	firstFlags  uint16
	pushed      uint32 // entries given back since the last interrupt decision
}

func newPacked(mem *memory.Memory, c Config) (*packed, error) {
	p := &packed{
		walker: walker{mem: mem, indirect: c.Indirect, packed: true}, c: c,
		next: placeOf(c.Start.Avail), used: placeOf(c.Start.Used),
	}
	if p.next.at >= c.Size || p.used.at >= c.Size {
		return nil, fmt.Errorf("start at entries %d and %d of %d: %w", p.next.at, p.used.at, c.Size, ErrConfig)
	}
	return p, nil
}

func (p *packed) indexes() Indexes { return Indexes{Avail: p.next.index(), Used: p.used.index()} }

// available tells whether the entry at a is the driver's to give, and its flags. What
// else is in it is to be read after that.
func (p *packed) available(a place) (flags uint16, ok bool, err error) {
	flags, err = p.mem.Load16(p.c.Desc + descSize*uint64(a.at) + 14)
	want := uint16(flagAvail)
	if a.second {
		want = flagUsed
	}
	return flags, flags&(flagAvail|flagUsed) == want, err
}

func (p *packed) pop(c *Chain) (bool, error) {
	w, at := walk{walker: &p.walker, c: c}, p.next
	for n := uint16(1); n <= p.c.Size; n++ {
		flags, ok, err := p.available(at)
		if err != nil {
			return false, err
		}
		if !ok {
			if n == 1 {
				return false, nil
			}
			return false, fmt.Errorf("chain at entry %d goes on in one that is not available: %w", p.next.at, ErrMalformed)
		}
		d, err := p.descriptor(p.c.Desc + descSize*uint64(at.at))
		if err != nil {
			return false, err
		}
		d.flags = flags // those that said so, whatever stands there now
		if err := w.entry(d); err != nil {
			return false, fmt.Errorf("chain at entry %d: %w", p.next.at, err)
		}
		at = at.on(1, p.c.Size)
		if flags&flagNext == 0 {
			c.Head = Head{ID: d.id, Entries: n}
			p.next = at
			return true, nil
		}
	}
	return false, fmt.Errorf("chain is longer than %d descriptors: %w", p.c.Size, ErrMalformed)
}

func (p *packed) undo(entries uint16) { p.next = p.next.back(entries, p.c.Size) }

func (p *packed) stage(h Head, written uint32) error {
	at := p.c.Desc + descSize*uint64(p.used.at)
	if err := p.mem.Store32(at+8, written); err != nil {
		return err
	}
	if err := p.mem.Store16(at+12, h.ID); err != nil {
		return err
	}
	flags := uint16(0)
	if !p.used.second {
		flags = flagAvail | flagUsed
	}
	if written > 0 {
		flags |= flagWrite // the driver is to look at the length
	}
	if p.unpublished {
		if err := p.mem.Store16(at+14, flags); err != nil {
			return err
		}
	} else {
		p.unpublished, p.first, p.firstFlags = true, at+14, flags
	}
	p.used = p.used.on(h.Entries, p.c.Size)
	p.pushed += uint32(h.Entries)
	return nil
}

// publish writes the flags that the driver looks at first: it sees nothing of what
// was staged behind them before.
func (p *packed) publish() error {
	if !p.unpublished {
		return nil
	}
	p.unpublished = false
	return p.mem.Store16(p.first, p.firstFlags)
}

func (p *packed) interrupt() (bool, error) {
	n := p.pushed
	if n == 0 {
		return false, nil
	}
	p.pushed = 0
	event, err := p.mem.Load32(p.c.Driver)
	if err != nil {
		return false, err
	}
	switch event >> 16 & eventFlags {
	case eventDisable:
		return false, nil
	case eventDesc:
		if !p.c.EventIdx || n >= uint32(p.c.Size) {
			return true, nil
		}
		at := uint16(event) &^ secondRound
		if (uint16(event)&secondRound == 0) != p.used.second {
			at -= p.c.Size // of the round before
		}
		return crossed(at, p.used.at, p.used.at-uint16(n)), nil
	default:
		return true, nil
	}
}

func (p *packed) disarm() error { return p.mem.Store32(p.c.Device, eventDisable<<16) }

func (p *packed) arm() (bool, error) {
	event := uint32(eventEnable) << 16
	if p.c.EventIdx {
		event = eventDesc<<16 | uint32(p.next.index()^secondRound)
	}
	if err := p.mem.Store32(p.c.Device, event); err != nil {
		return false, err
	}
	// Memory's stores are full barriers: the load below comes after.
	_, ok, err := p.available(p.next)
	return ok, err
}
