package machine

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/arch"
	"github.com/ashlar-hv/ashlar/vmm/internal/tinykernel"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// A report is a 32-bit kernel that tells its serial port what it finds. Its
// methods keep EDI and EBX, which have what EAX and EBX had at the entry.
type report struct{ tinykernel.Code }

func newReport() *report {
	return &report{tinykernel.Code{
		0x89, 0xc7, // mov edi, eax
		0xbc, 0x00, 0x00, 0x18, 0x00, // mov esp, 0x180000
	}}
}

func (r *report) add(b ...byte) { r.Code = append(r.Code, b...) }

// register reports EAX after code.
func (r *report) register(code ...byte) {
	r.add(code...)
	r.add(0xba, 0xf8, 0x03, 0x00, 0x00) // mov edx, 0x3f8
	for range 4 {
		r.add(0xee, 0xc1, 0xe8, 0x08) // out dx, al; shr eax, 8
	}
}

// memory reports n bytes from ESI after code.
func (r *report) memory(n uint32, code ...byte) {
	r.add(code...)
	r.add(0xb9)
	r.Code = binary.LittleEndian.AppendUint32(r.Code, n) // mov ecx, n
	r.add(0xba, 0xf8, 0x03, 0x00, 0x00, 0xf3, 0x6e)      // mov edx, 0x3f8; rep outsb
}

// state reports the registers that the protocols speak of.
func (r *report) state() {
	r.register(0x89, 0xf8)       // mov eax, edi
	r.register(0x89, 0xd8)       // mov eax, ebx
	r.register(0x0f, 0x20, 0xc0) // mov eax, cr0
	r.register(0x0f, 0x20, 0xe0) // mov eax, cr4
	r.register(0x9c, 0x58)       // pushf; pop eax
	r.register(0x0f, 0x00, 0xc8) // str eax
	for _, segment := range []byte{1, 3, 0, 4, 5, 2} {
		r.register(0x8c, 0xc0|segment<<3) // mov eax, cs; ds, es, fs, gs, ss
	}
}

// stateSize is how many bytes state reports.
const stateSize = 12 * 4

// checkState checks a report of state.
func checkState(t *testing.T, b []byte, eax, ebx uint32) {
	t.Helper()
	const pe, et = 1 << 0, 1 << 4
	const interrupts, vm, trap = 1 << 9, 1 << 17, 1 << 8
	word := func(i int) uint32 { return binary.LittleEndian.Uint32(b[4*i:]) }
	if word(0) != eax || word(1) != ebx {
		t.Errorf("EAX, EBX = %#x, %#x, want %#x, %#x", word(0), word(1), eax, ebx)
	}
	if word(2) != pe|et || word(3) != 0 || word(4)&(interrupts|vm|trap) != 0 {
		t.Errorf("CR0, CR4, EFLAGS = %#x, %#x, %#x", word(2), word(3), word(4))
	}
	for i, want := range []uint32{0x20, 0x10, 0x18, 0x18, 0x18, 0x18, 0x18} {
		if got := word(5+i) & 0xffff; got != want {
			t.Errorf("TR, CS, DS, ES, FS, GS, SS: selector %d = %#x, want %#x", i, got, want)
		}
	}
}

// imageSpec is newSpec for an image of any kind.
func imageSpec(t *testing.T, image []byte) *spec {
	t.Helper()
	s := newSpec(t, nil)
	s.files[s.Boot.Kernel].Close()
	s.files[s.Boot.Kernel] = tinykernel.Open(t, image)
	return s
}

// viewer is a viewer of the guest's console.
func viewer(t *testing.T, g *Guest) *os.File {
	t.Helper()
	v, err := g.Hub.Attach()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v
}

// reported boots an image with a command line and an initramfs, and returns
// what it reports before it powers off.
func reported(t *testing.T, image []byte) []byte {
	t.Helper()
	s := imageSpec(t, image)
	initramfs := s.add(tinykernel.Open(t, []byte("an initramfs")), nil)
	s.Boot.Initramfs, s.Boot.Cmdline = &initramfs, "a command line"
	g := s.loaded(t)
	v := viewer(t, g)
	checkSregs(t, g)
	start(t, g)
	return lastWords(t, g, v)
}

