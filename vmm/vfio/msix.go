package vfio

import (
	"encoding/binary"
	"fmt"

	"github.com/ashlar-hv/ashlar/vmm/memory"
	"github.com/ashlar-hv/ashlar/vmm/pci"
)

// A msixTable is where table and pending bits of MSI-X are (section 7.7.2). No page that has
// any of them is shown to the guest: the table is emulated, as messages are for KVM to send.
type msixTable struct {
	bar, pendingBAR int
	off, size       uint64 // of the table in its BAR
	pending         uint64 // of the pending bits in theirs
	pendingSize     uint64
}

// setUpMSIX emulates the capability.
func (f *Function) setUpMSIX(off int) error {
	n := int(f.word(off+2))&0x7ff + 1
	if f.dev.irqOf(irqMSIX).count == 0 {
		return nil
	}
	table, pending := binary.LittleEndian.Uint32(f.start[off+4:]), binary.LittleEndian.Uint32(f.start[off+8:])
	t := msixTable{
		bar: int(table & 7), off: uint64(table &^ 7), size: uint64(n) * pci.MSIXEntrySize,
		pendingBAR: int(pending & 7), pending: uint64(pending &^ 7), pendingSize: uint64(n+63) / 64 * 8,
	}
	for _, p := range []struct {
		bar       int
		off, size uint64
	}{{t.bar, t.off, t.size}, {t.pendingBAR, t.pending, t.pendingSize}} {
		if p.bar >= pci.ROM || p.off+p.size > f.dev.regionOf(p.bar).size {
			return fmt.Errorf("MSI-X has %#x bytes at %#x of BAR %d, which has %#x", p.size, p.off, p.bar, f.dev.regionOf(min(p.bar, regionROM)).size)
		}
	}
	f.table = t
	f.cfg.Fixed(off+2, byte(n-1), byte((n-1)>>8))
	var err error
	f.msix, err = pci.NewSourceMSIX(f.cfg, f.c.Router, off, n, f, f.report)
	return err
}

// hidden is the first run of pages of a BAR, from at to before end, that has any of table or
// pending bits; one without a byte at end where there is none.
func (f *Function) hidden(bar int, at, end uint64) area {
	first := area{end, 0}
	if f.msix == nil {
		return first
	}
	t := &f.table
	for _, p := range []struct {
		bar       int
		off, size uint64
	}{{t.bar, t.off, t.size}, {t.pendingBAR, t.pending, t.pendingSize}} {
		from, to := max(p.off&^(memory.PageSize-1), at), min(pageUp(p.off+p.size), end)
		if p.bar == bar && from < to && from < first.off {
			first = area{from, to - from}
		}
	}
	return first
}

// A place is what answers for a byte of a BAR.
type place int

const (
	device place = iota
	tableEntry
	pendingBits
)

// at says what is at off of a BAR, and how many bytes from there on it is.
func (f *Function) at(bar int, off uint64) (place, uint64) {
	if f.msix == nil {
		return device, ^uint64(0)
	}
	t, left := &f.table, ^uint64(0)
	for _, p := range []struct {
		place
		bar       int
		off, size uint64
	}{{tableEntry, t.bar, t.off, t.size}, {pendingBits, t.pendingBAR, t.pending, t.pendingSize}} {
		switch {
		case p.bar != bar || off >= p.off+p.size:
		case off >= p.off:
			return p.place, p.off + p.size - off
		default:
			left = min(left, p.off-off)
		}
	}
	return device, left
}
