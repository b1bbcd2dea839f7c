package vfio

import (
	"errors"
	"fmt"
	"math/bits"

	"github.com/ashlar-hv/ashlar/vmm/memory"
	"github.com/ashlar-hv/ashlar/vmm/pci"
)

const (
	barIO       = 1 << 0
	barType     = 3 << 1
	bar64       = 2 << 1
	barPrefetch = 1 << 3

	// lowBAR is how large a BAR of 64 bits may be that is not prefetchable: behind a root port it has
	// to lie below 4 GiB. A larger one is shown as prefetchable, which is a matter of windows
	// alone on PCI Express (section 7.5.1.2.1).
	lowBAR = 16 << 20

	mostAligned = 1 << 30
)

// A bar is a BAR of memory.
type bar struct {
	used  bool
	size  uint64 // of the device's, which may be smaller than what the guest sees
	maps  []mapping
	parts []part // that the guest reaches directly

	// Of the guest's address space, guarded by mapMu:
	gpa    uint64
	mapped []part // of parts
}

// A part is a piece of a BAR that is shown to the guest.
type part struct {
	area
	host uintptr
	slot uint32
	peer bool // other devices reach it, too
}

// addBARs gives the function the BARs of the device. Those of I/O ports are left out: no
// device of PCI Express needs them.
func (f *Function) addBARs() error {
	for i := 0; i < pci.ROM; i++ {
		r, reg := f.dev.regionOf(i), f.start[regBAR+4*i]
		wide := reg&barIO == 0 && reg&barType == bar64
		if r.size > 0 && reg&barIO == 0 {
			if err := f.addBAR(i, r, wide, reg&barPrefetch != 0); err != nil {
				return err
			}
		}
		if wide {
			i++
		}
	}
	if r := f.dev.regionOf(regionROM); f.c.ROM && r.size > 0 {
		f.bars[pci.ROM] = bar{used: true, size: r.size}
		return f.cfg.AddBAR(pci.ROM, pci.BAR{Size: guestSize(r.size)})
	}
	return nil
}

// guestSize is the size of a BAR as the guest sees it: a page at least, so that KVM can show it.
func guestSize(n uint64) uint64 {
	return max(memory.PageSize, uint64(1)<<min(bits.Len64(n-1), 63))
}

func (f *Function) addBAR(i int, r region, wide, prefetch bool) error {
	size := guestSize(r.size)
	b := pci.BAR{Size: size, Is64: wide, Prefetch: wide && (prefetch || size > lowBAR)}
	if err := f.cfg.AddBAR(i, b); err != nil {
		return err
	}
	f.bars[i] = bar{used: true, size: r.size}
	for _, a := range r.areas {
		if err := f.mapArea(i, a, size); err != nil {
			return fmt.Errorf("BAR %d: %w", i, err)
		}
	}
	return nil
}

// mapArea maps an area of BAR i into this process, and cuts it into parts around the pages
// that are not shown.
func (f *Function) mapArea(i int, a area, size uint64) error {
	b := &f.bars[i]
	m, err := f.dev.mapArea(i, a, min(size, mostAligned))
	if err != nil {
		return err
	}
	b.maps = append(b.maps, m)
	end := pageUp(a.off + a.size)
	for at := a.off; at < end; {
		hole := f.hidden(i, at, end)
		if hole.off > at {
			b.parts = append(b.parts, part{area: area{at, hole.off - at}, host: m.HostAddr() + uintptr(at-a.off)})
		}
		at = hole.off + hole.size
	}
	return nil
}

func pageUp(n uint64) uint64 { return (n + memory.PageSize - 1) &^ (memory.PageSize - 1) }

