// Package cpus is the register block by which a guest's processors come and go while it
// runs. The layout is this project's own; package acpi has it, and the AML that uses it
// for the methods of ACPI 6.5 (sections 5.6.6, 6.3 and 8.4).
//
// | offset | bytes | read | written |
// | --- | --- | --- | --- |
// | 0 | 4 | the processor selected | selects one, counted from 0 |
// | 4 | 1 | bit 0: it is there; bit 1: it has come; bit 2: it is to go | bits 1, 2: a one clears; bit 3: a one takes it away |
// | 8 | 4 | 0 | event that _OST reports on |
// | 12 | 4 | 0 | status that it reports, of the event written before |
//
// The first processor always stays. Nobody takes one away from a guest but the guest:
// it is asked, and answers when it wants to.
package cpus

import (
	"encoding/binary"
	"sync"

	"github.com/ashlar-hv/ashlar/vmm/acpi"
)

// A Config is what a Block switches.
type Config struct {
	Count   int // processors that there may be, at least 1
	Present int // of these, from the first on, that are there
	// Start and Stop switch a processor on and off; Raise tells the guest that there is
	// something to see. None may call the Block.
	Start, Stop func(cpu int)
	Raise       func()
}

// A Block is the registers. It implements device.Ports.
type Block struct {
	c        Config
	mu       sync.Mutex
	cpus     []cpu // guarded by mu, as all below
	selected uint32
	event    uint32 // what _OST has said first
	target   int
}

// A cpu is a processor as the guest is to see it.
type cpu struct {
	present bool
	insert  bool // events that the guest has not cleared
	remove  bool
	asked   bool // it was asked to give it up, and has not answered
	again   bool // and it is wanted after all: once given up it comes back
	refused bool // the guest has said that it keeps it
}

// New makes the registers.
func New(c Config) *Block {
	b := &Block{c: c, cpus: make([]cpu, max(c.Count, 1)), target: c.Present}
	for i := range b.cpus {
		b.cpus[i].present = i < max(c.Present, 1)
	}
	return b
}

// SetTarget asks for n processors, 1 to Count: those that are missing come at once, and
// the guest is asked to give up the highest ones that are too many.
func (b *Block) SetTarget(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.target = n
	for i := range b.cpus {
		if i < n {
			b.want(i)
		} else {
			b.spare(i)
		}
	}
	b.c.Raise()
}

// want makes processor i come, or stay; mu is held.
func (b *Block) want(i int) {
	c := &b.cpus[i]
	switch {
	case !c.present:
		*c = cpu{present: true, insert: true}
		b.c.Start(i)
	case c.remove: // the guest has not looked
		c.remove, c.asked = false, false
	case c.asked:
		c.again = true
	}
	c.refused = false
}

// spare asks for processor i; mu is held.
func (b *Block) spare(i int) {
	if c := &b.cpus[i]; c.present {
		c.remove, c.asked, c.again, c.refused = true, true, false, false
	}
}

// A State says how many processors there are.
type State struct {
	Present int // there now
	Highest int // of these, counted from 1: others may be missing below
	Target  int // asked for last
	Refused int // those too many that the guest has said it keeps
}

// State is how it is now.
func (b *Block) State() State {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := State{Target: b.target}
	for i, c := range b.cpus {
		if c.present {
			s.Present++
			s.Highest = i + 1
		}
		if c.present && c.refused {
			s.Refused++
		}
	}
	return s
}

// chosen is the processor selected, or nil; mu is held.
func (b *Block) chosen() *cpu {
	if uint64(b.selected) >= uint64(len(b.cpus)) {
		return nil
	}
	return &b.cpus[b.selected]
}

// status is how the control register reads.
func (c *cpu) status() (v byte) {
	if c.present {
		v |= acpi.CPUEnabled
	}
	if c.insert {
		v |= acpi.CPUInsert
	}
	if c.remove {
		v |= acpi.CPURemove
	}
	return v
}

// In implements device.Ports.
func (b *Block) In(port uint16, p []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var r [acpi.CPUsSize]byte
	binary.LittleEndian.PutUint32(r[acpi.CPUSelect:], b.selected)
	if c := b.chosen(); c != nil {
		r[acpi.CPUControl] = c.status()
	}
	copy(p, r[port:])
}

// Out implements device.Ports. A write that is not of a whole register is lost.
func (b *Block) Out(port uint16, p []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if port == acpi.CPUControl && len(p) == 1 {
		b.control(p[0])
		return
	}
	if len(p) != 4 {
		return
	}
	v := binary.LittleEndian.Uint32(p)
	switch port {
	case acpi.CPUSelect:
		b.selected = v
	case acpi.CPUOSTEvent:
		b.event = v
	case acpi.CPUOSTStatus:
		b.report(v)
	}
}

// control follows a write to the control register; mu is held.
func (b *Block) control(v byte) {
	c := b.chosen()
	if c == nil {
		return
	}
	if v&acpi.CPUInsert != 0 {
		c.insert = false
	}
	if v&acpi.CPURemove != 0 {
		c.remove = false
	}
	if v&acpi.CPUEject == 0 || !c.present || b.selected == 0 {
		return
	}
	again := c.again
	*c = cpu{}
	b.c.Stop(int(b.selected))
	if again {
		b.want(int(b.selected))
		b.c.Raise()
	}
}

// report takes what the guest says of an event, as _OST has it (section 6.3.5): one that
// it cannot give up is no longer asked for. mu is held.
func (b *Block) report(status uint32) {
	c := b.chosen()
	if c == nil || b.event != acpi.NotifyEjectRequest || status == acpi.OSTSuccess || status == acpi.OSTEjectInProgress {
		return
	}
	c.refused = c.asked && !c.again
	c.asked, c.again = false, false
}
