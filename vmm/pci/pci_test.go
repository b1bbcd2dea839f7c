package pci_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ashlar-hv/ashlar/vmm/pci"
	"github.com/ashlar-hv/ashlar/vmm/pci/pcitest"
)

// A function is one with BARs that notes what the bus tells it.
type function struct {
	cfg    *pci.Config
	events []string
	bar    [64]byte
}

func newFunction(t testing.TB, bars map[int]pci.BAR) *function {
	t.Helper()
	f := &function{cfg: pci.NewConfig(pci.Identity{
		Vendor: 0x1234, Device: 0x5678, SubVendor: 0x9abc, SubDevice: 0xdef0, Revision: 7, Class: pci.ClassEthernet,
	})}
	for i, b := range bars {
		must(t, f.cfg.AddBAR(i, b))
	}
	return f
}

func (f *function) Config() *pci.Config { return f.cfg }

func (f *function) BARRead(bar int, off uint64, b []byte) { copy(b, f.bar[off%64:]) }

func (f *function) BARWrite(bar int, off uint64, b []byte) { copy(f.bar[off%64:], b) }

func (f *function) BARMapped(bar int, gpa uint64, mapped bool) {
	f.events = append(f.events, fmt.Sprintf("%d %#x %v", bar, gpa, mapped))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const (
	lowBase  = 0xe0000000
	highBase = 1 << 40
)

func newBus(t testing.TB, f *function) *pci.Bus {
	t.Helper()
	b := pci.NewBus(pci.Window{Base: lowBase, Size: 1 << 20}, pci.Window{Base: highBase, Size: 1 << 30})
	must(t, b.Add(1, f))
	must(t, b.Assign())
	return b
}

const slot1 = 1 << 15

func read(b *pci.Bus, off uint64, n int) uint64 {
	var p [8]byte
	b.Read(off, p[:n])
	return binary.LittleEndian.Uint64(p[:])
}

func write(b *pci.Bus, off uint64, n int, v uint64) {
	b.Write(off, binary.LittleEndian.AppendUint64(nil, v)[:n])
}

func TestConfigReads(t *testing.T) {
	b := newBus(t, newFunction(t, nil))
	for _, tt := range []struct {
		name string
		off  uint64
		n    int
		want uint64
	}{
		{"host bridge", 0, 4, 0x00081b36},
		{"host bridge's class", 8, 4, 0x06000000},
		{"identity", slot1, 4, 0x56781234},
		{"identity, 8 bytes", slot1, 8, 0x56781234},
		{"device, 2 bytes", slot1 + 2, 2, 0x5678},
		{"device, high byte", slot1 + 3, 1, 0x56},
		{"class and revision", slot1 + 8, 4, 0x02000007},
		{"subsystem", slot1 + 0x2c, 4, 0xdef09abc},
		{"extended space", slot1 + 0x100, 4, 0},
		{"no device", 2 << 15, 4, 0xffffffff},
		{"no device, 8 bytes", 2 << 15, 8, 1<<64 - 1},
		{"function 1", slot1 + 4096, 4, 0xffffffff},
		{"across functions", slot1 + 4092, 8, 1<<64 - 1},
		{"past the bus", pci.ECAMSize, 4, 0xffffffff},
		{"far past the bus", 1<<64 - 4, 4, 0xffffffff},
	} {
		if got := read(b, tt.off, tt.n); got != tt.want {
			t.Errorf("%s: %#x, want %#x", tt.name, got, tt.want)
		}
	}
}

func TestConfigWrites(t *testing.T) {
	b := newBus(t, newFunction(t, nil))
	for _, tt := range []struct {
		name string
		off  uint64
		n    int
		v    uint64
		at   uint64
		want uint64
	}{
		{"identity stays", 0, 4, 0, 0, 0x56781234},
		{"command's bits", 4, 2, 0xffff, 4, 0x0546},
		{"status stays", 6, 2, 0xffff, 6, 0},
		{"interrupt line", 0x3c, 1, 9, 0x3c, 9},
		{"interrupt pin stays", 0x3d, 1, 9, 0x3d, 0},
		{"absent BAR stays", 0x10, 4, 0xffffffff, 0x10, 0},
		{"ROM stays", 0x30, 4, 0xffffffff, 0x30, 0},
		{"no function", 4096, 4, 0, 4096, 0xffffffff},
	} {
		write(b, slot1+tt.off, tt.n, tt.v)
		n := tt.n
		if got := read(b, slot1+tt.at, n); got != tt.want {
			t.Errorf("%s: %#x, want %#x", tt.name, got, tt.want)
		}
	}
}

func TestBARs(t *testing.T) {
	f := newFunction(t, map[int]pci.BAR{
		0: {Size: 0x4000, Is64: true}, 2: {Size: 0x1000}, 4: {Size: 0x8000, Is64: true, Prefetch: true},
	})
	b := newBus(t, f)
	for reg, want := range map[uint64]uint64{
		0x10: highBase&0xffffffff | 4, 0x14: highBase >> 32, 0x18: lowBase,
		0x1c: 0, 0x20: 0x8000 | 0xc, 0x24: highBase >> 32,
	} {
		if got := read(b, slot1+reg, 4); got != want {
			t.Errorf("register %#x after Assign = %#x, want %#x", reg, got, want)
		}
	}
	// Sizing, as a driver does it.
	write(b, slot1+0x10, 4, 0xffffffff)
	write(b, slot1+0x14, 4, 0xffffffff)
	if lo, hi := read(b, slot1+0x10, 4), read(b, slot1+0x14, 4); lo != 0xffffc004 || hi != 0xffffffff {
		t.Errorf("size of BAR 0: %#x %#x", lo, hi)
	}
	write(b, slot1+0x10, 4, highBase&0xffffffff)
	write(b, slot1+0x14, 4, highBase>>32)
	if f.events != nil {
		t.Errorf("mapped with decoding off: %v", f.events)
	}
	p := make([]byte, 4)
	if b.MMIORead(lowBase, p) {
		t.Error("a BAR answers with decoding off")
	}

	write(b, slot1+4, 2, 2) // on
	write(b, slot1+0x18, 4, lowBase+0x3000)
	write(b, slot1+0x18, 4, 0x1000) // out of the window
	write(b, slot1+0x18, 4, lowBase+0x5000)
	write(b, slot1+4, 2, 0) // off
	want := []string{
		"0 0x10000000000 true", "2 0xe0000000 true", "4 0x10000008000 true",
		"2 0xe0000000 false", "2 0xe0003000 true",
		"2 0xe0003000 false",
		"2 0xe0005000 true",
		"0 0x10000000000 false", "2 0xe0005000 false", "4 0x10000008000 false",
	}
	if d := cmp.Diff(want, f.events); d != "" {
		t.Error(d)
	}
}

func TestMMIO(t *testing.T) {
	f := newFunction(t, map[int]pci.BAR{2: {Size: 0x1000}})
	b := newBus(t, f)
	write(b, slot1+4, 2, 2)
	if !b.MMIOWrite(lowBase+8, []byte{1, 2, 3, 4}) {
		t.Error("write was not taken")
	}
	p := make([]byte, 2)
	if !b.MMIORead(lowBase+9, p) || !bytes.Equal(p, []byte{2, 3}) {
		t.Errorf("read %v, want 2 3", p)
	}
	for _, gpa := range []uint64{lowBase - 1, lowBase + 0xfff, lowBase + 0x1000, 0, 1<<64 - 1} {
		if b.MMIORead(gpa, p) || b.MMIOWrite(gpa, p) {
			t.Errorf("access of 2 bytes at %#x was taken", gpa)
		}
	}
}

func TestAdd(t *testing.T) {
	b := newBus(t, newFunction(t, nil))
	for _, dev := range []int{-1, 0, 1, 32} {
		if err := b.Add(dev, newFunction(t, nil)); !errors.Is(err, pci.ErrSlot) {
			t.Errorf("Add(%d) = %v, want ErrSlot", dev, err)
		}
	}
	must(t, b.Add(2, newFunction(t, map[int]pci.BAR{0: {Size: 1 << 31}})))
	if err := b.Assign(); !errors.Is(err, pci.ErrWindow) {
		t.Errorf("Assign of a BAR over the window = %v, want ErrWindow", err)
	}
}

func TestBARRefused(t *testing.T) {
	f := newFunction(t, map[int]pci.BAR{0: {Size: 0x1000, Is64: true}})
	for _, tt := range []struct {
		i int
		b pci.BAR
	}{
		{1, pci.BAR{Size: 0x1000}}, {0, pci.BAR{Size: 0x1000}}, {7, pci.BAR{Size: 0x1000}},
		{pci.ROM, pci.BAR{Size: 0x1000, Is64: true}}, {pci.ROM, pci.BAR{Size: 0x1000, Prefetch: true}},
		{5, pci.BAR{Size: 0x1000, Is64: true}}, {2, pci.BAR{Size: 0x1800}}, {2, pci.BAR{Size: 16}},
		{2, pci.BAR{Size: 1 << 32}}, {-1, pci.BAR{Size: 0x1000}},
	} {
		if err := f.cfg.AddBAR(tt.i, tt.b); !errors.Is(err, pci.ErrConfigSpace) {
			t.Errorf("AddBAR(%d, %+v) = %v, want ErrConfigSpace", tt.i, tt.b, err)
		}
	}
}

func TestCapabilities(t *testing.T) {
	f := newFunction(t, nil)
	must(t, f.cfg.AddExpress()) // not to be seen on the root bus
	first, err := f.cfg.AddCapability(pci.CapMSI, []byte{1, 2, 3}, nil)
	must(t, err)
	off, err := f.cfg.AddCapability(pci.CapVendor, []byte{5, 0x11, 0x22}, []byte{0, 0xf0})
	must(t, err)
	if _, err := f.cfg.AddCapability(pci.CapVendor, make([]byte, 200), nil); !errors.Is(err, pci.ErrConfigSpace) {
		t.Errorf("capability of 200 bytes: %v, want ErrConfigSpace", err)
	}
	b := newBus(t, f)
	if s := read(b, slot1+6, 2); s != 0x10 {
		t.Errorf("status = %#x, want 0x10", s)
	}
	at := read(b, slot1+0x34, 1)
	if id, body := read(b, slot1+at, 1), read(b, slot1+at+2, 2); int(at) != first || id != pci.CapMSI || body != 0x201 {
		t.Errorf("first capability %#x at %#x, with %#x; want the one at %#x", id, at, body, first)
	}
	at = read(b, slot1+at+1, 1)
	if int(at) != off || read(b, slot1+at, 1) != pci.CapVendor || read(b, slot1+at+1, 1) != 0 {
		t.Errorf("second capability at %#x, want a last one at %#x", at, off)
	}
	write(b, slot1+at, 4, 0xffffffff)
	if v := read(b, slot1+at, 4); v != 0xf1050009 {
		t.Errorf("second capability after a write = %#x", v)
	}
}

// msix makes a function with n vectors, table at 0 and pending bits at 0x800.
func msix(t testing.TB, n int) (*pci.MSIX, *pcitest.Router, *pci.Bus, *[]error) {
	t.Helper()
	f := newFunction(t, map[int]pci.BAR{0: {Size: 0x1000}})
	var r pcitest.Router
	errs := new([]error)
	m, err := pci.NewMSIX(f.cfg, &r, n, 0, 0, 0x800, func(err error) { *errs = append(*errs, err) })
	must(t, err)
	t.Cleanup(func() { must(t, m.Close()) })
	return m, &r, newBus(t, f), errs
}

const control = slot1 + 0x42 // Message Control of the first capability

func put(m *pci.MSIX, off uint64, v uint64, n int) {
	m.WriteTable(off, binary.LittleEndian.AppendUint64(nil, v)[:n])
}

func TestMSIX(t *testing.T) {
	m, r, b, errs := msix(t, 2)
	if v := read(b, control, 2); v != 1 {
		t.Errorf("Message Control = %#x, want 1: two vectors", v)
	}
	v := r.Vectors[1]
	state := func(step string, address uint64, data uint32, masked bool) {
		t.Helper()
		if a, d, k := v.Message(); a != address || d != data || k != masked {
			t.Errorf("%s: message %#x %#x, masked %v; want %#x %#x, %v", step, a, d, k, address, data, masked)
		}
	}
	put(m, 16, 0xfee01000, 8) // 64 bits at once
	put(m, 24, 0x41, 4)
	put(m, 28, 0, 4)
	state("with MSI-X off", 0, 0, true)
	write(b, control, 2, 0xc000)
	state("with the function masked", 0, 0, true)
	write(b, control, 2, 0x8000)
	state("enabled", 0xfee01000, 0x41, false)
	put(m, 24, 0x42, 4)
	state("data changed while open", 0xfee01000, 0x42, false)
	put(m, 28, 0xffffffff, 4)
	state("masked", 0xfee01000, 0x42, true)
	var e [16]byte
	m.ReadTable(16, e[:])
	if c := binary.LittleEndian.Uint32(e[12:]); c != 1 {
		t.Errorf("Vector Control = %#x, want 1: the rest is reserved", c)
	}
	put(m, 24, 0x43, 1) // a byte
	put(m, 28, 0, 1)
	state("open again", 0xfee01000, 0x43, false)
	if len(*errs) != 0 {
		t.Errorf("reported %v", *errs)
	}
	put(m, 16, 0x12345678, 4) // no MSI address
	state("bad address", 0xfee01000, 0x43, true)
	if len(*errs) != 1 || !errors.Is((*errs)[0], pcitest.ErrMessage) {
		t.Errorf("reported %v, want ErrMessage", *errs)
	}
	write(b, control, 2, 0)
	state("disabled", 0xfee01000, 0x43, true)
	if a, _, masked := r.Vectors[0].Message(); a != 0 || !masked {
		t.Errorf("vector 0 was touched: %#x, %v", a, masked)
	}
}

func TestPending(t *testing.T) {
	m, r, b, _ := msix(t, 70)
	signal := func(i int) {
		t.Helper()
		_, err := r.Vectors[i].EventFD().Write(binary.NativeEndian.AppendUint64(nil, 1))
		must(t, err)
	}
	signal(3)
	signal(69)
	var p [16]byte
	m.ReadPBA(0, p[:])
	if want := [16]byte{0: 8, 8: 1 << 5}; p != want {
		t.Errorf("pending bits = %x, want %x", p, want)
	}
	m.ReadPBA(8, p[:4])
	if p[0] != 1<<5 {
		t.Errorf("pending bits from 64 on = %x", p[:4])
	}
	put(m, 3*16, 0xfee00000, 8)
	put(m, 3*16+12, 0, 4)
	write(b, control, 2, 0x8000)
	m.ReadPBA(0, p[:1])
	if p[0] != 0 {
		t.Errorf("pending bits of an open vector = %x, want 0", p[0])
	}
	m.ReadPBA(1<<40, p[:8])
	if p[0] != 0 {
		t.Errorf("pending bits far behind = %x, want 0", p[0])
	}
}

func TestMSIXState(t *testing.T) {
	m, r, b, _ := msix(t, 2)
	put(m, 0, 0xfee00000, 8)
	put(m, 8, 0x30, 8)
	write(b, control, 2, 0xc000)
	_, err := r.Vectors[1].EventFD().Write(binary.NativeEndian.AppendUint64(nil, 1))
	must(t, err)
	s := m.Save()
	n, r2, b2, _ := msix(t, 2)
	write(b2, control, 2, 0x8000)
	must(t, n.Restore(s))
	if a, d, masked := r2.Vectors[0].Message(); a != 0xfee00000 || d != 0x30 || masked {
		t.Errorf("restored vector 0: %#x %#x %v", a, d, masked)
	}
	if !r2.Vectors[1].Pending() {
		t.Error("pending signal was lost")
	}
	s.Pending = []int{9}
	if err := n.Restore(s); !errors.Is(err, pci.ErrConfigSpace) {
		t.Errorf("Restore with vector 9 pending: %v, want ErrConfigSpace", err)
	}
}

// FuzzBus lets a guest write anything to configuration space and table: no
// panic, and identity and capabilities stay.
func FuzzBus(f *testing.F) {
	f.Add([]byte{4, 0, 2, 0x10, 0, 0xff, 0x42, 0, 0x80, 0x43, 0, 0xc0})
	f.Add([]byte{0x11, 0, 0xff, 0x12, 0, 0xff, 0x13, 0, 0xff, 4, 0, 2, 4, 0, 0})
	fn := newFunction(f, map[int]pci.BAR{0: {Size: 0x1000}, 2: {Size: 0x2000, Is64: true}})
	var r pcitest.Router
	m, err := pci.NewMSIX(fn.cfg, &r, 4, 0, 0, 0x800, nil)
	must(f, err)
	must(f, fn.cfg.AddExpress())
	bus := newBus(f, fn)
	f.Fuzz(func(t *testing.T, b []byte) {
		for b = b[:min(len(b), 300)]; len(b) >= 3; b = b[3:] {
			off := uint64(b[0]) | uint64(b[1])<<8
			bus.Write(slot1+off%4100, b[2:min(len(b), 11)])
			m.WriteTable(off, b[2:min(len(b), 20)])
			var p [32]byte
			m.ReadTable(off, p[:])
			m.ReadPBA(off, p[:])
			bus.MMIOWrite(lowBase+off, b)
		}
		fn.events = nil
		if id := read(bus, slot1, 4); id != 0x56781234 {
			t.Fatalf("identity = %#x", id)
		}
		if at := read(bus, slot1+0x34, 1); at != 0x40 || read(bus, slot1+at, 1) != pci.CapMSIX {
			t.Fatalf("first capability at %#x", at)
		}
	})
}
