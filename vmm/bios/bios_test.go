package bios

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/vmm/boot"
	"github.com/ashlar-hv/ashlar/vmm/kvm"
	"github.com/ashlar-hv/ashlar/vmm/memory"
)

// A board is what the services of a test use.
type board struct {
	*BIOS
	mem    *memory.Memory
	screen bytes.Buffer
	typed  []byte
	space  [3 * 4096]byte // configuration space of three functions
	resets int
}

func (p *board) Read(off uint64, b []byte) {
	for i := range b {
		b[i] = 0xff
		if at := off + uint64(i); at < uint64(len(p.space)) {
			b[i] = p.space[at]
		}
	}
}

func (p *board) Write(off uint64, b []byte) {
	if off < uint64(len(p.space)) {
		copy(p.space[off:], b)
	}
}

func (p *board) key() (byte, bool) {
	if len(p.typed) == 0 {
		return 0, false
	}
	v := p.typed[0]
	p.typed = p.typed[1:]
	return v, true
}

const testMemory = 32 << 20

func newBoard(t testing.TB) *board {
	t.Helper()
	f, err := memory.Create("test", testMemory)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := &board{}
	if p.mem, err = memory.Map(f, testMemory); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.mem.Close() })
	le := binary.LittleEndian
	le.PutUint32(p.space[0:], 0x12348086)
	le.PutUint32(p.space[4096:], 0x10411af4)
	le.PutUint32(p.space[4096+8:], 0x02000001)
	le.PutUint32(p.space[2*4096:], 0x10411af4)
	p.BIOS = New(Config{
		Memory: p.mem, Console: &p.screen, Key: p.key, PCI: p, Reset: func() { p.resets++ },
		Now: func() time.Time { return time.Date(2026, 11, 25, 12, 34, 56, 0, time.UTC) },
		Map: []boot.Range{
			{Base: 0, Size: 0x9fc00, Type: boot.RAM}, {Base: 0x9fc00, Size: 0x60400, Type: boot.Reserved},
			{Base: 1 << 20, Size: 31 << 20, Type: boot.RAM},
		},
	})
	if err := p.BIOS.Write(0x1020); err != nil {
		t.Fatal(err)
	}
	if err := p.mem.WriteAt(baseMemory, []byte{0x7f, 2}); err != nil {
		t.Fatal(err)
	}
	return p
}

// Where a caller's stack and ES lie.
const (
	stackBase, stackSP = 0x20000, 0x1000
	extraBase          = 0x30000
	interrupts         = 1 << 9
)

// call makes a call, and returns the caller's flags after it.
func (p *board) call(t testing.TB, vector byte, r *kvm.Regs) uint16 {
	t.Helper()
	if err := p.mem.WriteAt(stackBase+stackSP+4, []byte{carry | zero, interrupts >> 8}); err != nil {
		t.Fatal(err)
	}
	r.RIP, r.RSP = stubs+uint64(vector)*stubSize+outSize, stackSP
	s := &kvm.Sregs{CS: kvm.Segment{Base: segment << 4}, SS: kvm.Segment{Base: stackBase}, ES: kvm.Segment{Base: extraBase}}
	if !p.Call(r, s) {
		t.Fatalf("INT %#x is no service", vector)
	}
	var b [2]byte
	if err := p.mem.ReadAt(stackBase+stackSP+4, b[:]); err != nil {
		t.Fatal(err)
	}
	return binary.LittleEndian.Uint16(b[:])
}

