package arch

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ashlar-hv/ashlar/vmm/kvm"
	"github.com/ashlar-hv/ashlar/vmm/memory"
)

// Bits of control registers, EFER and page table entries.
const (
	cr0PE     = 1 << 0
	cr0ET     = 1 << 4
	cr0NE     = 1 << 5
	cr0PG     = 1 << 31
	cr4PAE    = 1 << 5
	eferLME   = 1 << 8
	eferLMA   = 1 << 10
	ptePage   = 1<<0 | 1<<1 // present, writable
	pteLarge  = 1 << 7
	pageSize  = 4096
	largePage = 2 << 20
)

// Selectors that the 64-bit boot protocol asks for (__BOOT_CS and __BOOT_DS), and
// a task state segment. The other protocols leave the numbers open.
const (
	bootCS  = 0x10
	bootDS  = 0x18
	bootTR  = 0x20
	gdtSize = 5 * 8
)

// Types of segments, and the limits of flat ones and of a 32-bit TSS, in bytes
// less one.
const (
	typeCode  = 0xb // executed, read, accessed
	typeData  = 0x3 // read, written, accessed
	typeTSS   = 0xb // 32-bit (in long mode 64-bit), busy
	flatLimit = 0xffffffff
	tssLimit  = 0x67
)

// descriptor is the segment descriptor of s (Intel SDM volume 3 section 3.4.5),
// whose base is zero.
func descriptor(s kvm.Segment) uint64 {
	limit := uint64(s.Limit)
	if s.G != 0 {
		limit >>= 12
	}
	access := s.Type | s.S<<4 | s.DPL<<5 | s.Present<<7
	flags := s.AVL | s.L<<1 | s.DB<<2 | s.G<<3
	return limit&0xffff | uint64(access)<<40 | limit>>16<<48 | uint64(flags)<<52
}

// segments sets the segment registers of s: code as given, flat data, a TSS, and
// the GDT where WriteGDT puts it.
func segments(s *kvm.Sregs, code kvm.Segment) {
	data := kvm.Segment{Limit: flatLimit, Selector: bootDS, Type: typeData, Present: 1, DB: 1, S: 1, G: 1}
	s.CS = code
	s.DS, s.ES, s.FS, s.GS, s.SS = data, data, data, data, data
	s.TR = kvm.Segment{Limit: tssLimit, Selector: bootTR, Type: typeTSS, Present: 1}
	s.GDT = kvm.DTable{Base: GDT, Limit: gdtSize - 1}
	s.IDT = kvm.DTable{}
}

// WriteGDT puts the descriptors of the segment registers of s into mem, at GDT.
func WriteGDT(mem *memory.Memory, s *kvm.Sregs) error {
	b := make([]byte, gdtSize)
	for _, seg := range []kvm.Segment{s.CS, s.DS, s.TR} {
		binary.LittleEndian.PutUint64(b[seg.Selector:], descriptor(seg))
	}
	if err := mem.WriteAt(GDT, b); err != nil {
		return fmt.Errorf("write GDT: %w", err)
	}
	return nil
}

// WriteBIOSData puts into mem what kernels look for at the end of low memory on a
// PC, multiboot ones before anything else: in the BIOS data area (from 0x400 on)
// the segment of the extended one and the size of memory below it in KiB, and in
// the extended one, which is reserved, its own size in KiB.
func WriteBIOSData(mem *memory.Memory) error {
	const (
		ebdaSegment = 0x40e
		baseMemory  = 0x413
		ebdaKiB     = (640<<10 - LowReserved) >> 10
	)
	le := binary.LittleEndian
	err := errors.Join(
		mem.WriteAt(ebdaSegment, le.AppendUint16(nil, LowReserved>>4)),
		mem.WriteAt(baseMemory, le.AppendUint16(nil, LowReserved>>10)),
		mem.WriteAt(LowReserved, []byte{ebdaKiB}))
	if err != nil {
		return fmt.Errorf("write BIOS data area: %w", err)
	}
	return nil
}

