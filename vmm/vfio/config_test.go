package vfio

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/vmm/pci"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

func TestConfigSpace(t *testing.T) {
	b := newFakeBoard(t, newFake(t), Config{})
	for _, tt := range []struct {
		name   string
		off, n int
		want   uint32
	}{
		{"identity", 0, 4, 0x56781234},
		{"class", 8, 4, 0x01080203},
		{"header type: one function", regHeaderType, 1, 0},
		{"subsystem", 0x2c, 4, 0x44332211},
		{"ROM", regROM, 4, 0},
		{"pin", regPin, 1, 1},
		{"I/O BAR is left out", regBAR + 8, 4, 0},
		{"first capability", regCapPointer, 1, fakePower},
		{"power management: no PME", fakePower, 4, 0x00030000 | fakeMSI<<8 | pci.CapPower},
		{"MSI: 32 messages of 64 bits with masks", fakeMSI, 4, 0x018a0000 | fakeExpress<<8 | pci.CapMSI},
		{"PCI Express: VPD is left out", fakeExpress, 2, fakeMSIX<<8 | pci.CapExpress},
		{"device control", fakeExpress + expressDevCtl, 2, 0x2810},
		{"link", fakeExpress + expressLinkCap, 4, 0x43},
		{"VPD", fakeVPD, 2, 0},
		{"MSI-X", fakeMSIX, 4, (fakeVectors-1)<<16 | fakeVendor<<8 | pci.CapMSIX},
		{"table", fakeMSIX + 4, 4, fakeTable},
		{"vendor's is the last", fakeVendor, 4, 0xaa080009},
		{"SR-IOV is left out", 0x100, 4, 0x1400ffff},
		{"errors", 0x140, 4, 0x1a020001},
		{"serial number", 0x1a0, 4, 0x1b010003},
		{"vendor's, the last", 0x1b0, 4, 0x0001000b},
	} {
		if got := b.get(tt.off, tt.n); got != tt.want {
			t.Errorf("%s: %#x, want %#x", tt.name, got, tt.want)
		}
	}
	for _, tt := range []struct {
		name      string
		off       int
		want      uint32 // reads after all ones were written
		atDevice  bool   // went there
		isRefused bool
	}{
		{name: "vendor", off: 0, want: 0x34},
		{name: "BIST", off: 0x0f},
		{name: "cache line", off: 0x0c, want: 0xff},
		{name: "interrupt line", off: 0x3c, want: 0xff},
		{name: "pin", off: regPin, want: 1},
		{name: "vendor's capability", off: fakeVendor + 4, want: 0xff, atDevice: true},
		{name: "VPD", off: fakeVPD + 3, isRefused: true},
		{name: "behind capabilities", off: 0xe0, isRefused: true},
		{name: "SR-IOV control", off: 0x108, isRefused: true},
		{name: "error mask", off: 0x148},
		{name: "vendor's extended capability", off: 0x1b9, want: 0xff, atDevice: true},
	} {
		refused := b.fn.metrics.configRefused.Load()
		before := b.dev.space[tt.off]
		b.set(tt.off, 1, 0xff)
		if got := b.get(tt.off, 1); got != tt.want {
			t.Errorf("%s: reads %#x, want %#x", tt.name, got, tt.want)
		}
		if changed := b.dev.space[tt.off] != before; changed != tt.atDevice {
			t.Errorf("%s: the device was written to: %v", tt.name, changed)
		}
		if got := b.fn.metrics.configRefused.Load() != refused; got != tt.isRefused {
			t.Errorf("%s: refused: %v", tt.name, got)
		}
	}
	if len(b.reports) > 0 {
		t.Errorf("reports: %v", b.reports)
	}
}