func TestServices(t *testing.T) {
	const kept = 0xabcd0000
	for _, tt := range []struct {
		name     string
		vector   byte
		in, want kvm.Regs
		flags    uint16
	}{
		{"equipment", 0x11, kvm.Regs{RAX: kept}, kvm.Regs{RAX: kept | 0x220}, carry | zero},
		{"base memory", 0x12, kvm.Regs{RAX: kept | 0xffff}, kvm.Regs{RAX: kept | 639}, carry | zero},
		{"disk", 0x13, kvm.Regs{RAX: 0x0201}, kvm.Regs{RAX: 0x0101}, carry | zero},
		{"extended memory", 0x15, kvm.Regs{RAX: 0x8800}, kvm.Regs{RAX: 31 << 10}, zero},
		{"memory by 64 KiB", 0x15, kvm.Regs{RAX: 0xe801}, kvm.Regs{RAX: 15 << 10, RBX: 16 << 4, RCX: 15 << 10, RDX: 16 << 4}, zero},
		{"open A20", 0x15, kvm.Regs{RAX: 0x2401}, kvm.Regs{RAX: 0x0001}, zero},
		{"A20 is open", 0x15, kvm.Regs{RAX: 0x2402}, kvm.Regs{RAX: 1}, zero},
		{"APM", 0x15, kvm.Regs{RAX: 0x5300}, kvm.Regs{RAX: 0x8600}, carry | zero},
		{"memory map without its signature", 0x15, kvm.Regs{RAX: 0xe820, RCX: 20}, kvm.Regs{RAX: 0x8620, RCX: 20}, carry | zero},
		{"short entry of the memory map", 0x15, kvm.Regs{RAX: 0xe820, RCX: 19, RDX: smap}, kvm.Regs{RAX: 0x8620, RCX: 19, RDX: smap}, carry | zero},
		{"memory map behind its end", 0x15, kvm.Regs{RAX: 0xe820, RBX: 3, RCX: 20, RDX: smap}, kvm.Regs{RAX: 0x8620, RBX: 3, RCX: 20, RDX: smap}, carry | zero},
		{"memory map far behind its end", 0x15, kvm.Regs{RAX: 0xe820, RBX: 0xffffffff, RCX: 20, RDX: smap}, kvm.Regs{RAX: 0x8620, RBX: 0xffffffff, RCX: 20, RDX: smap}, carry | zero},
		{"no key", 0x16, kvm.Regs{RAX: 0x0100}, kvm.Regs{RAX: 0x0100}, carry | zero},
		{"shift keys", 0x16, kvm.Regs{RAX: 0x02ff}, kvm.Regs{}, carry | zero},
		{"time", 0x1a, kvm.Regs{RAX: 0x0200}, kvm.Regs{RAX: 0x0200, RCX: 0x1234, RDX: 0x5600}, zero},
		{"date", 0x1a, kvm.Regs{RAX: 0x0400}, kvm.Regs{RAX: 0x0400, RCX: 0x2026, RDX: 0x1125}, zero},
		{"ticks", 0x1a, kvm.Regs{RAX: 0}, kvm.Regs{RCX: 0xc, RDX: 0x9568}, zero},
		{"alarm", 0x1a, kvm.Regs{RAX: 0x0600}, kvm.Regs{RAX: 0x0600}, carry | zero},
		{"PCI", 0x1a, kvm.Regs{RAX: 0xb101, RCX: 0xff}, kvm.Regs{RAX: 0x0001, RBX: 0x0210, RDX: pciSignature}, zero},
		{"PCI interrupts", 0x1a, kvm.Regs{RAX: 0xb10e}, kvm.Regs{RAX: 0x810e}, carry | zero},
		{"find the second device", 0x1a, kvm.Regs{RAX: 0xb102, RCX: 0x1041, RDX: 0x1af4, RSI: 1}, kvm.Regs{RAX: 2, RBX: 2, RCX: 0x1041, RDX: 0x1af4, RSI: 1}, zero},
		{"find a third device", 0x1a, kvm.Regs{RAX: 0xb102, RCX: 0x1041, RDX: 0x1af4, RSI: 2}, kvm.Regs{RAX: 0x8602, RCX: 0x1041, RDX: 0x1af4, RSI: 2}, carry | zero},
		{"find a class", 0x1a, kvm.Regs{RAX: 0xb103, RCX: 0x020000}, kvm.Regs{RAX: 3, RBX: 1, RCX: 0x020000}, zero},
		{"read a byte", 0x1a, kvm.Regs{RAX: 0xb108, RBX: 1, RCX: kept | 0x1234, RDI: 1}, kvm.Regs{RAX: 8, RBX: 1, RCX: kept | 0x121a, RDI: 1}, zero},
		{"read a word", 0x1a, kvm.Regs{RAX: 0xb109, RBX: 1, RCX: kept, RDI: 2}, kvm.Regs{RAX: 9, RBX: 1, RCX: kept | 0x1041, RDI: 2}, zero},
		{"read a double word", 0x1a, kvm.Regs{RAX: 0xb10a, RBX: 1, RDI: 0}, kvm.Regs{RAX: 10, RBX: 1, RCX: 0x10411af4}, zero},
		{"read where nothing is", 0x1a, kvm.Regs{RAX: 0xb10a, RBX: 0xffff}, kvm.Regs{RAX: 10, RBX: 0xffff, RCX: 0xffffffff}, zero},
		{"read an odd register", 0x1a, kvm.Regs{RAX: 0xb10a, RDI: 2}, kvm.Regs{RAX: 0x870a, RDI: 2}, carry | zero},
		{"read a far register", 0x1a, kvm.Regs{RAX: 0xb10a, RDI: 0x100}, kvm.Regs{RAX: 0x870a, RDI: 0x100}, carry | zero},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newBoard(t)
			got := tt.in
			flags := p.call(t, tt.vector, &got)
			if flags != tt.flags|interrupts {
				t.Errorf("flags = %#x, want %#x", flags, tt.flags|interrupts)
			}
			tt.want.RIP, tt.want.RSP = got.RIP, stackSP
			if got != tt.want || got.RIP != stubs+uint64(tt.vector)*stubSize+outSize {
				t.Errorf("registers = %#x, want %#x", got, tt.want)
			}
		})
	}
}

