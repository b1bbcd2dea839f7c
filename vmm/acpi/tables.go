// Package acpi makes the tables that tell a guest's kernel what its machine
// is: processors, interrupt controllers, the PCI host bridge, serial port,
// clock, power button, and how to power off and reset. It follows the ACPI
// Specification 6.5 and the PCI Firmware Specification 3.3 (MCFG, _OSC).
//
// The machine is not "hardware-reduced": it has the fixed registers that every
// system knows. The power button is bit 8 of PM1 status and raises the SCI;
// S5 is sleep type 5 in PM1 control; reset is value 6 at port 0xCF9.
package acpi

import (
	"encoding/binary"
	"fmt"

	"github.com/ashlar-hv/ashlar/vmm/arch"
	"github.com/ashlar-hv/ashlar/vmm/memory"
)

// The fixed registers at arch.PortACPI (section 4.8.3).
const (
	PM1Status  = 0 // 2 bytes
	PM1Enable  = 2
	PM1Control = 4
	PM1Size    = 6
	// PowerButtonBit is the bit of the power button in PM1Status and PM1Enable.
	PowerButtonBit = 1 << 8
	// SleepEnable and SleepType are in PM1Control; SoftOff is the type for S5.
	SleepEnable    = 1 << 13
	SleepTypeShift = 10
	SleepTypeMask  = 7
	SoftOff        = 5
	// TimerSize is that of the power management timer at arch.PortTimer, in bytes; it
	// counts TimerHz times a second (section 4.8.3.3).
	TimerSize = 4
	TimerHz   = 3579545
	// ResetValue at arch.PortReset resets the machine.
	ResetValue = 6
)

// A Window is a range of addresses for devices.
type Window struct {
	Base, Size uint64
}

// A Machine is what the tables tell of.
type Machine struct {
	CPUs           []uint8 // their APIC IDs
	Present        int     // how many of them are there at the start
	Pluggable      bool    // whether they come and go
	MMIO32, MMIO64 Window
	Nodes          []Node // none where the guest is told of none
	ECAM           Window // of all buses, which are numbered from 0
	Hotplug        bool   // there are PCI Express hot-plug slots
	PCILines       bool   // PCI devices may have interrupts by pins
	PMTimer        bool   // there is a power management timer
}

// lastBus is the highest number of a PCI bus.
func (m *Machine) lastBus() uint16 {
	const busSize = 1 << 20
	return uint16(max(m.ECAM.Size/busSize, 1) - 1)
}

// A Table is a table with its place.
type Table struct {
	GPA  uint64
	Data []byte
}

const (
	headerSize  = 36
	rsdpSize    = 36
	facsSize    = 64
	fadtSize    = 276
	alignment   = 64
	oemID       = "ASHLAR"
	oemTableID  = "ASHLARVM"
	creatorID   = "ASHL"
	offLength   = 4
	offChecksum = 9
)

// checksum makes the sum of b zero by setting b[at].
func checksum(b []byte, at int) {
	b[at] = 0
	var sum byte
	for _, v := range b {
		sum += v
	}
	b[at] = -sum
}

// table is a header (section 5.2.6) and body.
func table(signature string, revision byte, body []byte) []byte {
	b := make([]byte, headerSize, headerSize+len(body))
	copy(b, signature)
	b[8] = revision
	copy(b[10:], oemID)
	copy(b[16:], oemTableID)
	binary.LittleEndian.PutUint32(b[24:], 1)
	copy(b[28:], creatorID)
	binary.LittleEndian.PutUint32(b[32:], 1)
	b = append(b, body...)
	binary.LittleEndian.PutUint32(b[offLength:], uint32(len(b)))
	checksum(b, offChecksum)
	return b
}

// Tables makes all tables, the RSDP first, from base on.
func Tables(m Machine, base uint64) []Table {
	next := base
	var out []Table
	place := func(b []byte) uint64 {
		gpa := next
		out = append(out, Table{gpa, b})
		next = (gpa + uint64(len(b)) + alignment - 1) &^ (alignment - 1)
		return gpa
	}
	place(make([]byte, rsdpSize)) // filled in below
	facs := place(facs())
	dsdt := place(dsdt(m))
	roots := []uint64{place(fadt(m, facs, dsdt)), place(madt(m)), place(mcfg(m))}
	for _, t := range numa(m) {
		roots = append(roots, place(t))
	}
	xsdt := place(xsdt(roots...))
	copy(out[0].Data, rsdp(xsdt))
	return out
}

// Write puts the tables into mem at base, where size bytes are free, and
// returns the address of the RSDP.
func Write(mem *memory.Memory, m Machine, base, size uint64) (uint64, error) {
	ts := Tables(m, base)
	for _, t := range ts {
		if t.GPA+uint64(len(t.Data)) > base+size {
			return 0, fmt.Errorf("ACPI tables for %d vCPUs do not fit %d bytes", len(m.CPUs), size)
		}
		if err := mem.WriteAt(t.GPA, t.Data); err != nil {
			return 0, fmt.Errorf("write ACPI table: %w", err)
		}
	}
	return ts[0].GPA, nil
}

