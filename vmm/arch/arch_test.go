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
		end := tt.memory
		if end > memory.LowTop {
			end += memory.HighBase - memory.LowTop
		}
		base, size, err := MMIO64(tt.bits, end)
		if base != tt.base || size != tt.size || (err == nil) != (tt.size > 0) {
			t.Errorf("MMIO64(%d, %d GiB) = %d GiB, %d GiB, %v, want %d GiB, %d GiB", tt.bits, tt.memory/gib,
				base/gib, size/gib, err, tt.base/gib, tt.size/gib)
		}
		if err == nil && base < end {
			t.Errorf("MMIO64(%d, %d GiB): the window at %#x lies in the memory", tt.bits, tt.memory/gib, base)
		}
	}
}

func TestTakesNMI(t *testing.T) {
	var l kvm.LAPICState
	LINT(&l)
	if !TakesNMI(&l) {
		t.Error("no NMI at LINT1 as LINT sets it")
	}
	for _, lint1 := range []uint32{1<<16 | 4<<8, 1 << 16, 7 << 8, 0, 5 << 8} {
		binary.LittleEndian.PutUint32(l.Regs[0x360:], lint1)
		if TakesNMI(&l) {
			t.Errorf("NMI at LINT1 set to %#x", lint1)
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
	if err := WritePageTables(mem); err != nil {
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
}
