package arch

import (
	"encoding/binary"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/kvm"
	"github.com/ashlar-hv/ashlar/vmm/memory"
)

func TestMMIO64(t *testing.T) {
	const gib = 1 << 30
	for _, tt := range []struct {
		bits       int
		memory     uint64
		base, size uint64 // 0: refused
	}{
		{36, 1 * gib, 32 * gib, 16 * gib},
		{36, 6 * gib, 32 * gib, 16 * gib},
		{36, 40 * gib, 41 * gib, 16 * gib},
		{36, 60 * gib, 0, 0},
		{40, 4 * gib, 512 * gib, 256 * gib},
		{48, 4 * gib, 32768 * gib, 16384 * gib},
		{52, 4 * gib, 32768 * gib, 16384 * gib},
		{32, 1 * gib, 0, 0},
		{0, 1 * gib, 0, 0},
	} {
		base, size, err := MMIO64(tt.bits, tt.memory)
		if base != tt.base || size != tt.size || (err == nil) != (tt.size > 0) {
			t.Errorf("MMIO64(%d, %d GiB) = %d GiB, %d GiB, %v, want %d GiB, %d GiB", tt.bits, tt.memory/gib,
				base/gib, size/gib, err, tt.base/gib, tt.size/gib)
		}
		if err == nil && tt.memory > memory.LowTop && base < memory.HighBase+tt.memory-memory.LowTop {
			t.Errorf("MMIO64(%d, %d GiB): the window at %#x lies in the memory", tt.bits, tt.memory/gib, base)
		}
	}
}

// Nothing of the layout may lie over anything else.
func TestLayout(t *testing.T) {
	ranges := []struct {
		name      string
		base, end uint64
	}{
		{"GDT", GDT, GDT + 5*8}, {"boot parameters", BootParams, BootParams + 4096},
		{"page tables", PageTables, PageTables + 6*4096}, {"command line", Cmdline, Cmdline + 64<<10},
		{"low memory's end", LowReserved, LowReserved}, {"ACPI", ACPITables, ACPITables + ACPISize},
		{"SMBIOS", SMBIOSTables, SMBIOSTables + SMBIOSSize}, {"high memory", HighMemory, memory.LowTop},
		{"MMIO", MMIO32Base, MMIO32Base + MMIO32Size}, {"ECAM", ECAMBase, ECAMBase + 1<<20},
		{"IOAPIC", IOAPICBase, IOAPICBase + 4096}, {"LAPIC", LAPICBase, LAPICBase + 1<<20},
		{"identity map", IdentityMap, IdentityMap + 4096}, {"TSS", TSS, TSS + 3*4096},
		{"memory above", memory.HighBase, memory.HighBase},
	}
	for i := 1; i < len(ranges); i++ {
		if a, b := ranges[i-1], ranges[i]; a.end > b.base {
			t.Errorf("%s ends at %#x, %s starts at %#x", a.name, a.end, b.name, b.base)
		}
	}
}

func find(t *testing.T, es []kvm.CPUIDEntry, function, index uint32) kvm.CPUIDEntry {
	t.Helper()
	var found []kvm.CPUIDEntry
	for _, e := range es {
		if e.Function == function && e.Index == index {
			found = append(found, e)
		}
	}
	if len(found) != 1 {
		t.Fatalf("leaf %#x.%d: %d entries", function, index, len(found))
	}
	return found[0]
}

// host is what KVM on a large AMD host might support, and Intel's cache leaf.
func host() []kvm.CPUIDEntry {
	const sig = kvm.CPUIDSignificantIndex
	return []kvm.CPUIDEntry{
		{Function: 0, EAX: 0x1f, EBX: 0x68747541},
		{Function: 1, EBX: 0x55200800, ECX: ecxVMX | ecxTSCDeadline, EDX: edxHTT},
		{Function: 4, Index: 0, Flags: sig, EAX: 0xfc00c121},
		{Function: 4, Index: 3, Flags: sig, EAX: 0xfc0fc163},
		{Function: 0xb, Index: 0, Flags: sig, EAX: 1, EBX: 2, EDX: 77},
		{Function: 0xb, Index: 1, Flags: sig, EAX: 7, EBX: 128, EDX: 77},
		{Function: 0x40000000, EAX: 0x40000001, EBX: 0x4b4d564b},
		{Function: 0x80000001, ECX: amdECXSVM | amdECXLegacyMP},
		{Function: 0x80000007, EDX: 1 << 8},
		{Function: 0x80000008, EAX: 0x3030, ECX: 0x707f},
		{Function: 0x8000000a, EAX: 1, EDX: 0xffff},
		{Function: 0x8000001e, EAX: 77, EBX: 0x12a, ECX: 3},
	}
}