// rsdp is the root (section 5.2.5.3).
func rsdp(xsdt uint64) []byte {
	b := make([]byte, rsdpSize)
	copy(b, "RSD PTR ")
	copy(b[9:], oemID)
	b[15] = 2
	binary.LittleEndian.PutUint32(b[20:], rsdpSize)
	binary.LittleEndian.PutUint64(b[24:], xsdt)
	checksum(b[:20], 8)
	checksum(b, 32)
	return b
}

func xsdt(tables ...uint64) []byte {
	var b []byte
	for _, t := range tables {
		b = binary.LittleEndian.AppendUint64(b, t)
	}
	return table("XSDT", 1, b)
}

// facs holds the global lock (section 5.2.10); it has no checksum.
func facs() []byte {
	b := make([]byte, facsSize)
	copy(b, "FACS")
	binary.LittleEndian.PutUint32(b[offLength:], facsSize)
	b[32] = 2
	return b
}

// gas is a generic address of an I/O port (section 5.2.3.2).
func gas(b []byte, port uint64, bytes int) {
	const systemIO = 1
	b[0], b[1] = systemIO, byte(8*bytes)
	b[3] = byte(min(bytes, 2)) // access size: byte or word
	binary.LittleEndian.PutUint64(b[4:], port)
}

// fadt describes the fixed registers (section 5.2.9).
func fadt(m Machine, facs, dsdt uint64) []byte {
	const (
		enterpriseServer = 4
		legacyDevices    = 1 << 0
		vgaNotPresent    = 1 << 2
		noASPM           = 1 << 4

		wbinvd       = 1 << 0
		procC1       = 1 << 2
		noSlpButton  = 1 << 5 // there is no fixed one
		fixRTC       = 1 << 6 // no wake status in fixed registers
		timer32Bits  = 1 << 8
		resetRegSup  = 1 << 10
		noC2, noC3   = 101, 1001
		pm1EventSize = 4
		pm1CntSize   = 2
	)
	b := make([]byte, fadtSize)
	le := binary.LittleEndian
	le.PutUint32(b[36:], uint32(facs))
	le.PutUint32(b[40:], uint32(dsdt))
	b[45] = enterpriseServer
	le.PutUint16(b[46:], arch.IRQACPI)
	le.PutUint32(b[56:], arch.PortACPI+PM1Status)
	le.PutUint32(b[64:], arch.PortACPI+PM1Control)
	b[88], b[89] = pm1EventSize, pm1CntSize
	le.PutUint16(b[96:], noC2)
	le.PutUint16(b[98:], noC3)
	le.PutUint16(b[109:], legacyDevices|vgaNotPresent|noASPM)
	le.PutUint32(b[112:], wbinvd|procC1|noSlpButton|fixRTC|timer32Bits|resetRegSup)
	gas(b[116:], arch.PortReset, 1)
	b[128] = ResetValue
	b[131] = 5 // minor version
	// Firmware control and DSDT stand above once; the wide fields are for
	// addresses that need them (FACS), or win where both are set (DSDT).
	le.PutUint64(b[140:], dsdt)
	gas(b[148:], arch.PortACPI+PM1Status, pm1EventSize)
	gas(b[172:], arch.PortACPI+PM1Control, pm1CntSize)
	if m.PMTimer {
		le.PutUint32(b[76:], arch.PortTimer)
		b[91] = TimerSize
		gas(b[208:], arch.PortTimer, TimerSize)
		b[208+3] = 3 // read as a double word
	}
	copy(b[268:], "KVMKVMKV")
	return table("FACP", 6, b[headerSize:])
}

// madt lists processors and interrupt controllers (section 5.2.12).
func madt(m Machine) []byte {
	const (
		pcatCompat = 1
		// levelHigh: active high, level triggered
		levelHigh = 1 | 3<<2
	)
	le := binary.LittleEndian
	b := le.AppendUint32(nil, arch.LAPICBase)
	b = le.AppendUint32(b, pcatCompat)
	for uid, id := range m.CPUs {
		b = append(b, localAPIC(uid, id, uid < m.Present)...)
	}
	b = append(b, 1, 12, 0, 0)
	b = le.AppendUint32(b, arch.IOAPICBase)
	b = le.AppendUint32(b, 0)
	override := func(source byte, gsi uint32, flags uint16) {
		b = append(b, 2, 10, 0, source)
		b = le.AppendUint32(b, gsi)
		b = le.AppendUint16(b, flags)
	}
	override(0, 2, 0) // the timer is at pin 2
	override(arch.IRQACPI, arch.IRQACPI, levelHigh)
	b = append(b, 4, 6, 0xff, 0, 0, 1) // NMI at LINT1 of all
	return table("APIC", 6, b)
}

// mcfg says where ECAM is (PCI Firmware Specification 3.3 section 4.1.2).
func mcfg(m Machine) []byte {
	b := make([]byte, 8) // reserved
	b = binary.LittleEndian.AppendUint64(b, m.ECAM.Base)
	b = append(b, 0, 0, 0, byte(m.lastBus())) // segment 0, from bus 0 on
	return table("MCFG", 1, append(b, 0, 0, 0, 0))
}