func TestMemoryMap(t *testing.T) {
	p := newBoard(t)
	r := kvm.Regs{}
	for i, want := range p.c.Map {
		r.RAX, r.RCX, r.RDX, r.RDI = 0xe820, 24, smap, 0x100
		flags := p.call(t, 0x15, &r)
		next := uint64(i+1) % uint64(len(p.c.Map))
		if flags&carry != 0 || r.RAX != smap || r.RCX != 20 || r.RBX != next {
			t.Errorf("entry %d: EAX, EBX, ECX, flags = %#x, %#x, %#x, %#x", i, r.RAX, r.RBX, r.RCX, flags)
		}
		var b [20]byte
		if err := p.mem.ReadAt(extraBase+0x100, b[:]); err != nil {
			t.Fatal(err)
		}
		le := binary.LittleEndian
		if got := (boot.Range{Base: le.Uint64(b[:]), Size: le.Uint64(b[8:]), Type: boot.RangeType(le.Uint32(b[16:]))}); got != want {
			t.Errorf("entry %d = %+v, want %+v", i, got, want)
		}
	}
}

func TestScreen(t *testing.T) {
	p := newBoard(t)
	for _, c := range []byte("Hi\x1b\xe9\r\n") {
		p.call(t, 0x10, &kvm.Regs{RAX: 0x0e00 | uint64(c)})
	}
	at := kvm.Regs{RAX: 0x0300}
	if p.call(t, 0x10, &at); at.RDX != 0x0100 {
		t.Errorf("cursor at %#x, want row 1, column 0", at.RDX)
	}
	if err := p.mem.WriteAt(extraBase, []byte("a\x07b\x07c\x07")); err != nil {
		t.Fatal(err)
	}
	p.call(t, 0x10, &kvm.Regs{RAX: 0x1302, RCX: 3, RDX: 0xffff})
	p.call(t, 0x10, &kvm.Regs{RAX: 0x0200, RDX: 0xffff}) // is there
	p.call(t, 0x10, &kvm.Regs{RAX: 0x0600})
	const want = "Hi??\r\n\x1b[25;80Habc\x1b[25;80H\x1b[H\x1b[2J"
	if got := p.screen.String(); got != want {
		t.Errorf("screen = %q, want %q", got, want)
	}
}

// waits says whether the code waits for a key.
func (p *board) waits(t testing.TB) bool {
	t.Helper()
	var b [1]byte
	if err := p.mem.ReadAt(segment<<4+romWaits, b[:]); err != nil {
		t.Fatal(err)
	}
	return b[0] != 0
}

func TestKeyboard(t *testing.T) {
	p := newBoard(t)
	r := kvm.Regs{}
	if p.call(t, 0x16, &r); !p.waits(t) || r.RAX != 0 {
		t.Errorf("without a key: waits %v, RAX = %#x", p.waits(t), r.RAX)
	}
	p.typed = []byte("a\n")
	for _, want := range []uint64{'a', 0x1c0d} {
		there := kvm.Regs{RAX: 0x1100}
		if flags := p.call(t, 0x16, &there); flags&zero != 0 || there.RAX != want {
			t.Errorf("looked at: RAX = %#x, flags %#x, want %#x", there.RAX, flags, want)
		}
		got := kvm.Regs{RAX: 0x1000}
		if p.call(t, 0x16, &got); got.RAX != want || p.waits(t) {
			t.Errorf("got: RAX = %#x, want %#x", got.RAX, want)
		}
	}
}

func TestEnds(t *testing.T) {
	p := newBoard(t)
	r := kvm.Regs{}
	if p.call(t, 0x19, &r); p.resets != 1 {
		t.Errorf("INT 19h: %d resets", p.resets)
	}
	if p.call(t, 0x18, &r); !bytes.Contains(p.screen.Bytes(), []byte("Nothing to boot.")) {
		t.Errorf("INT 18h: screen %q", p.screen.Bytes())
	}
}