func TestRootBus(t *testing.T) {
	b := newFakeBoard(t, newFake(t), Config{RootBus: true})
	if got := b.get(fakeExpress+expressFlags, 2); got != 0x92 {
		t.Errorf("flags %#x: want an integrated endpoint", got)
	}
	for _, off := range []int{expressLinkCap, 0x10, 0x2c, 0x30} {
		b.set(fakeExpress+off, 4, 0xffffffff)
		if got := b.get(fakeExpress+off, 4); got != 0 {
			t.Errorf("link register %#x reads %#x", off, got)
		}
	}
}

func TestCommand(t *testing.T) {
	b := newFakeBoard(t, newFake(t), Config{})
	hardware := func() uint16 { return binary.LittleEndian.Uint16(b.dev.space[regCommand:]) }
	if hardware() != cmdMemory {
		t.Errorf("command at first is %#x, want memory decoding alone", hardware())
	}
	b.set(regCommand, 2, cmdBusMaster|cmdINTxDisable|1)
	if got := b.get(regCommand, 2); got != cmdBusMaster|cmdINTxDisable || hardware() != cmdMemory|cmdBusMaster|cmdINTxDisable {
		t.Errorf("command reads %#x, the device has %#x", got, hardware())
	}
}

func TestBARs(t *testing.T) {
	b := newFakeBoard(t, newFake(t), Config{})
	b.set(regBAR, 4, 0xffffffff)
	b.set(regBAR+4, 4, 0xffffffff)
	if lo, hi := b.get(regBAR, 4), b.get(regBAR+4, 4); lo != 0xffff0004 || hi != 0xffffffff {
		t.Errorf("size of BAR 0 reads %#x %#x", hi, lo)
	}
	b.set(regBAR+16, 4, 0xffffffff)
	b.set(regBAR+20, 4, 0xffffffff)
	if lo, hi := b.get(regBAR+16, 4), b.get(regBAR+20, 4); lo != 0xc || hi != 0xfffffff0 {
		t.Errorf("size of BAR 4 reads %#x %#x, want 64 GiB", hi, lo)
	}
	put := func(i int, gpa uint64) {
		b.set(regBAR+4*i, 4, uint32(gpa))
		b.set(regBAR+4*i+4, 4, uint32(gpa>>32))
	}
	put(0, highBase)
	put(4, highBase+64<<30)
	b.set(regCommand, 2, cmdMemory)
	want := []area{{highBase, fakeTable}, {highBase + fakePending + 0x1000, fakeBAR - fakePending - 0x1000}, {highBase + 64<<30, 64 << 30}}
	if got := b.slots.areas(); !slices.Equal(got, want) {
		t.Errorf("slots %#x, want %#x", got, want)
	}
	// What is trapped goes to the table and to the device.
	b.MMIOWrite(highBase+fakeTable, []byte{0, 0x10, 0xe0, 0xfe})
	var v [4]byte
	if b.MMIORead(highBase+fakeTable, v[:]); binary.LittleEndian.Uint32(v[:]) != 0xfee01000 || b.dev.bar[0][fakeTable+1] != 0 {
		t.Errorf("table reads %x; the device has %x", v, b.dev.bar[0][fakeTable:][:4])
	}
	end := uint64(fakeTable + fakeVectors*pci.MSIXEntrySize)
	b.MMIOWrite(highBase+end-2, []byte{1, 2, 3, 4})
	if got := b.dev.bar[0][end-2:][:4]; !slices.Equal(got, []byte{0, 0, 3, 4}) {
		t.Errorf("a write across the end of the table left %x at the device", got)
	}
	// Moved, off, over each other.
	put(0, highBase+1<<20)
	if got := b.slots.areas()[0]; got.off != highBase+1<<20 {
		t.Errorf("a BAR that was moved is at %#x", got.off)
	}
	put(0, highBase+64<<30)
	if got := b.slots.areas(); len(got) != 1 || len(b.reports) != 2 {
		t.Errorf("BARs over each other: slots %#x, reports %v", got, b.reports)
	}
	b.set(regCommand, 2, 0)
	if got := b.slots.areas(); len(got) != 0 {
		t.Errorf("slots of BARs that are off: %#x", got)
	}
	put(0, 0x1000) // the guest's memory
	b.set(regCommand, 2, cmdMemory)
	if got := b.slots.areas(); len(got) != 1 {
		t.Errorf("a BAR over memory is mapped: %#x", got)
	}
}

