// Package tinykernel makes kernels of a few bytes of code, for tests: bzImages,
// PVH and multiboot images, real guests that /dev/kvm runs anywhere in no time.
package tinykernel

import (
	"encoding/binary"
	"os"
	"testing"
)

// Places in the image (Documentation/arch/x86/boot.rst).
const (
	setupSize = 2 * 512 // boot sector and one setup sector
	entry     = 0x200   // of the 64-bit entry in the code
	// Pref is where the code is loaded; it is entered 0x200 after.
	Pref = 1 << 20
	// InitSize is how much memory the image asks for.
	InitSize = 1 << 20
)

// Image makes a bzImage whose 64-bit entry is code.
func Image(code []byte) []byte {
	n := (entry + len(code) + 15) &^ 15
	b := make([]byte, setupSize+n)
	le := binary.LittleEndian
	b[0x1f1] = 1
	le.PutUint32(b[0x1f4:], uint32(n/16))
	le.PutUint16(b[0x1fe:], 0xaa55)
	b[0x200], b[0x201] = 0xeb, 0x66 // jmp over the header, which ends at 0x268
	copy(b[0x202:], "HdrS")
	le.PutUint16(b[0x206:], 0x20f)
	b[0x211] = 1                        // loaded high
	le.PutUint32(b[0x22c:], 0x7fffffff) // highest initramfs address
	le.PutUint32(b[0x230:], 0x1000)     // alignment
	b[0x234] = 1                        // relocatable
	le.PutUint16(b[0x236:], 1)          // 64-bit entry
	le.PutUint32(b[0x238:], 255)        // command line
	le.PutUint64(b[0x258:], Pref)       // preferred address
	le.PutUint32(b[0x260:], InitSize)   // memory needed
	copy(b[setupSize+entry:], code)
	return b
}

// File is an open file with an Image.
func File(t testing.TB, code []byte) *os.File {
	t.Helper()
	return Open(t, Image(code))
}

// Open is an open file with any image.
func Open(t testing.TB, image []byte) *os.File {
	t.Helper()
	f, err := os.Create(t.TempDir() + "/kernel")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(image); err != nil {
		t.Fatal(err)
	}
	return f
}

// Code is a program under construction.
type Code []byte

// Out writes byte v to a port.
func (c Code) Out(port uint16, v byte) Code {
	// mov dx, port; mov al, v; out dx, al
	return append(c, 0x66, 0xba, byte(port), byte(port>>8), 0xb0, v, 0xee)
}

// Out16 writes v to a port.
func (c Code) Out16(port, v uint16) Code {
	// mov dx, port; mov ax, v; out dx, ax
	return append(c, 0x66, 0xba, byte(port), byte(port>>8), 0x66, 0xb8, byte(v), byte(v>>8), 0x66, 0xef)
}

// Store writes v to memory at addr.
func (c Code) Store(addr, v uint64) Code {
	// mov rbx, addr; mov rax, v; mov [rbx], rax
	c = binary.LittleEndian.AppendUint64(append(c, 0x48, 0xbb), addr)
	c = binary.LittleEndian.AppendUint64(append(c, 0x48, 0xb8), v)
	return append(c, 0x48, 0x89, 0x03)
}

// Print writes s to the serial port.
func (c Code) Print(s string) Code {
	for i := range len(s) {
		c = c.Out(0x3f8, s[i])
	}
	return c
}

// PowerOff goes to ACPI S5.
func (c Code) PowerOff() Code { return c.Out16(0x604, 5<<10|1<<13).Halt() }

// Reset uses the reset register.
func (c Code) Reset() Code { return c.Out(0xcf9, 6).Halt() }

// Halt halts with interrupts off.
func (c Code) Halt() Code { return append(c, 0xfa, 0xf4, 0xeb, 0xfd) } // cli; hlt; jmp to hlt

// Idle halts with interrupts on.
func (c Code) Idle() Code { return append(c, 0xfb, 0xf4, 0xeb, 0xfd) }

// Spin runs for ever.
func (c Code) Spin() Code { return append(c, 0xeb, 0xfe) }

// TripleFault loads an empty interrupt table and divides by zero.
func (c Code) TripleFault() Code {
	// push 0; push 0; lidt [rsp]; xor ecx, ecx; div ecx
	return append(c, 0x6a, 0, 0x6a, 0, 0x0f, 0x01, 0x1c, 0x24, 0x31, 0xc9, 0xf7, 0xf1)
}
