package arch

import (
	"encoding/binary"
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

// Selectors that the boot protocol asks for (__BOOT_CS and __BOOT_DS), and a
// task state segment.
const (
	bootCS = 0x10
	bootDS = 0x18
	bootTR = 0x20
)

// descriptor is a segment descriptor: access is type, S, DPL and P, flags are
// AVL, L, D and G.
func descriptor(access, flags uint64) uint64 {
	const limit = 0xfffff
	return limit&0xffff | access<<40 | limit>>16<<48 | flags<<52
}

// WriteBootTables puts the GDT and page tables into mem: 4 GiB, every address
// at itself, in pages of 2 MiB.
func WriteBootTables(mem *memory.Memory) error {
	le := binary.LittleEndian
	gdt := make([]byte, 5*8)
	le.PutUint64(gdt[bootCS:], descriptor(0x9b, 0xa))
	le.PutUint64(gdt[bootDS:], descriptor(0x93, 0xc))
	le.PutUint64(gdt[bootTR:], descriptor(0x8b, 0x8))
	if err := mem.WriteAt(GDT, gdt); err != nil {
		return fmt.Errorf("write GDT: %w", err)
	}
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

// LongMode changes s to the state that the 64-bit boot protocol asks for.
func LongMode(s *kvm.Sregs) {
	code := kvm.Segment{Limit: 0xffffffff, Selector: bootCS, Type: 0xb, Present: 1, L: 1, S: 1, G: 1}
	data := kvm.Segment{Limit: 0xffffffff, Selector: bootDS, Type: 0x3, Present: 1, DB: 1, S: 1, G: 1}
	s.CS = code
	s.DS, s.ES, s.FS, s.GS, s.SS = data, data, data, data, data
	s.TR = kvm.Segment{Limit: 0xfffff, Selector: bootTR, Type: 0xb, Present: 1, G: 1}
	s.GDT = kvm.DTable{Base: GDT, Limit: 5*8 - 1}
	s.IDT = kvm.DTable{}
	s.CR0 = cr0PE | cr0ET | cr0NE | cr0PG
	s.CR3 = PageTables
	s.CR4 = cr4PAE
	s.EFER = eferLME | eferLMA
}

// Registers are the general registers at the kernel's 64-bit entry.
func Registers(rip, rsi uint64) kvm.Regs {
	return kvm.Regs{RIP: rip, RSI: rsi, RFLAGS: 1 << 1}
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
