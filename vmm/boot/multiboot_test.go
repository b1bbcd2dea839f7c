package boot

import (
	"bytes"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/internal/tinykernel"
)

func TestLoadMultiboot(t *testing.T) {
	higher := tinykernel.MultibootELF(64, []byte("the code"))
	higher.Segments[0].Virt, higher.Entry = 0xffffffff80100000, 0xffffffff80100010
	physical := tinykernel.MultibootELF(32, []byte("the code"))
	physical.Segments[0].Virt = 0xc0100000
	for _, tt := range []struct {
		name  string
		image []byte
		rip   uint64
	}{
		{"addresses", tinykernel.Multiboot([]byte("the code")), pref + 32},
		{"addresses, with something before", append(make([]byte, 8192-40), tinykernel.Multiboot([]byte("the code"))...), pref + 32},
		{"ELF32", tinykernel.MultibootELF(32, []byte("the code")).Image(), pref + 16},
		{"ELF64", tinykernel.MultibootELF(64, []byte("the code")).Image(), pref + 16},
		{"ELF64 in the higher half", higher.Image(), pref + 16},
		{"ELF32 in the higher half with a physical entry", physical.Image(), pref + 16},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mem := newMemory(t, 32<<20)
			if err := mem.WriteAt(pref, bytes.Repeat([]byte{0xff}, 5000)); err != nil {
				t.Fatal(err)
			}
			l := load(t, tt.image)
			initramfs := bytes.Repeat([]byte("cpio"), 5000)
			l.Initramfs = file(t, initramfs)
			e, err := l.Into(mem)
			if err != nil {
				t.Fatal(err)
			}
			if want := (Entry{Mode: ProtectedMode, RIP: tt.rip, RAX: 0x2badb002, RBX: 0x7000}); e != want {
				t.Errorf("entry = %+v, want %+v", e, want)
			}
			if got := read(t, mem, tt.rip, 8+4096); !bytes.Equal(got, append([]byte("the code"), make([]byte, 4096)...)) {
				t.Errorf("at the entry are not code and zeros")
			}
			checkInformation(t, l, read(t, mem, 0x7000, 4096), func(gpa uint32, n int) []byte { return read(t, mem, uint64(gpa), n) }, initramfs)
		})
	}
}

// checkInformation checks the information structure b for what TestLoadMultiboot loads.
func checkInformation(t *testing.T, l *Load, b []byte, at func(gpa uint32, n int) []byte, initramfs []byte) {
	t.Helper()
	if le32(b, 0) != 1<<0|1<<2|1<<3|1<<6|1<<9 || le32(b, 4) != 639 || le32(b, 8) != 31<<10 {
		t.Errorf("flags and memory: % x", b[:12])
	}
	if got := at(le32(b, 16), 14); string(got) != l.Cmdline+"\x00" {
		t.Errorf("command line = %q", got)
	}
	if le32(b, 20) != 1 {
		t.Fatalf("%d modules", le32(b, 20))
	}
	m := at(le32(b, 24), 16)
	start, end := le32(m, 0), le32(m, 4)
	if got := at(start, int(end-start)); !bytes.Equal(got, initramfs) || start%4096 != 0 || le32(m, 8) != 0 {
		t.Errorf("initramfs at %#x to %#x", start, end)
	}
	if got := at(le32(b, 64), 7); string(got) != "Ashlar\x00" {
		t.Errorf("boot loader = %q", got)
	}
	r := at(le32(b, 48), int(le32(b, 44)))
	if len(r) != 48 || le32(r, 0) != 20 || le64(r, 4) != 0 || le64(r, 12) != 0x9fc00 || le32(r, 20) != 1 || le32(r, 24) != 20 || le64(r, 28) != 1<<20 {
		t.Errorf("memory map: % x", r)
	}
}

// All sizes of the file's end and of the zeros may be left to the loader.
func TestMultibootWithoutEnds(t *testing.T) {
	mem := newMemory(t, 4<<20)
	h := tinykernel.MultibootHeader(1<<16|1<<20, pref+4, pref, 0, 0, pref+36)
	e, err := load(t, append(append([]byte("skip\x00\x00\x00\x00four"), h...), "code"...)).Into(mem)
	if err != nil || e.RIP != pref+36 {
		t.Fatalf("Into = %+v, %v", e, err)
	}
	if got := read(t, mem, pref, 4); string(got) != "four" {
		t.Errorf("first byte = %q", got)
	}
	if got := read(t, mem, pref+36, 8); string(got) != "code\x00\x00\x00\x00" {
		t.Errorf("code = %q", got)
	}
}