func TestPCIWrites(t *testing.T) {
	p := newBoard(t)
	for fn, want := range map[uint64]uint32{0xb10b: 0x00000078, 0xb10c: 0x00005678, 0xb10d: 0x12345678} {
		binary.LittleEndian.PutUint32(p.space[4096+0x10:], 0)
		if flags := p.call(t, 0x1a, &kvm.Regs{RAX: fn, RBX: 1, RCX: 0x12345678, RDI: 0x10}); flags&carry != 0 {
			t.Errorf("%#x fails", fn)
		}
		if got := binary.LittleEndian.Uint32(p.space[4096+0x10:]); got != want {
			t.Errorf("%#x wrote %#x, want %#x", fn, got, want)
		}
	}
}

// Who writes to the port without being the BIOS's code calls nothing.
func TestNoCall(t *testing.T) {
	p := newBoard(t)
	good := stubs + uint64(0x12)*stubSize + outSize
	for _, tt := range []struct {
		name string
		rip  uint64
		s    kvm.Sregs
	}{
		{"protected mode", good, kvm.Sregs{CR0: 1, CS: kvm.Segment{Base: segment << 4}}},
		{"elsewhere", good, kvm.Sregs{CS: kvm.Segment{Base: 0x1000}}},
		{"before a call", good - 1, kvm.Sregs{CS: kvm.Segment{Base: segment << 4}}},
		{"below", outSize, kvm.Sregs{CS: kvm.Segment{Base: segment << 4}}},
		{"above", stubs + 256*stubSize + outSize, kvm.Sregs{CS: kvm.Segment{Base: segment << 4}}},
		{"no service", stubs + 0x14*stubSize + outSize, kvm.Sregs{CS: kvm.Segment{Base: segment << 4}}},
	} {
		r := kvm.Regs{RIP: tt.rip}
		if p.Call(&r, &tt.s) || r != (kvm.Regs{RIP: tt.rip}) {
			t.Errorf("%s: called, registers %#x", tt.name, r)
		}
	}
}

func TestTicks(t *testing.T) {
	for _, tt := range []struct {
		at   time.Time
		want uint32
	}{
		{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), 0},
		{time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC), ticksPerDay / 2},
		{time.Date(2026, 1, 1, 23, 59, 59, 999999999, time.UTC), ticksPerDay - 1},
	} {
		if got := ticks(tt.at); got != tt.want {
			t.Errorf("ticks(%v) = %d, want %d", tt.at, got, tt.want)
		}
	}
}

// Any registers and segments: no panic, RIP and RSP stay, and what a service
// prints is bounded.
func FuzzCall(f *testing.F) {
	p := newBoard(f)
	for v := range services {
		f.Add(v, uint64(0), uint64(0), uint64(20), uint64(smap), uint64(0), uint64(0), uint64(0x20000))
	}
	f.Add(byte(0x15), uint64(0xe820), uint64(0), uint64(20), uint64(smap), uint64(0), uint64(0xffff), uint64(0xfffffffffffffff0))
	f.Add(byte(0x10), uint64(0x1303), uint64(0), uint64(0xffff), uint64(0xffff), uint64(0), uint64(0), uint64(0x1ff0000))
	f.Add(byte(0x1a), uint64(0xb10d), uint64(0xffff), uint64(0), uint64(0), uint64(0), uint64(0xfc), uint64(0))
	f.Fuzz(func(t *testing.T, v byte, ax, bx, cx, dx, si, di, base uint64) {
		p.screen.Reset()
		r := kvm.Regs{RAX: ax, RBX: bx, RCX: cx, RDX: dx, RSI: si, RDI: di, RBP: di, RSP: si, RIP: stubs + uint64(v)*stubSize + outSize}
		was := r
		s := kvm.Sregs{CS: kvm.Segment{Base: segment << 4}, SS: kvm.Segment{Base: base}, ES: kvm.Segment{Base: base}}
		called := p.Call(&r, &s)
		if called != (services[v] != nil) || !called && r != was {
			t.Fatalf("called: %v, registers %#x", called, r)
		}
		if r.RIP != was.RIP || r.RSP != was.RSP {
			t.Fatalf("RIP, RSP = %#x, %#x", r.RIP, r.RSP)
		}
		if n := p.screen.Len(); n > rows*columns+16 {
			t.Fatalf("%d bytes printed", n)
		}
	})
}