// lastWords is all that comes out of v until g powers off.
func lastWords(t *testing.T, g *Guest, v *os.File) []byte {
	t.Helper()
	if got := ended(t, g); got.Reason != protocol.PoweredOff {
		t.Fatalf("result = %+v, want powered-off", got)
	}
	g.Hub.Close()
	b, err := io.ReadAll(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// checkSregs checks what a guest cannot see of its segments.
func checkSregs(t *testing.T, g *Guest) {
	t.Helper()
	s, err := g.runners[0].cpu.Sregs()
	if err != nil {
		t.Fatal(err)
	}
	if s.CS.Base != 0 || s.CS.Limit != 0xffffffff || s.CS.DB != 1 || s.CS.L != 0 || s.DS.Limit != 0xffffffff || s.ES.Base != 0 {
		t.Errorf("CS, DS, ES = %+v, %+v, %+v", s.CS, s.DS, s.ES)
	}
	if s.TR.Base != 0 || s.TR.Limit != 0x67 || s.TR.Type != 0xb || s.EFER != 0 {
		t.Errorf("TR = %+v, EFER = %#x", s.TR, s.EFER)
	}
}

// A PVH kernel follows the pointers in its start info.
func TestPVH(t *testing.T) {
	r := newReport()
	r.state()
	r.memory(56, 0x89, 0xde)                   // mov esi, ebx
	r.memory(16, 0x8b, 0x73, 0x10)             // mov esi, [ebx+16]: the first module
	r.memory(12, 0x8b, 0x73, 0x10, 0x8b, 0x36) // … and what it has
	r.memory(15, 0x8b, 0x73, 0x18)             // the command line
	r.memory(8, 0x8b, 0x73, 0x20)              // the RSDP
	r.memory(3*24, 0x8b, 0x73, 0x28)           // the memory map
	b := reported(t, tinykernel.PVH(r.PowerOff()).Image())
	const size = stateSize + 56 + 16 + 12 + 15 + 8 + 3*24
	if len(b) != size {
		t.Fatalf("%d bytes reported, want %d: % x", len(b), size, b)
	}
	checkState(t, b, 0, arch.BootParams)
	le := binary.LittleEndian
	b = b[stateSize:]
	if le.Uint32(b) != 0x336ec578 || le.Uint32(b[4:]) != 1 || le.Uint32(b[12:]) != 1 || le.Uint32(b[48:]) != 4 {
		t.Errorf("start info = % x", b[:56])
	}
	if b = b[56:]; le.Uint64(b[8:]) != 12 {
		t.Errorf("module = % x", b[:16])
	}
	b = b[16:]
	if want := []byte("an initramfsa command line\x00RSD PTR "); !bytes.HasPrefix(b, want) {
		t.Errorf("initramfs, command line, RSDP = %q, want %q", b[:len(want)], want)
	}
	m := b[12+15+8:]
	if le.Uint64(m[8:]) != arch.LowReserved || le.Uint64(m[48:]) != 1<<20 || le.Uint64(m[56:]) != testMemory-1<<20 || le.Uint32(m[64:]) != 1 {
		t.Errorf("memory map = % x", m)
	}
}

// A multiboot kernel of each form follows the pointers in its information.
func TestMultiboot(t *testing.T) {
	r := newReport()
	r.state()
	r.memory(12, 0x89, 0xde)                   // mov esi, ebx
	r.memory(12, 0x8b, 0x73, 0x18, 0x8b, 0x36) // mov esi, [ebx+24]; mov esi, [esi]: the first module
	r.memory(15, 0x8b, 0x73, 0x10)             // the command line
	r.memory(7, 0x8b, 0x73, 0x40)              // the boot loader
	r.memory(3*24, 0x8b, 0x73, 0x30)           // the memory map
	code := r.PowerOff()
	for _, tt := range []struct {
		name  string
		image []byte
	}{
		{"addresses", tinykernel.Multiboot(code)},
		{"ELF32", tinykernel.MultibootELF(32, code).Image()},
		{"ELF64", tinykernel.MultibootELF(64, code).Image()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := reported(t, tt.image)
			const size = stateSize + 12 + 12 + 15 + 7 + 3*24
			if len(b) != size {
				t.Fatalf("%d bytes reported, want %d: % x", len(b), size, b)
			}
			checkState(t, b, 0x2badb002, arch.BootParams)
			le := binary.LittleEndian
			b = b[stateSize:]
			if le.Uint32(b[4:]) != 639 || le.Uint32(b[8:]) != (testMemory-1<<20)>>10 {
				t.Errorf("information = % x", b[:12])
			}
			b = b[12:]
			if want := []byte("an initramfsa command line\x00Ashlar\x00"); !bytes.HasPrefix(b, want) {
				t.Errorf("module, command line, boot loader = %q, want %q", b[:len(want)], want)
			}
			m := b[12+15+7:]
			if le.Uint32(m) != 20 || le.Uint64(m[12:]) != arch.LowReserved || le.Uint64(m[52:]) != 1<<20 || le.Uint32(m[68:]) != 1 {
				t.Errorf("memory map = % x", m)
			}
		})
	}
}
