package vfio

import (
	"encoding/binary"

	"github.com/ashlar-hv/ashlar/vmm/pci"
)

// Registers of the type 0 header (PCI Express 5.0 section 7.5.1).
const (
	regCommand    = 0x04
	regStatus     = 0x06
	regHeaderType = 0x0e
	regBAR        = 0x10
	regROM        = 0x30
	regCapPointer = 0x34
	regPin        = 0x3d
	firstCap      = 0x40
	headerSpace   = 0x100

	cmdMemory      = 1 << 1
	cmdBusMaster   = 1 << 2
	cmdParity      = 1 << 6
	cmdSERR        = 1 << 8
	cmdINTxDisable = 1 << 10

	statusCapList = 1 << 4
)

// A treatment says who answers for some bytes of configuration space.
type treatment int

const (
	// fixed: the guest reads what stood there after the reset, and writes are lost.
	fixed treatment = iota
	// zero: the guest reads zeros, and writes are lost.
	zero
	// kept: the guest reads what it has written, which goes nowhere.
	kept
	// shown: the guest reads from the device, and writes are lost.
	shown
	// passed: the guest reads from the device and writes to it; the kernel may have its own say.
	passed
)

// A field is some bytes of configuration space, or of a capability, and their treatment. What
// no field names reads as zeros, and writes there are refused: lost, and counted.
type field struct {
	off, n int
	t      treatment
}

// header are the fields of the header. BARs, command register, pin and capability pointer
// are set up by themselves.
var headerFields = []field{
	{0x00, 4, fixed},         // Vendor ID, Device ID
	{regCommand, 2, zero},    // Command: see writeCommand
	{regStatus, 2, shown},    // Status
	{0x08, 4, fixed},         // Revision ID, Class Code
	{0x0c, 2, kept},          // Cache Line Size, Latency Timer: without an effect
	{regHeaderType, 1, zero}, // Header Type: 0, one function
	{0x0f, 1, zero},          // BIST: refused
	{regBAR, 6 * 4, zero},    // BARs: emulated (bars.go)
	{0x28, 4, zero},          // CardBus CIS Pointer
	{0x2c, 4, fixed},         // Subsystem IDs
	{regROM, 4, zero},        // Expansion ROM: emulated where it was asked for
	{regCapPointer, 1, zero}, // Capabilities Pointer: emulated (capabilities.go)
	{0x35, 7, zero},          // reserved
	{0x3c, 1, kept},          // Interrupt Line
	{regPin, 1, zero},        // Interrupt Pin: INTA or none
	{0x3e, 2, zero},          // Min_Gnt, Max_Lat
}

// apply sets up fields of what is at base.
func (f *Function) apply(base int, fields []field) {
	for _, e := range fields {
		off := base + e.off
		switch e.t {
		case fixed:
			f.cfg.Fixed(off, f.start[off:off+e.n]...)
		case zero:
			f.cfg.Fixed(off, make([]byte, e.n)...)
		case kept:
			f.cfg.Fixed(off, f.start[off:off+e.n]...)
			ones := make([]byte, e.n)
			pci.Ones(ones)
			f.cfg.Masked(off, ones...)
		case shown, passed:
			f.cfg.Pass(off, e.n, e.t == passed)
		}
	}
}

// header sets up the header.
func (f *Function) header() error {
	f.apply(0, headerFields)
	var mask [2]byte
	binary.LittleEndian.PutUint16(mask[:], cmdMemory|cmdBusMaster|cmdParity|cmdSERR|cmdINTxDisable)
	f.cfg.Masked(regCommand, mask[:]...)
	f.cfg.Hook(regCommand, 2, func() { f.report(f.writeCommand()) }, nil)
	if q := f.dev.irqOf(irqINTx); q.count > 0 && q.events && f.c.Line != nil {
		f.irq.intx = true
		f.cfg.Fixed(regPin, 1)
	}
	return nil
}

// writeCommand brings the device's command register in line with the guest's. The device always decodes
// memory: what the guest sees of it are mappings, which would fault otherwise; where they are
// is for the guest's register to say. Bus mastering and INTx are as the guest wants them.
func (f *Function) writeCommand() error {
	var b [2]byte
	f.cfg.Bytes(regCommand, b[:])
	binary.LittleEndian.PutUint16(b[:], binary.LittleEndian.Uint16(b[:])|cmdMemory)
	f.with(func() error { return f.dev.write(regionConfig, regCommand, b[:]) })
	return nil
}
