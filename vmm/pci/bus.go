package pci

import (
	"errors"
	"fmt"
	"sync"
)

var (
	// ErrSlot says that a device number is taken or out of range.
	ErrSlot = errors.New("bad device number")
	// ErrWindow says that the BARs do not fit the windows.
	ErrWindow = errors.New("no room in the MMIO windows")
)

// A Window is a piece of the guest's address space for BARs. Size 0 is none.
type Window struct {
	Base, Size uint64
}

func (w Window) contains(gpa, n uint64) bool {
	return n <= w.Size && gpa >= w.Base && gpa-w.Base <= w.Size-n
}

// A Bus is a root complex: bus 0 with single-function devices, the host bridge as
// device 0, and root ports with a bus behind each. Accesses may come from several
// goroutines at once; Add, AddPorts and Assign are for the maker of the machine, before any.
type Bus struct {
	low, high Window
	slots     [Devices]*slot
	ports     []*RootPort
	mapped    mapping
}

// A slot is one function on the bus.
type slot struct {
	fn  Function
	cfg *Config
	// mu serialises configuration accesses with what follows from them, so
	// that a function sees BARs come and go in the order the guest wrote.
	// Locks of the function and the mapping are taken below it.
	mu sync.Mutex
	at [bars]place

	// Of a card in the slot of a root port:
	port   *RootPort
	hidden bool // guarded by mu: its link is down
	// use is held by each access, as a reader, so that a card that was taken out is
	// known to be left alone. It is taken before mu.
	use  sync.RWMutex
	gone bool // guarded by use
}

// A place is where a BAR answers.
type place struct {
	gpa uint64
	on  bool
}

// NewBus makes a bus with its host bridge. low lies below 4 GiB and takes
// 32-bit BARs, and 64-bit ones that high has no room for.
func NewBus(low, high Window) *Bus {
	b := &Bus{low: low, high: high}
	b.slots[0] = newSlot(newHostBridge())
	return b
}

func newSlot(fn Function) *slot { return &slot{fn: fn, cfg: fn.Config()} }

// Add puts fn at device number device (1 to 31), function 0.
func (b *Bus) Add(device int, fn Function) error {
	if device < 1 || device >= Devices || b.slots[device] != nil || device == PortDevice && len(b.ports) > 0 {
		return fmt.Errorf("add PCI device %d: %w", device, ErrSlot)
	}
	b.slots[device] = newSlot(fn)
	return nil
}

// Assign gives every BAR an address in the windows, as firmware would. Memory
// decoding stays off: the guest's driver turns it on.
func (b *Bus) Assign() error {
	low, high := b.low, b.high
	for dev, s := range b.slots {
		if s == nil {
			continue
		}
		for i, bar := range s.cfg.bar {
			if !bar.used || bar.high {
				continue
			}
			gpa, ok := uint64(0), false
			if bar.Is64 {
				gpa, ok = high.take(bar.Size)
			}
			if !ok {
				gpa, ok = low.take(bar.Size)
			}
			if !ok {
				return fmt.Errorf("assign BAR %d of device %d, %#x bytes: %w", i, dev, bar.Size, ErrWindow)
			}
			s.cfg.setBARAddress(i, gpa)
		}
	}
	return b.assignPorts(&low, &high)
}

// take cuts size aligned bytes off the front of w.
func (w *Window) take(size uint64) (uint64, bool) {
	gpa := (w.Base + size - 1) &^ (size - 1)
	if gpa < w.Base || !w.contains(gpa, size) {
		return 0, false
	}
	skip := gpa + size - w.Base
	w.Base, w.Size = w.Base+skip, w.Size-skip
	return gpa, true
}

// find returns the slot and register that ECAM offset off belongs to, nil where
// nothing answers (section 7.2.2).
func (b *Bus) find(off uint64, n int) (*slot, int) {
	reg := int(off % ConfigSize)
	bus, dev, fn := off/ECAMSize, off/ConfigSize/8%Devices, off/ConfigSize%8
	switch {
	case off >= b.ECAMSize() || reg+n > ConfigSize:
	case bus == 0 && dev == PortDevice && fn < uint64(len(b.ports)):
		return b.ports[fn].s, reg
	case fn != 0:
	case bus == 0:
		return b.slots[dev], reg
	case dev == 0:
		for _, p := range b.ports {
			if card := p.visible.Load(); card != nil && p.behind(bus) {
				return card, reg
			}
		}
	}
	return nil, 0
}

