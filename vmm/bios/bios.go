// Package bios is as much of a PC's BIOS as a kernel needs that is entered in
// real mode (iPXE's .lkrn, and whatever such a loader starts): the interrupt
// vector table, the BIOS data area, a few bytes of code in the last page below
// 1 MiB, and the services behind them. What a call wants is after Ralf Brown's
// Interrupt List (release 61), the memory map after ACPI 6.5 section 15, PCI
// after the PCI BIOS Specification 2.1.
//
// The code of a service is an OUT to Port and an IRET. The process makes what
// was asked for while the processor waits, on its registers. These, and all
// that lies in memory, are the guest's: nothing in here trusts them, and no
// call takes long.
package bios

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/ashlar-hv/ashlar/vmm/boot"
	"github.com/ashlar-hv/ashlar/vmm/kvm"
	"github.com/ashlar-hv/ashlar/vmm/memory"
)

// Port is where the code calls: the port by which software calls firmware on a
// PC (APM control).
const Port = 0xb2

// A Config is what the services use.
type Config struct {
	Memory  *memory.Memory
	Map     []boot.Range
	Console io.Writer           // the screen; its Write may not block
	Key     func() (byte, bool) // the next byte that was typed, if there is one
	PCI     Config1             // configuration space, by offsets of ECAM
	Now     func() time.Time    // UTC
	Reset   func()              // ends the machine
}

// Config1 is the configuration space of bus 0.
type Config1 interface {
	Read(off uint64, b []byte)
	Write(off uint64, b []byte)
}

// A BIOS has what is kept between two calls.
type BIOS struct {
	c Config

	mu       sync.Mutex // guards what follows
	row, col int        // of the cursor, as far as it can be told
	key      byte       // typed, and looked at
	hasKey   bool
}

// New makes the services.
func New(c Config) *BIOS { return &BIOS{c: c} }

// Write puts vectors, data area and code into memory. The code starts the kernel
// at segment:0.
func (b *BIOS) Write(segment uint16) error {
	if err := b.c.Memory.WriteAt(0, vectors()); err != nil {
		return fmt.Errorf("write interrupt vectors: %w", err)
	}
	if err := b.c.Memory.WriteAt(romBase, rom(segment)); err != nil {
		return fmt.Errorf("write BIOS: %w", err)
	}
	return b.writeData()
}

// The BIOS data area. Memory sizes are arch.WriteBIOSData's.
const (
	dataCOM1      = 0x400
	dataEquipment = 0x410
	dataVideoMode = 0x449
	dataColumns   = 0x44a
	dataTicks     = 0x46c
	dataMidnight  = 0x470
	dataLastRow   = 0x484
	dataKeyboard  = 0x496
	baseMemory    = 0x413
	equipment     = 1<<9 | 2<<4 // one serial port, text of 80 columns
	enhanced      = 1 << 4      // keyboard
	columns, rows = 80, 25
	videoMode     = 3
	ticksPerDay   = 0x1800b0
	normal        = 7 // attribute of text
)

func (b *BIOS) writeData() error {
	le := binary.LittleEndian
	for _, d := range []struct {
		at uint64
		b  []byte
	}{
		{dataCOM1, le.AppendUint16(nil, 0x3f8)}, {dataEquipment, le.AppendUint16(nil, equipment)},
		{dataVideoMode, []byte{videoMode}}, {dataColumns, le.AppendUint16(nil, columns)},
		{dataTicks, le.AppendUint32(nil, ticks(b.c.Now()))},
		{dataLastRow, []byte{rows - 1}}, {dataKeyboard, []byte{enhanced}},
	} {
		if err := b.c.Memory.WriteAt(d.at, d.b); err != nil {
			return fmt.Errorf("write BIOS data area: %w", err)
		}
	}
	return nil
}

// ticks is the time of day in ticks of the timer.
func ticks(t time.Time) uint32 {
	day := t.Sub(time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, t.Location()))
	return min(uint32(day.Seconds()*ticksPerDay/86400), ticksPerDay-1)
}

// realMode is CR0.PE, which is not set.
const realMode = 1 << 0

// Call makes the service that the code at r, just behind its OUT, calls for, on
// the registers r. RIP and RSP stay. It is false, and nothing has changed, where something else
// has written to Port.
func (b *BIOS) Call(r *kvm.Regs, s *kvm.Sregs) bool {
	if s.CR0&realMode != 0 || s.CS.Base != segment<<4 || r.RIP < stubs || r.RIP >= stubs+256*stubSize || (r.RIP-stubs)%stubSize != outSize {
		return false
	}
	c := call{b: b, Regs: r, s: s}
	c.readFlags()
	f := services[byte((r.RIP-stubs)/stubSize)]
	if f == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	f(&c)
	c.writeFlags()
	return true
}

// services by their vectors.
var services map[byte]func(*call)

func init() {
	services = map[byte]func(*call){
		0x10: video, 0x11: (*call).equipment, 0x12: (*call).baseMemory, 0x13: (*call).disk, 0x15: system,
		0x16: keyboard, 0x18: (*call).noBoot, 0x19: (*call).reset, 0x1a: clock,
	}
}

// A call is one call of a service: registers of 16 bits by name, the flags that
// IRET will give to the caller, and memory by segment and offset.
type call struct {
	b *BIOS
	*kvm.Regs
	s     *kvm.Sregs
	flags uint16
}

// Flags that tell a result.
const (
	carry = 1 << 0
	zero  = 1 << 6
)

func (c *call) ax() uint16 { return uint16(c.RAX) }
func (c *call) ah() byte   { return byte(c.RAX >> 8) }
func (c *call) al() byte   { return byte(c.RAX) }
func (c *call) dh() byte   { return byte(c.RDX >> 8) }
func (c *call) dl() byte   { return byte(c.RDX) }

// set16 sets the low half of a 32-bit register.
func set16(r *uint64, v uint16) { *r = *r&^0xffff | uint64(v) }

// set32 sets a 32-bit register.
func set32(r *uint64, v uint32) { *r = uint64(v) }

func (c *call) setAH(v byte) { c.RAX = c.RAX&^0xff00 | uint64(v)<<8 }
func (c *call) setAL(v byte) { c.RAX = c.RAX&^0xff | uint64(v) }

// set sets or clears a flag.
func (c *call) set(flag uint16, on bool) {
	c.flags &^= flag
	if on {
		c.flags |= flag
	}
}

// flagsAt is where the caller's flags lie: above IP and CS on its stack.
func (c *call) flagsAt() uint64 { return c.s.SS.Base + uint64(uint16(c.RSP)+4) }

func (c *call) readFlags() {
	var b [2]byte
	// A stack that is nowhere gives no flags, and takes none.
	_ = c.b.c.Memory.ReadAt(c.flagsAt(), b[:])
	c.flags = binary.LittleEndian.Uint16(b[:])
}

func (c *call) writeFlags() {
	_ = c.b.c.Memory.WriteAt(c.flagsAt(), binary.LittleEndian.AppendUint16(nil, c.flags))
}

func (c *call) equipment() { set16(&c.RAX, equipment) }

func (c *call) baseMemory() {
	var b [2]byte
	_ = c.b.c.Memory.ReadAt(baseMemory, b[:]) // always memory
	set16(&c.RAX, binary.LittleEndian.Uint16(b[:]))
}

// disk: there is none.
func (c *call) disk() {
	c.setAH(1) // invalid function
	c.set(carry, true)
}

// noBoot is the end of who found nothing to boot. Its code halts then.
func (c *call) noBoot() {
	c.b.print("\r\nNothing to boot.\r\n")
}

func (c *call) reset() { c.b.c.Reset() }