func TestCPUID(t *testing.T) {
	es := CPUID(host(), CPU{ID: 5, Count: 6, TSCDeadline: true})
	f := find(t, es, 1, 0)
	if f.EBX>>24 != 5 || f.EBX>>16&0xff != 8 || f.EBX&0xffff != 0x800 {
		t.Errorf("leaf 1 EBX = %#x, want APIC ID 5 of 8", f.EBX)
	}
	if f.ECX&ecxVMX != 0 || f.ECX&ecxX2APIC == 0 || f.ECX&ecxHypervisor == 0 || f.ECX&ecxTSCDeadline == 0 || f.EDX&edxHTT == 0 {
		t.Errorf("leaf 1 = %#x, %#x", f.ECX, f.EDX)
	}
	if e := find(t, es, 4, 0); e.EAX>>14&0xfff != 0 || e.EAX>>26 != 7 {
		t.Errorf("level 1 cache = %#x, want it of one core, 8 core IDs", e.EAX)
	}
	if e := find(t, es, 4, 3); e.EAX>>14&0xfff != 7 {
		t.Errorf("level 3 cache = %#x, want it shared by all", e.EAX)
	}
	for _, leaf := range []uint32{0xb, 0x1f} {
		smt, core := find(t, es, leaf, 0), find(t, es, leaf, 1)
		if smt.EAX != 0 || smt.EBX != 1 || smt.EDX != 5 || core.EAX != 3 || core.EBX != 6 || core.ECX != 2<<8|1 {
			t.Errorf("leaf %#x = %+v, %+v", leaf, smt, core)
		}
	}
	if e := find(t, es, 0x80000001, 0); e.ECX != amdECXLegacyMP {
		t.Errorf("AMD features = %#x", e.ECX)
	}
	if e := find(t, es, 0x80000008, 0); e.ECX != 5|3<<12 {
		t.Errorf("AMD core count = %#x", e.ECX)
	}
	if e := find(t, es, 0x8000000a, 0); e.EAX|e.EBX|e.ECX|e.EDX != 0 {
		t.Errorf("SVM leaf = %+v, want nothing", e)
	}
	if e := find(t, es, 0x8000001e, 0); e.EAX != 5 || e.EBX != 5 || e.ECX != 0 {
		t.Errorf("AMD topology = %+v", e)
	}
	one := CPUID(host(), CPU{Count: 1})
	if e := find(t, one, 1, 0); e.EBX>>16 != 1 || e.EDX&edxHTT != 0 || e.ECX&ecxTSCDeadline != 0 {
		t.Errorf("leaf 1 of a single CPU = %+v", e)
	}
	if e := find(t, one, 0xb, 1); e.EAX != 0 || e.EBX != 1 {
		t.Errorf("leaf 0xb of a single CPU = %+v", e)
	}
	if !InvariantTSC(host()) || InvariantTSC(host()[:8]) {
		t.Error("InvariantTSC is wrong")
	}
	if got := PhysBits(host()); got != 48 {
		t.Errorf("PhysBits = %d, want 48", got)
	}
	if got := PhysBits(nil); got != 36 {
		t.Errorf("PhysBits of nothing = %d, want 36", got)
	}
}

// Every address below 4 GiB is at itself.
func TestPageTables(t *testing.T) {
	f, err := memory.Create("test", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mem, err := memory.Map(f, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	if err := WriteBootTables(mem); err != nil {
		t.Fatal(err)
	}
	entry := func(table, i uint64) uint64 {
		v, err := mem.Load64(table&^0xfff + 8*i)
		if err != nil {
			t.Fatal(err)
		}
		if v&ptePage != ptePage {
			t.Fatalf("entry %d of table %#x = %#x: not present", i, table, v)
		}
		return v
	}
	for _, a := range []uint64{0, 1 << 20, 0x200000, 0x3fffffff, 0x40000000, 0xc0000000, 0xffffffff} {
		pdpt := entry(PageTables, a>>39)
		pd := entry(pdpt, a>>30&511)
		pte := entry(pd, a>>21&511)
		if got := pte&^(largePage-1) | a&(largePage-1); got != a || pte&pteLarge == 0 {
			t.Errorf("address %#x leads to %#x", a, got)
		}
	}
	gdt := make([]byte, 40)
	if err := mem.ReadAt(GDT, gdt); err != nil {
		t.Fatal(err)
	}
	if got := binary.LittleEndian.Uint64(gdt[bootCS:]); got != 0x00af9b000000ffff {
		t.Errorf("code segment = %#x", got)
	}
}
