package machine

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/internal/tinykernel"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// real is the setup code of a 16-bit kernel.
type real struct{ tinykernel.Code }

func (r *real) add(b ...byte) { r.Code = append(r.Code, b...) }

// register reports AX, by the serial port.
func (r *real) register(code ...byte) {
	r.add(code...)
	// push dx; mov dx, 0x3f8; out dx, al; mov al, ah; out dx, al; pop dx
	r.add(0x52, 0xba, 0xf8, 0x03, 0xee, 0x88, 0xe0, 0xee, 0x5a)
}

// call makes a call with AX.
func (r *real) call(vector byte, ax uint16) {
	r.add(0xb8, byte(ax), byte(ax>>8), 0xcd, vector) // mov ax, …; int …
}

// powerOff goes to ACPI S5.
func (r *real) powerOff() []byte {
	r.add(0xba, 0x04, 0x06, 0xb8, 0x00, 0x34, 0xef, 0xfa, 0xf4) // mov dx, 0x604; mov ax, 5<<10|1<<13; out dx, ax; cli; hlt
	return r.Code
}

// bootReal starts a guest whose setup code is code, and returns it and its console.
func bootReal(t *testing.T, code []byte) (*Guest, *os.File) {
	t.Helper()
	g := imageSpec(t, tinykernel.Real(code)).loaded(t)
	v := viewer(t, g)
	start(t, g)
	return g, v
}

// A 16-bit kernel is entered as its protocol says, and calls the BIOS.
func TestRealMode(t *testing.T) {
	r := &real{}
	for _, segment := range []byte{1, 3, 0, 2} {
		r.register(0x8c, 0xc0|segment<<3) // mov ax, cs; ds, es, ss
	}
	r.register(0x89, 0xe0)                                           // mov ax, sp
	r.register(0x9c, 0x58)                                           // pushf; pop ax
	r.register(0xb4, 0xff, 0xcd, 0x12)                               // mov ah, 0xff; int 0x12
	r.add(0x31, 0xdb, 0x31, 0xff, 0x66, 0x89, 0xd8)                  // xor bx, bx; xor di, di; mov eax, ebx
	r.add(0x66, 0xb9, 20, 0, 0, 0, 0x66, 0xba)                       // mov ecx, 20; mov edx, "SMAP"
	r.add('P', 'A', 'M', 'S', 0xbf, 0x00, 0x80)                      // mov di, 0x8000
	r.call(0x15, 0xe820)                                             // the first range
	r.register(0x89, 0xd8)                                           // mov ax, bx
	r.register(0xa1, 0x09, 0x80)                                     // mov ax, [0x8009]
	r.register(0xb8, 0x01, 0x24, 0xf9, 0xcd, 0x15, 0x19, 0xc0)       // mov ax, 0x2401; stc; int 0x15; sbb ax, ax
	r.register(0xb8, 0x00, 0x02, 0xf8, 0xcd, 0x13, 0x19, 0xc0)       // mov ax, 0x0200; clc; int 0x13; sbb ax, ax
	r.register(0xb8, 0x0a, 0xb1, 0x31, 0xdb, 0x31, 0xff, 0xcd, 0x1a, // mov ax, 0xb10a; xor bx, bx; xor di, di; int 0x1a
		0x89, 0xc8) // mov ax, cx
	for _, c := range []byte("text") {
		r.call(0x10, 0x0e00|uint16(c))
	}
	g, v := bootReal(t, r.powerOff())
	b := lastWords(t, g, v)
	want := []uint16{0x1020, 0x1000, 0x1000, 0x1000, 0xe000, 0x0002, 639, 1, 0x09fc, 0, 0xffff}
	if len(b) != 2*len(want)+2+4 {
		t.Fatalf("%d bytes reported: % x", len(b), b)
	}
	for i, w := range want {
		got := binary.LittleEndian.Uint16(b[2*i:])
		if i == 5 {
			got &= 1<<9 | 1<<1 // interrupts are off
		}
		if got != w {
			t.Errorf("report %d = %#x, want %#x", i, got, w)
		}
	}
	if bridge, text := binary.LittleEndian.Uint16(b[2*len(want):]), b[2*len(want)+2:]; bridge == 0xffff || string(text) != "text" {
		t.Errorf("vendor of device 0 = %#x, printed %q", bridge, text)
	}
}

// The timer's ticks are counted, a key is waited for, and INT 18h is the end.
func TestRealModeInterrupts(t *testing.T) {
	r := &real{}
	r.add(0xfb, 0x31, 0xc0, 0x8e, 0xd8) // sti; xor ax, ax; mov ds, ax
	r.add(0xa1, 0x6c, 0x04)             // mov ax, [0x46c]
	r.add(0xf4, 0x3b, 0x06, 0x6c, 0x04) // hlt; cmp ax, [0x46c]
	r.add(0x74, 0xf9)                   // je to hlt
	for _, c := range []byte("tick") {
		r.call(0x10, 0x0e00|uint16(c))
	}
	r.call(0x16, 0x0000)
	r.add(0xb4, 0x0e, 0xcd, 0x10) // mov ah, 0xe; int 0x10
	r.add(0xcd, 0x18)             // int 0x18
	g, v := bootReal(t, r.Code)
	got := make([]byte, 4)
	if _, err := io.ReadFull(v, got); err != nil || string(got) != "tick" {
		t.Fatalf("console = %q, %v", got, err)
	}
	if _, err := v.Write([]byte("k")); err != nil {
		t.Fatal(err)
	}
	if got := ended(t, g); got.Reason != protocol.Halted {
		t.Fatalf("result = %+v, want halted", got)
	}
	g.Hub.Close()
	if b, err := io.ReadAll(v); err != nil || !bytes.Equal(b, []byte("k\r\nNothing to boot.\r\n")) {
		t.Errorf("console = %q, %v", b, err)
	}
}

// A kernel that is entered otherwise has no BIOS to call, and whoever writes to
// its port calls nothing. A jump to the reset vector is a reset.
func TestBIOSPort(t *testing.T) {
	var c tinykernel.Code
	g := newSpec(t, c.Out(0xb2, 1).PowerOff()).loaded(t)
	start(t, g)
	if got := ended(t, g); got.Reason != protocol.PoweredOff {
		t.Errorf("result = %+v, want powered-off", got)
	}
	// out 0xb2, al; jmp 0xffff:0
	g, _ = bootReal(t, []byte{0xe6, 0xb2, 0xea, 0, 0, 0xff, 0xff})
	if got := ended(t, g); got.Reason != protocol.Reset {
		t.Errorf("result = %+v, want reset", got)
	}
}

// Pauses do not lose what a BIOS call was asked for.
func TestPauseInBIOS(t *testing.T) {
	r := &real{}
	r.add(0xb9, 0x00, 0x08)                         // mov cx, 2048
	r.call(0x12, 0)                                 // int 0x12
	r.add(0x3d, 0x7f, 0x02, 0x75, 0x0d, 0xe2, 0xf4) // cmp ax, 639; jne to hlt; loop
	r.powerOff()
	r.add(0xfa, 0xf4) // cli; hlt
	g, _ := bootReal(t, r.Code)
	for range 20 {
		if err := g.Pause(); err != nil {
			break // it has ended
		}
		if err := g.Resume(); err != nil {
			break
		}
	}
	if got := ended(t, g); got.Reason != protocol.PoweredOff {
		t.Errorf("result = %+v, want powered-off", got)
	}
}
