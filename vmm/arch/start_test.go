package arch

import (
	"encoding/binary"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/kvm"
	"github.com/ashlar-hv/ashlar/vmm/memory"
)

func newMemory(t *testing.T) *memory.Memory {
	t.Helper()
	f, err := memory.Create("test", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mem, err := memory.Map(f, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mem.Close() })
	return mem
}

// The GDT has what the segment registers have, by the protocols' words.
func TestGDT(t *testing.T) {
	mem := newMemory(t)
	for _, tt := range []struct {
		name string
		mode func(*kvm.Sregs)
		cs   uint64
	}{
		{"long mode", LongMode, 0x00af9b000000ffff},
		{"protected mode", ProtectedMode, 0x00cf9b000000ffff},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s kvm.Sregs
			tt.mode(&s)
			if err := WriteGDT(mem, &s); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, s.GDT.Limit+1)
			if err := mem.ReadAt(s.GDT.Base, b); err != nil {
				t.Fatal(err)
			}
			for _, d := range []struct {
				name     string
				selector uint16
				want     uint64
			}{
				{"null", 0, 0}, {"code", s.CS.Selector, tt.cs}, {"data", s.DS.Selector, 0x00cf93000000ffff},
				{"task state", s.TR.Selector, 0x00008b0000000067},
			} {
				if got := binary.LittleEndian.Uint64(b[d.selector:]); got != d.want {
					t.Errorf("%s descriptor = %#016x, want %#016x", d.name, got, d.want)
				}
			}
		})
	}
}

func TestBIOSData(t *testing.T) {
	mem := newMemory(t)
	if err := WriteBIOSData(mem); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 0x101)
	if err := mem.ReadAt(0x400, b); err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	ebda := uint64(le.Uint16(b[0x0e:])) << 4
	if ebda != LowReserved || le.Uint16(b[0x13:]) != 639 || b[0x100] != 0 {
		t.Errorf("extended BIOS data area at %#x, %d KiB of memory", ebda, le.Uint16(b[0x13:]))
	}
	if err := mem.ReadAt(ebda, b[:1]); err != nil || b[0] != 1 {
		t.Errorf("extended BIOS data area of %d KiB, %v", b[0], err)
	}
}

func TestProtectedMode(t *testing.T) {
	s := kvm.Sregs{CR0: cr0PG | 1<<30, CR3: 1, CR4: cr4PAE, EFER: eferLME | eferLMA, APICBase: 0xfee00900}
	ProtectedMode(&s)
	if s.CR0 != cr0PE|cr0ET || s.CR3 != 0 || s.CR4 != 0 || s.EFER != 0 || s.APICBase != 0xfee00900 {
		t.Errorf("CR0 = %#x, CR3 = %#x, CR4 = %#x, EFER = %#x, APIC base %#x", s.CR0, s.CR3, s.CR4, s.EFER, s.APICBase)
	}
	if s.CS.L != 0 || s.CS.DB != 1 || s.TR.Limit != 0x67 || s.TR.Base != 0 {
		t.Errorf("CS = %+v, TR = %+v", s.CS, s.TR)
	}
	if r := Registers(0x100000); r.RIP != 0x100000 || r.RFLAGS != 2 {
		t.Errorf("registers = %+v", r)
	}
}