func TestSmallBAR(t *testing.T) {
	d := newFake(t)
	d.space[regBAR] = 0
	d.bar[0] = make([]byte, 0x100)
	d.areas[0] = []area{}
	d.irqs[irqMSIX].count = 0
	b := newFakeBoard(t, d, Config{})
	b.set(regBAR, 4, lowBase)
	b.set(regCommand, 2, cmdMemory)
	var v [4]byte
	if b.MMIORead(lowBase+0xfe, v[:]); !slices.Equal(v[:], []byte{0xff, 0xff, 0xff, 0xff}) {
		t.Errorf("behind the end: %x", v)
	}
	b.MMIOWrite(lowBase+0xfe, []byte{1, 2, 3, 4})
	if b.MMIORead(lowBase+0xfc, v[:]); !slices.Equal(v[:], make([]byte, 4)) {
		t.Errorf("inside: %x", v)
	}
}

func TestROM(t *testing.T) {
	for _, on := range []bool{false, true} {
		d := newFake(t)
		d.bar[regionROM] = make([]byte, 0x8000)
		d.bar[regionROM][0] = 0x55
		b := newFakeBoard(t, d, Config{ROM: on})
		b.set(regROM, 4, lowBase|1)
		b.set(regCommand, 2, cmdMemory)
		var v [1]byte
		if got := b.MMIORead(lowBase, v[:]) && v[0] == 0x55; got != on {
			t.Errorf("ROM %v: it is shown: %v", on, got)
		}
		b.MMIOWrite(lowBase, []byte{1})
		if d.bar[regionROM][0] != 0x55 {
			t.Error("the ROM was written to")
		}
	}
}

func (b *fakeBoard) want(what string, mode int, live ...int) {
	b.t.Helper()
	if got := b.dev.live(); b.dev.mode != mode || !slices.Equal(got, live) {
		b.t.Errorf("%s: interrupts of kind %d, %v; want kind %d, %v", what, b.dev.mode, got, mode, live)
	}
	if b.line.connected != (mode == irqINTx) {
		b.t.Errorf("%s: the line is connected: %v", what, b.line.connected)
	}
}

