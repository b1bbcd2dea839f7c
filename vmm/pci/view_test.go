package pci_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/pci"
	"github.com/ashlar-hv/ashlar/vmm/pci/pcitest"
)

// page is a View, and what it was asked.
type page struct {
	b    [pci.ConfigSize]byte
	open bool
	err  error
}

func (p *page) Page() *[pci.ConfigSize]byte { return &p.b }
func (p *page) Open() error                 { p.open = true; return p.err }

// What the guest reads by itself is what the Bus has it read, also after it wrote.
func TestShow(t *testing.T) {
	f := newFunction(t, map[int]pci.BAR{0: {Size: 4096}})
	b := newBus(t, f)
	own := newFunction(t, nil)
	own.cfg.Hook(0x40, 4, nil, func() {}) // something comes of reading it
	must(t, b.Add(2, own))
	ahead, reads := newFunction(t, nil), 0
	must(t, ahead.cfg.SetWritable(0x40, 0xff, 0, 0, 0, 0))
	ahead.cfg.HookAhead(0x44, 1, 0x40, 1, nil, func() { reads++; ahead.cfg.SetBytes(0x44, []byte{byte(reads)}) })
	must(t, b.Add(3, ahead))
	must(t, b.AddPorts(2, new(pcitest.Router), nil))
	want := []uint64{0, slot1, 3 * slot1, 31 * slot1, 31*slot1 + pci.ConfigSize}
	if n := b.Plain(); n != len(want) {
		t.Errorf("%d functions can be shown, want %d", n, len(want))
	}

	pages := make(map[uint64]*page)
	var order []uint64
	must(t, b.Show(func(off uint64) (pci.View, error) {
		order = append(order, off)
		pages[off] = new(page)
		return pages[off], nil
	}))
	if !slices.Equal(order, want) {
		t.Fatalf("shown are %#x, want %#x", order, want)
	}
	same := func(what string) {
		t.Helper()
		for off, p := range pages {
			var got [pci.ConfigSize]byte
			b.Read(off, got[:256])
			if !p.open || !bytes.Equal(got[:256], p.b[:256]) {
				t.Errorf("%s: the guest reads % x by itself at %#x, want % x", what, p.b[:256], off, got[:256])
			}
		}
	}
	same("at the start")
	write(b, slot1+0x10, 4, 0xffffffff)
	if got := pages[slot1].b[0x10:0x14]; !bytes.Equal(got, []byte{0, 0xf0, 0xff, 0xff}) {
		t.Errorf("a BAR of 4 KiB is % x after ones were written", got)
	}
	write(b, slot1+0x10, 4, lowBase)
	write(b, slot1+4, 2, 2)
	if len(f.events) != 1 {
		t.Errorf("BARs came and went %q", f.events)
	}
	same("after writes")

	reads = 0
	write(b, 3*slot1+0x40, 1, 7)
	if got := pages[3*slot1].b[0x44]; got != 1 {
		t.Errorf("what is read in advance is %d, want 1", got)
	}
	write(b, 3*slot1+4, 2, 2)
	if reads != 1 {
		t.Errorf("read in advance %d times, after one write", reads)
	}
}

func TestShowFails(t *testing.T) {
	wrong := errors.New("no page")
	for _, at := range []func(uint64) (pci.View, error){
		func(uint64) (pci.View, error) { return nil, wrong },
		func(uint64) (pci.View, error) { return &page{err: wrong}, nil },
	} {
		if err := newBus(t, newFunction(t, nil)).Show(at); !errors.Is(err, wrong) {
			t.Errorf("Show() = %v, want %v", err, wrong)
		}
	}
}
