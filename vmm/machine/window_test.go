package machine

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/arch"
	"github.com/ashlar-hv/ashlar/vmm/internal/tinykernel"
)

// A guest reads configuration spaces without an exit, and finds what it wrote.
func TestConfigWithoutExits(t *testing.T) {
	const function = arch.ECAMBase + 1<<15 // the first device
	esi := binary.LittleEndian.AppendUint32([]byte{0xbe}, function)
	r := newReport()
	r.memory(64, esi...)
	r.add(0x66, 0xc7, 0x05) // mov word [the command register],
	r.Code = binary.LittleEndian.AppendUint32(r.Code, function+4)
	r.add(0x06, 0x00) // memory decoding, bus master
	r.memory(64, esi...)
	g := imageSpec(t, tinykernel.PVH(r.Code.PowerOff()).Image()).loaded(t)
	var before, after [64]byte
	g.bus.Read(function-arch.ECAMBase, before[:])
	v := viewer(t, g)
	start(t, g)
	got := lastWords(t, g, v)
	g.bus.Read(function-arch.ECAMBase, after[:])
	if want := append(before[:], after[:]...); !bytes.Equal(got, want) {
		t.Errorf("the guest reads\n% x, want\n% x", got, want)
	}
	if before[4] != 0 || after[4] != 6 {
		t.Errorf("the command register was %#x, and is %#x", before[4], after[4])
	}
	if n := g.runners[0].exits[userMMIO].Load(); n != 1 {
		t.Errorf("%d exits for memory, want 1, that of the write", n)
	}
}

// A 64-bit Linux takes it that there are no configuration ports, unless it is told to do without ECAM.
func TestConfigPortsHidden(t *testing.T) {
	ask := tinykernel.Code{
		0x66, 0xba, 0xf8, 0x0c, // mov dx, 0xcf8
		0xb8, 0x00, 0x00, 0x00, 0x80, 0xef, 0xed, // mov eax, 1<<31; out dx, eax; in eax, dx
		0xc1, 0xe8, 0x18, // shr eax, 24
		0x66, 0xba, 0xf8, 0x03, 0xee, // mov dx, 0x3f8; out dx, al
	}.PowerOff()
	for cmdline, want := range map[string]byte{"console=ttyS0": 0xff, "acpi=off": 0x80, "quiet pci=noaer,nommconf": 0x80, "pci=noacpi": 0x80} {
		s := newSpec(t, ask)
		s.Boot.Cmdline = cmdline
		g := s.loaded(t)
		v := viewer(t, g)
		start(t, g)
		if got := lastWords(t, g, v); !bytes.Equal(got, []byte{want}) {
			t.Errorf("%q: CONFIG_ADDRESS has % x on top, want %#x", cmdline, got, want)
		}
	}
	g := imageSpec(t, tinykernel.PVH(tinykernel.Code{0x66, 0xba, 0xf8, 0x0c, 0x00}).Image()).loaded(t)
	var b [4]byte
	g.configPorts.In(0, b[:])
	if b == [4]byte{0xff, 0xff, 0xff, 0xff} {
		t.Error("the ports are hidden from a kernel that may have no ECAM")
	}
}