func TestInterrupts(t *testing.T) {
	for _, grows := range []bool{true, false} {
		d := newFake(t)
		d.irqs[irqMSIX].grows = grows
		b := newFakeBoard(t, d, Config{})
		b.set(regBAR+4, 4, highBase>>32)
		b.set(regCommand, 2, cmdMemory)
		entry := func(i int, mask byte) {
			b.MMIOWrite(uint64(highBase+fakeTable+i*pci.MSIXEntrySize), []byte{0, 0, 0xe0, 0xfe, 0, 0, 0, 0})
			b.MMIOWrite(uint64(highBase+fakeTable+i*pci.MSIXEntrySize+8), []byte{byte(i), 0, 0, 0, mask, 0, 0, 0})
		}
		b.want("at first", irqINTx, 0)
		b.set(fakeMSI+msiAddress, 4, 0xfee00000)
		b.set(b.fn.msi.data(), 2, 0x40)
		b.set(fakeMSI+msiControl, 2, msiEnable|2<<4)
		b.want("MSI", irqMSI, 0, 1, 2, 3)
		if _, data, masked := b.router.Vectors[3].Message(); data != 0x43 || masked {
			t.Errorf("message 3 is %#x, masked: %v", data, masked)
		}
		b.set(b.fn.msi.data()+4, 4, 1<<3)
		if _, _, masked := b.router.Vectors[3].Message(); !masked {
			t.Error("message 3 is not masked")
		}
		if _, err := b.router.Vectors[3].EventFD().Write(binary.NativeEndian.AppendUint64(nil, 1)); err != nil {
			t.Fatal(err)
		}
		if got := b.get(b.fn.msi.data()+8, 4); got != 1<<3 {
			t.Errorf("pending bits %#x", got)
		}
		b.set(b.fn.msi.data()+4, 4, 0)
		if !b.router.Vectors[3].Take(time.Second) {
			t.Error("message 3 is lost")
		}
		entry(0, 0)
		entry(64, 0)
		b.set(fakeMSIX+2, 2, 0x8000)
		b.want("MSI-X goes before MSI", irqMSIX, 0, 64)
		entry(7, 0)
		b.want("one more", irqMSIX, 0, 7, 64)
		entry(7, 1)
		b.want("masked in the table alone", irqMSIX, 0, 7, 64)
		b.set(fakeMSIX+2, 2, 0)
		b.want("MSI again", irqMSI, 0, 1, 2, 3)
		b.set(fakeMSI+msiControl, 2, msiEnable)
		b.want("one message", irqMSI, 0)
		b.set(fakeMSI+msiControl, 2, msiEnable|7<<4)
		if n := len(b.dev.live()); n != 32 {
			t.Errorf("%d messages, want 32", n)
		}
		b.set(fakeMSI+msiControl, 2, 0)
		b.want("INTx again", irqINTx, 0)
		if len(b.reports) > 0 {
			t.Errorf("reports: %v", b.reports)
		}
	}
}

func TestResets(t *testing.T) {
	for _, tt := range []struct {
		name  string
		reset func(b *fakeBoard)
	}{
		{"function-level", func(b *fakeBoard) {
			b.set(fakeExpress+expressDevCtl, 2, devCtlReset)
			if got := b.get(fakeExpress+expressDevCtl, 2); got != 0x2810 {
				b.t.Errorf("device control %#x after a reset", got)
			}
		}},
		{"D3hot to D0", func(b *fakeBoard) {
			b.set(fakePower+powerControl, 2, powerD3Hot)
			if b.dev.resets != 0 || b.dev.space[fakePower+powerControl] != 0 {
				b.t.Error("the device itself sleeps")
			}
			b.set(fakePower+powerControl, 2, 0)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newFakeBoard(t, newFake(t), Config{})
			b.set(regBAR+4, 4, highBase>>32)
			b.set(regCommand, 2, cmdMemory|cmdBusMaster)
			b.set(fakeMSIX+2, 2, 0x8000)
			b.MMIOWrite(highBase+fakeTable, []byte{0, 0, 0xe0, 0xfe, 0, 0, 0, 0})
			b.MMIOWrite(highBase+fakeTable+8, make([]byte, 8))
			b.want("before", irqMSIX, 0)
			tt.reset(b)
			if b.dev.resets != 1 {
				t.Errorf("%d resets", b.dev.resets)
			}
			b.want("after", irqINTx, 0)
			if got := b.slots.areas(); len(got) != 0 {
				t.Errorf("slots %#x after a reset", got)
			}
			if got := b.get(regCommand, 2); got != 0 || b.dev.space[regCommand] != cmdMemory {
				t.Errorf("command %#x, device's %#x after a reset", got, b.dev.space[regCommand])
			}
			if got := b.get(regBAR+4, 4); got != 0 {
				t.Errorf("BAR %#x after a reset", got)
			}
		})
	}
}