// BARMapped implements pci.Function. Where something else is in the guest's address space its
// accesses come to this process.
func (f *Function) BARMapped(i int, gpa uint64, mapped bool) {
	f.mapMu.Lock()
	defer f.mapMu.Unlock()
	b := &f.bars[i]
	f.report(f.unmap(b))
	if !mapped || f.shut {
		return
	}
	b.gpa = gpa
	for _, p := range b.parts {
		var err error
		if p.slot, err = f.c.Slots.AddSlot(gpa+p.off, p.size, p.host); err != nil {
			f.report(fmt.Errorf("BAR %d: %w", i, err))
			continue
		}
		if err := f.dev.mapBAR(gpa+p.off, p.size, p.host); err != nil {
			f.report(fmt.Errorf("BAR %d for other devices: %w", i, err))
		} else {
			p.peer = true
		}
		b.mapped = append(b.mapped, p)
	}
}

// unmap takes a BAR out of the guest's address space. mapMu is held.
func (f *Function) unmap(b *bar) error {
	var errs []error
	for _, p := range b.mapped {
		if p.peer {
			errs = append(errs, f.dev.unmapBAR(b.gpa+p.off, p.size))
		}
		errs = append(errs, f.c.Slots.RemoveSlot(p.slot))
	}
	b.mapped = nil
	return errors.Join(errs...)
}

// unmapAll takes all BARs out of the guest's address space: accesses come to this process from
// then on, until the guest moves them; for ever with shut.
func (f *Function) unmapAll(shut bool) error {
	f.mapMu.Lock()
	defer f.mapMu.Unlock()
	f.shut = f.shut || shut
	var errs []error
	for i := range f.bars {
		errs = append(errs, f.unmap(&f.bars[i]))
	}
	return errors.Join(errs...)
}

// closeAreas unmaps the BARs from this process, after unmapAll.
func (f *Function) closeAreas() error {
	f.mapMu.Lock()
	defer f.mapMu.Unlock()
	var errs []error
	for i := range f.bars {
		for _, m := range f.bars[i].maps {
			errs = append(errs, m.Close())
		}
		f.bars[i].maps, f.bars[i].parts = nil, nil
	}
	return errors.Join(errs...)
}

// Faulted takes BARs away from a vCPU that met one which does not answer, and tells whether
// there were any: the device has let go of its memory.
func (f *Function) Faulted() bool {
	f.mapMu.Lock()
	mapped := false
	for i := range f.bars {
		mapped = mapped || len(f.bars[i].mapped) > 0
	}
	f.mapMu.Unlock()
	if !mapped {
		return false
	}
	f.report(f.unmapAll(false))
	return true
}

// BARRead implements pci.Function.
func (f *Function) BARRead(i int, off uint64, b []byte) {
	f.metrics.barReads.Add(1)
	for len(b) > 0 {
		p, n := f.at(i, off)
		n = min(n, uint64(len(b)))
		switch p {
		case tableEntry:
			f.msix.ReadTable(off-f.table.off, b[:n])
		case pendingBits:
			f.msix.ReadPBA(off-f.table.pending, b[:n])
		case device:
			if !f.inside(i, off, n) || !f.with(func() error { return f.dev.read(i, off, b[:n]) }) {
				pci.Ones(b[:n])
			}
		}
		off, b = off+n, b[n:]
	}
}

// BARWrite implements pci.Function.
func (f *Function) BARWrite(i int, off uint64, b []byte) {
	f.metrics.barWrites.Add(1)
	for len(b) > 0 {
		p, n := f.at(i, off)
		n = min(n, uint64(len(b)))
		switch p {
		case tableEntry:
			f.msix.WriteTable(off-f.table.off, b[:n])
		case device:
			if i != pci.ROM && f.inside(i, off, n) {
				f.with(func() error { return f.dev.write(i, off, b[:n]) })
			}
		}
		off, b = off+n, b[n:]
	}
}

// inside tells whether the device has n bytes at off of BAR i: the guest may see more.
func (f *Function) inside(i int, off, n uint64) bool {
	size := f.bars[i].size
	return off < size && n <= size-off
}