// WritePageTables puts the page tables of LongMode into mem: 4 GiB, every
// address at itself, in pages of 2 MiB.
func WritePageTables(mem *memory.Memory) error {
	le := binary.LittleEndian
	const pml4, pdpt, pd = 0, pageSize, 2 * pageSize
	t := make([]byte, 6*pageSize)
	le.PutUint64(t[pml4:], PageTables+pdpt|ptePage)
	for i := range 4 {
		le.PutUint64(t[pdpt+8*i:], uint64(PageTables+pd+i*pageSize)|ptePage)
	}
	for i := range 4 * 512 {
		le.PutUint64(t[pd+8*i:], uint64(i*largePage)|ptePage|pteLarge)
	}
	if err := mem.WriteAt(PageTables, t); err != nil {
		return fmt.Errorf("write page tables: %w", err)
	}
	return nil
}

// LongMode changes s to the state that the 64-bit boot protocol of Linux asks
// for. It needs WriteGDT and WritePageTables.
func LongMode(s *kvm.Sregs) {
	segments(s, kvm.Segment{Limit: flatLimit, Selector: bootCS, Type: typeCode, Present: 1, L: 1, S: 1, G: 1})
	s.CR0 = cr0PE | cr0ET | cr0NE | cr0PG
	s.CR3 = PageTables
	s.CR4 = cr4PAE
	s.EFER = eferLME | eferLMA
}

// ProtectedMode changes s to the state that PVH (x86/HVM direct boot ABI, "BSP
// initial state") and multiboot (Multiboot Specification 0.6.96 section 3.2) ask
// for: 32 bits, flat segments, a TSS, no paging. It needs WriteGDT.
func ProtectedMode(s *kvm.Sregs) {
	segments(s, kvm.Segment{Limit: flatLimit, Selector: bootCS, Type: typeCode, Present: 1, DB: 1, S: 1, G: 1})
	s.CR0 = cr0PE | cr0ET // ET is always set
	s.CR3, s.CR4 = 0, 0
	s.EFER = 0
}

// RealMode changes s, which is as a reset leaves it, to the state of a PC's BIOS
// that is about to start what it has loaded: code in segment code, all else in
// segment data, the interrupt vectors at 0.
func RealMode(s *kvm.Sregs, code, data uint16) {
	const limit = 0xffff
	s.CS = kvm.Segment{Base: uint64(code) << 4, Limit: limit, Selector: code, Type: typeCode, Present: 1, S: 1}
	d := kvm.Segment{Base: uint64(data) << 4, Limit: limit, Selector: data, Type: typeData, Present: 1, S: 1}
	s.DS, s.ES, s.FS, s.GS, s.SS = d, d, d, d, d
	s.GDT, s.IDT = kvm.DTable{}, kvm.DTable{Limit: 4*256 - 1}
	s.CR0 = cr0ET
	s.CR3, s.CR4, s.EFER = 0, 0, 0
}

// Registers are the general registers at an entry rip: interrupts off, all else
// zero.
func Registers(rip uint64) kvm.Regs {
	return kvm.Regs{RIP: rip, RFLAGS: 1 << 1}
}

// MSRs that every vCPU starts with.
func MSRs() []kvm.MSR {
	const (
		miscEnable   = 0x1a0
		fastStrings  = 1 << 0
		mtrrDefType  = 0x2ff
		mtrrEnable   = 1 << 11
		mtrrWriteBck = 6
	)
	return []kvm.MSR{
		{Index: miscEnable, Data: fastStrings},
		// Memory is cached unless the guest's page tables say otherwise.
		{Index: mtrrDefType, Data: mtrrEnable | mtrrWriteBck},
	}
}

// LINT sets the two local interrupt pins of l as firmware does: the PICs at
// the first, NMI at the second.
func LINT(l *kvm.LAPICState) {
	const (
		lint0, lint1     = 0x350, 0x360
		modeExt, modeNMI = 7 << 8, 4 << 8
	)
	binary.LittleEndian.PutUint32(l.Regs[lint0:], modeExt)
	binary.LittleEndian.PutUint32(l.Regs[lint1:], modeNMI)
}