// TestVanished: what the host has taken away reads as ones, and is not used.
func TestVanished(t *testing.T) {
	b := newFakeBoard(t, newFake(t), Config{})
	b.set(regBAR+4, 4, highBase>>32)
	b.set(regCommand, 2, cmdMemory)
	if err := b.fn.Abandon(); err != nil {
		t.Fatal(err)
	}
	if !b.dev.closed || len(b.slots.areas()) != 0 {
		t.Error("the device is not given back")
	}
	if got := b.get(0, 4); got != 0xffffffff {
		t.Errorf("identity %#x", got)
	}
	var v [4]byte
	if b.MMIORead(highBase, v[:]); binary.LittleEndian.Uint32(v[:]) != 0xffffffff {
		t.Errorf("BAR reads %x", v)
	}
	b.set(regCommand, 2, 0)
	b.set(regCommand, 2, cmdMemory)
	b.set(fakeExpress+expressDevCtl, 2, devCtlReset)
	b.set(fakeMSIX+2, 2, 0x8000)
	if len(b.slots.areas()) != 0 {
		t.Error("a BAR came back")
	}
}

// TestBroken: a device whose accesses fail, as one that was pulled out, is no reason to end.
func TestBroken(t *testing.T) {
	d := newFake(t)
	b := newFakeBoard(t, d, Config{})
	b.set(regCommand, 2, cmdMemory)
	d.broken = errors.New("gone")
	b.set(regBAR+4, 4, highBase>>32)
	if got := b.get(regStatus, 2); got != 0xffff {
		t.Errorf("status %#x", got)
	}
	if len(b.slots.areas()) == 0 || !b.fn.Faulted() || b.fn.Faulted() || len(b.slots.areas()) != 0 {
		t.Error("Faulted does not take the BARs away once")
	}
	var v [2]byte
	if b.MMIORead(highBase, v[:]); v != [2]byte{0xff, 0xff} {
		t.Errorf("BAR reads %x", v)
	}
	d.broken = nil
}

func TestRefusedDevices(t *testing.T) {
	for name, spoil := range map[string]func(d *fake){
		"short configuration space": func(d *fake) { d.config = 64 },
		"table behind its BAR":      func(d *fake) { d.space[fakeMSIX+6] = 1 },
		"table in no BAR":           func(d *fake) { d.space[fakeMSIX+4] |= 7 },
		"unreadable":                func(d *fake) { d.broken = errors.New("no") },
	} {
		d := newFake(t)
		spoil(d)
		if fn, err := newFunction(d, Config{Report: func(error) {}, Error: func() {}, Request: func() {}}); err == nil {
			t.Errorf("%s: taken", name)
			fn.Close()
		}
		if !d.closed {
			t.Errorf("%s: not closed", name)
		}
	}
}

func TestCounters(t *testing.T) {
	b := newFakeBoard(t, newFake(t), Config{})
	b.set(fakeMSI+msiControl, 2, msiEnable)
	b.set(fakeExpress+expressDevCtl, 2, devCtlReset)
	b.set(0xe0, 1, 1)
	b.get(regStatus, 2)
	got := b.fn.Counters()
	for _, name := range protocol.VFIOCounters() {
		if _, ok := got[name]; !ok {
			t.Errorf("no counter %s", name)
		}
	}
	for name, want := range map[string]uint64{"vectors": 1, "resets": 1, "config_refused": 1, "config_reads": 1} {
		if got[name] != want {
			t.Errorf("%s = %d, want %d", name, got[name], want)
		}
	}
	if len(got) != len(protocol.VFIOCounters()) {
		t.Errorf("counters %v", got)
	}
}

// TestEvents: errors and requests of the device are told.
func TestEvents(t *testing.T) {
	said := make(chan string, 4)
	b := newFakeBoard(t, newFake(t), Config{Error: func() { said <- "error" }, Request: func() { said <- "request" }})
	for i, want := range []string{"error", "request"} {
		if _, err := b.fn.events[i].Write(binary.NativeEndian.AppendUint64(nil, 1)); err != nil {
			t.Fatal(err)
		}
		if got := <-said; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if n := b.fn.Counters()["errors"]; n != 1 {
		t.Errorf("%d errors", n)
	}
}