// enter begins an access to s; false says that nothing answers.
func (s *slot) enter() bool {
	if s == nil {
		return false
	}
	s.use.RLock()
	if s.gone {
		s.use.RUnlock()
		return false
	}
	return true
}

func (s *slot) leave() { s.use.RUnlock() }

// Read fills p with what the guest reads at off in ECAM: all ones where nothing
// answers.
func (b *Bus) Read(off uint64, p []byte) {
	s, reg := b.find(off, len(p))
	if !s.enter() {
		Ones(p)
		return
	}
	defer s.leave()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hidden {
		Ones(p)
		return
	}
	s.cfg.read(reg, p)
}

// Write takes what the guest writes at off in ECAM.
func (b *Bus) Write(off uint64, p []byte) {
	s, reg := b.find(off, len(p))
	if !s.enter() {
		return
	}
	defer s.leave()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hidden {
		return
	}
	s.cfg.write(reg, p)
	if port := b.portOf(s); port != nil {
		if overlap(reg, len(p), regCommand, 2) || overlap(reg, len(p), regMemBase, regPrefLimitHigh+4-regMemBase) {
			b.setHidden(port.visible.Load(), false) // its windows may be others, or shut
		}
		return
	}
	if s.cfg.moved.Swap(false) || overlap(reg, len(p), regCommand, 2) || overlap(reg, len(p), regBAR, 4*ROM) || overlap(reg, len(p), regROM, 4) {
		b.remap(s)
	}
}

// portOf is the root port that s is, nil where it is none.
func (b *Bus) portOf(s *slot) *RootPort {
	for _, p := range b.ports {
		if p.s == s {
			return p
		}
	}
	return nil
}

// setHidden makes a card, if there is one, answer or not. Its port's s.mu is held.
func (b *Bus) setHidden(card *slot, hidden bool) {
	if card == nil {
		return
	}
	card.mu.Lock()
	defer card.mu.Unlock()
	card.hidden = hidden
	b.remap(card)
}

// remap makes the BARs of s answer where its registers say. s.mu is held.
func (b *Bus) remap(s *slot) {
	for i, bar := range s.cfg.bar {
		if !bar.used || bar.high {
			continue
		}
		gpa, on := s.cfg.barAddress(i)
		on = on && (b.low.contains(gpa, bar.Size) || b.high.contains(gpa, bar.Size)) && !s.hidden
		on = on && (s.port == nil || s.port.forwards(gpa, bar.Size))
		now, old := place{gpa, on}, s.at[i]
		if now == old {
			continue
		}
		s.at[i] = now
		if old.on {
			b.mapped.remove(s, i)
			s.fn.BARMapped(i, old.gpa, false)
		}
		if now.on {
			b.mapped.add(gpa, bar.Size, s, i)
			s.fn.BARMapped(i, gpa, true)
		}
	}
}

// MMIORead fills p with what the guest reads at gpa, and tells whether a BAR
// answers there.
func (b *Bus) MMIORead(gpa uint64, p []byte) bool {
	m, ok := b.mapped.find(gpa, uint64(len(p)))
	if ok = ok && m.s.enter(); ok {
		defer m.s.leave()
		m.s.fn.BARRead(m.bar, gpa-m.gpa, p)
	} else if b.lingers(gpa, uint64(len(p))) {
		clear(p)
		return true
	}
	return ok
}

// MMIOWrite takes what the guest writes at gpa, and tells whether a BAR answers
// there.
func (b *Bus) MMIOWrite(gpa uint64, p []byte) bool {
	m, ok := b.mapped.find(gpa, uint64(len(p)))
	if ok = ok && m.s.enter(); ok {
		defer m.s.leave()
		m.s.fn.BARWrite(m.bar, gpa-m.gpa, p)
	}
	return ok
}

// Ones fills p with ones: what a read that nobody answers gives.
func Ones(p []byte) {
	for i := range p {
		p[i] = 0xff
	}
}