func TestMultibootRefuses(t *testing.T) {
	const end = pref + 36
	addresses := func(flags uint32, fields ...uint32) []byte {
		return append(tinykernel.MultibootHeader(flags|1<<16, fields...), "code"...)
	}
	text := tinykernel.MultibootELF(32, []byte("code"))
	text.Entry = 0x2000
	none := tinykernel.MultibootELF(32, []byte("code"))
	none.Segments[0].Addr = 0
	for _, tt := range []struct {
		name  string
		image []byte
		says  string
	}{
		{"checksum", append(tinykernel.Multiboot([]byte("code"))[:8], make([]byte, 100)...), "no known kind"},
		{"not aligned", append([]byte{0, 0}, tinykernel.Multiboot([]byte("code"))...), "no known kind"},
		{"too far in", append(make([]byte, 8192), tinykernel.Multiboot([]byte("code"))...), "no known kind"},
		{"addresses too far in", append(make([]byte, 8192-12), tinykernel.Multiboot([]byte("code"))...), "does not end in the first 8192"},
		{"no addresses", tinykernel.MultibootHeader(1<<16, 1, 2, 3, 4), "does not end in"},
		{"neither", tinykernel.MultibootHeader(3), "not ELF and has no addresses"},
		{"video", addresses(1<<2, pref, pref, end, 0, pref+32), "video mode"},
		{"unknown flag", addresses(1<<15, pref, pref, end, 0, pref+32), "unknown (flags 0x8000)"},
		{"header before", addresses(0, pref-4, pref, end, 0, pref+32), "is loaded first"},
		{"header after", addresses(0, pref+4, pref, end, 0, pref+32), "is loaded first"},
		{"end before start", addresses(0, pref, pref, pref-1, 0, pref+32), "loaded from"},
		{"zeros before end", addresses(0, pref, pref, end, end-1, pref+32), "loaded from"},
		{"longer than the file", addresses(0, pref, pref, end+1, 0, pref+32), "truncated"},
		{"everything", addresses(0, pref, pref, 0xffffffff, 0xffffffff, pref+32), "truncated"},
		{"nothing", addresses(0, pref, pref, pref, 0, pref), "is outside of what is loaded"},
		{"zeros to the top", addresses(0, pref, pref, end, 0xffffffff, pref+32), "between 1 MiB and 3 GiB"},
		{"low", addresses(0, 0x7000, 0x7000, 0, 0, 0x7020), "between 1 MiB and 3 GiB"},
		{"high", addresses(0, 0xfffffff0, 0xfffffff0, 0, 0, 0xfffffff0), "between 1 MiB and 3 GiB"},
		{"entry after", addresses(0, pref, pref, end, end+100, end), "is outside of what is loaded"},
		{"entry before", addresses(0, pref, pref, end, 0, 0), "is outside of what is loaded"},
		{"entry of ELF", text.Image(), "is outside of what is loaded"},
		{"ELF without physical addresses", none.Image(), "between 1 MiB and 3 GiB"},
		{"broken ELF", append(none.Image()[:52], tinykernel.MultibootHeader(0)...), "ELF program headers: 32 bytes at 0x34"},
	} {
		t.Run(tt.name, func(t *testing.T) { refused(t, tt.image, tt.says) })
	}
}

func FuzzMultiboot(f *testing.F) {
	f.Add(tinykernel.Multiboot([]byte{0xf4}))
	f.Add(tinykernel.Multiboot([]byte{0xf4})[:20])
	f.Add(tinykernel.MultibootELF(32, []byte{0xf4}).Image())
	f.Add(tinykernel.MultibootELF(64, []byte{0xf4}).Image())
	f.Add(append(tinykernel.MultibootHeader(1<<16, pref, pref, 0, 0, pref), 0xf4))
	fuzzLoad(f)
}
