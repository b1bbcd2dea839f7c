package boot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/internal/tinykernel"
	"github.com/ashlar-hv/ashlar/vmm/memory"
)

const pref = tinykernel.Pref

// read reads guest memory.
func read(t testing.TB, mem *memory.Memory, gpa uint64, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if err := mem.ReadAt(gpa, b); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestLoadPVH(t *testing.T) {
	mem := newMemory(t, 32<<20)
	if err := mem.WriteAt(pref+8, bytes.Repeat([]byte{0xff}, 5000)); err != nil {
		t.Fatal(err)
	}
	e := tinykernel.PVH([]byte("the code"))
	// Its virtual address is 0, as that of the per-CPU data of Linux.
	e.Segments = append(e.Segments, tinykernel.Segment{Addr: 4 << 20, Data: []byte("data")})
	initramfs := bytes.Repeat([]byte("cpio"), 5000)
	l := load(t, e.Image())
	l.Initramfs = file(t, initramfs)
	got, err := l.Into(mem)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Entry{Mode: ProtectedMode, RIP: pref, RBX: 0x7000}); got != want {
		t.Errorf("entry = %+v, want %+v", got, want)
	}
	if got := read(t, mem, pref, 8+4096); !bytes.Equal(got, append([]byte("the code"), make([]byte, 4096)...)) {
		t.Errorf("first segment is not its code and zeros")
	}
	if got := read(t, mem, 4<<20, 4); string(got) != "data" {
		t.Errorf("second segment = %q", got)
	}
	s := read(t, mem, 0x7000, 4096)
	if le32(s, 0) != 0x336ec578 || le32(s, 4) != 1 || le32(s, 8) != 0 || le32(s, 12) != 1 || le64(s, 32) != 0xe0000 || le32(s, 52) != 0 {
		t.Errorf("start info is wrong:\n% x", s[:56])
	}
	module := read(t, mem, le64(s, 16), 32)
	at, n := le64(module, 0), le64(module, 8)
	if got := read(t, mem, at, int(n)); !bytes.Equal(got, initramfs) || at%4096 != 0 || at+n > 32<<20 {
		t.Errorf("initramfs: %d bytes at %#x", n, at)
	}
	if got := read(t, mem, le64(s, 24), 14); string(got) != "console=ttyS0\x00" {
		t.Errorf("command line = %q", got)
	}
	m := read(t, mem, le64(s, 40), int(24*le32(s, 48)))
	if len(m) != 48 || le64(m, 8) != 0x9fc00 || le64(m, 24) != 1<<20 || le64(m, 32) != 31<<20 || le32(m, 40) != 1 {
		t.Errorf("memory map: % x", m)
	}
}

// A kernel of 32 bits, an entry of 4 bytes, and no initramfs.
func TestLoadPVH32(t *testing.T) {
	mem := newMemory(t, 32<<20)
	e := tinykernel.PVH([]byte("code"))
	e.Bits, e.Notes = 32, tinykernel.Note("Xen", 18, binary.LittleEndian.AppendUint32(nil, pref+2))
	got, err := load(t, e.Image()).Into(mem)
	if err != nil || got.RIP != pref+2 {
		t.Errorf("Into = %+v, %v", got, err)
	}
	if s := read(t, mem, 0x7000, 56); le32(s, 12) != 0 || le64(s, 16) != 0 {
		t.Errorf("start info has modules:\n% x", s)
	}
}

func TestPVHRefuses(t *testing.T) {
	le := binary.LittleEndian
	entry := func(e *tinykernel.ELF, a uint64) { e.Notes = tinykernel.Note("Xen", 18, le.AppendUint64(nil, a)) }
	for _, tt := range []struct {
		name string
		edit func(*tinykernel.ELF)
		says string
	}{
		{"no note", func(e *tinykernel.ELF) { e.Notes = nil }, "no known kind"},
		{"other owner", func(e *tinykernel.ELF) { e.Notes = tinykernel.Note("Xem", 18, make([]byte, 8)) }, "no known kind"},
		{"long owner", func(e *tinykernel.ELF) { le.PutUint32(e.Notes, 300) }, "note with a name"},
		{"other note", func(e *tinykernel.ELF) { e.Notes = tinykernel.Note("Xen", 17, make([]byte, 8)) }, "no known kind"},
		{"short entry", func(e *tinykernel.ELF) { e.Notes = tinykernel.Note("Xen", 18, []byte{1, 2}) }, "entry of 2 bytes"},
		{"no entry", func(e *tinykernel.ELF) { e.Notes = tinykernel.Note("Xen", 18, nil) }, "entry of 0 bytes"},
		{"large note", func(e *tinykernel.ELF) { le.PutUint32(e.Notes[4:], math.MaxUint32) }, "outside its segment"},
		{"many notes", func(e *tinykernel.ELF) { e.Notes = make([]byte, 1<<20) }, "1048576 bytes of ELF notes"},
		{"entry at 0", func(e *tinykernel.ELF) { entry(e, 0) }, "entry 0x0 is outside"},
		{"entry in zeros", func(e *tinykernel.ELF) { entry(e, pref+8) }, "is outside of what is loaded"},
		{"entry before", func(e *tinykernel.ELF) { entry(e, pref-1) }, "is outside of what is loaded"},
		{"entry above all", func(e *tinykernel.ELF) { entry(e, math.MaxUint64) }, "is outside of what is loaded"},
		{"no segments", func(e *tinykernel.ELF) { e.Segments = nil }, "is outside of what is loaded"},
		{"empty segment", func(e *tinykernel.ELF) { e.Segments = []tinykernel.Segment{{Addr: pref}} }, "is outside of what is loaded"},
		{"low segment", func(e *tinykernel.ELF) { e.Segments[0].Addr = pref - 1 }, "between 1 MiB and 3 GiB"},
		{"segment at 0", func(e *tinykernel.ELF) { e.Segments[0].Addr = 0 }, "between 1 MiB and 3 GiB"},
		{"segment among devices", func(e *tinykernel.ELF) { e.Segments[0].Addr = 3<<30 - 4096 }, "between 1 MiB and 3 GiB"},
		{"high segment", func(e *tinykernel.ELF) { e.Segments[0].Addr = 5 << 30 }, "between 1 MiB and 3 GiB"},
		{"overflow", func(e *tinykernel.ELF) { e.Segments[0].Addr = math.MaxUint64 - 100 }, "between 1 MiB and 3 GiB"},
		{"long segment", func(e *tinykernel.ELF) { e.Segments[0].Zeros = math.MaxUint64 - 8 - pref }, "between 1 MiB and 3 GiB"},
		{"more in the file", func(e *tinykernel.ELF) { e.Segments[0].Zeros = math.MaxUint64 }, "8 bytes in the file, 7 in memory"},
		{"overlap", func(e *tinykernel.ELF) {
			e.Segments = append(e.Segments, tinykernel.Segment{Addr: pref + 7, Data: []byte("x")})
		}, "overlap"},
		{"overlap of zeros", func(e *tinykernel.ELF) {
			e.Segments = append([]tinykernel.Segment{{Addr: pref + 8 + 4095, Zeros: 1}}, e.Segments...)
		}, "overlap"},
		{"many segments", func(e *tinykernel.ELF) { e.Segments = make([]tinykernel.Segment, 200) }, "201 ELF program headers"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := tinykernel.PVH([]byte("the code"))
			tt.edit(&e)
			refused(t, e.Image(), tt.says)
		})
	}
}

// Headers that ELF.Image does not make.
func TestELFRefuses(t *testing.T) {
	le := binary.LittleEndian
	for _, tt := range []struct {
		name string
		edit func([]byte) []byte
		says string
	}{
		{"magic alone", func(b []byte) []byte { return b[:4] }, "too few"},
		{"identification alone", func(b []byte) []byte { return b[:16] }, "too few"},
		{"short header", func(b []byte) []byte { return b[:63] }, "too few"},
		{"header alone", func(b []byte) []byte { return b[:64] }, "ELF program headers"},
		{"half the program headers", func(b []byte) []byte { return b[:100] }, "ELF program headers"},
		{"truncated notes", func(b []byte) []byte { return b[:64+2*56+8] }, "truncated"},
		{"truncated segment", func(b []byte) []byte { return b[:len(b)-1] }, "truncated"},
		{"class", func(b []byte) []byte { b[4] = 3; return b }, "ELF class 3"},
		{"32 bits of 64", func(b []byte) []byte { b[4] = 1; return b }, "for machine 62"},
		{"big-endian", func(b []byte) []byte { b[5] = 2; return b }, "byte order 2"},
		{"shared object", func(b []byte) []byte { b[16] = 3; return b }, "ELF type 3"},
		{"object", func(b []byte) []byte { b[16] = 1; return b }, "ELF type 1"},
		{"Arm", func(b []byte) []byte { b[18] = 183; return b }, "for machine 183"},
		{"no program headers", func(b []byte) []byte { b[56] = 0; return b }, "0 ELF program headers"},
		{"very many program headers", func(b []byte) []byte { le.PutUint16(b[56:], 0xffff); return b }, "65535 ELF program headers"},
		{"size of program headers", func(b []byte) []byte { b[54] = 32; return b }, "of 32 bytes"},
		{"program headers far away", func(b []byte) []byte { le.PutUint64(b[32:], math.MaxUint64-10); return b }, "ELF program headers"},
		{"notes far away", func(b []byte) []byte { le.PutUint64(b[64+8:], math.MaxUint64); return b }, "ELF notes"},
		{"segment far away", func(b []byte) []byte { le.PutUint64(b[64+56+8:], math.MaxUint64); return b }, "truncated"},
		{"segment of everything", func(b []byte) []byte { le.PutUint64(b[64+56+32:], math.MaxUint64); return b }, "truncated"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			refused(t, tt.edit(tinykernel.PVH([]byte("the code")).Image()), tt.says)
		})
	}
}

// Notes in a segment that says it is aligned to 8 bytes are padded so.
func TestNoteAlignment(t *testing.T) {
	padded := make([]byte, 48)
	copy(padded, tinykernel.Note("GNU", 5, []byte("four")))
	copy(padded[24:], tinykernel.Note("Xen", 18, []byte("entry is")))
	for _, tt := range []struct {
		align uint64
		b     []byte
		want  string
	}{
		{8, padded, "entry is"}, {4, padded, ""}, // where the next note starts is then wrong
		{4, append(tinykernel.Note("GNU", 5, []byte("four")), padded[24:]...), "entry is"},
		{0, padded[24:], "entry is"},
	} {
		if got, err := findNote(tt.b, tt.align, "Xen", 18); string(got) != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("aligned to %d: %q, %v, want %q", tt.align, got, err, tt.want)
		}
	}
}

// What does not fit is refused before anything is copied.
func TestELFNeedsMemory(t *testing.T) {
	for _, image := range [][]byte{tinykernel.PVH([]byte("code")).Image(), tinykernel.Multiboot([]byte("code")), tinykernel.MultibootELF(32, []byte("code")).Image()} {
		mem := newMemory(t, 1<<20+4096)
		if _, err := load(t, image).Into(mem); !errors.Is(err, ErrMemory) || !strings.Contains(err.Error(), "at least 2 MiB") {
			t.Errorf("Into = %v, want ErrMemory", err)
		}
		untouched(t, mem)
		mem = newMemory(t, 1<<20+8192)
		l := load(t, image)
		if _, err := l.Into(mem); err != nil {
			t.Errorf("Into memory that is enough = %v", err)
		}
		l = load(t, image)
		l.Initramfs = file(t, []byte("x"))
		if _, err := l.Into(newMemory(t, 1<<20+8192)); !errors.Is(err, ErrMemory) {
			t.Errorf("Into = %v, want ErrMemory for the initramfs", err)
		}
		l = load(t, image)
		l.Cmdline = strings.Repeat("x", 2048)
		if _, err := l.Into(mem); !errors.Is(err, ErrCmdline) || !strings.Contains(err.Error(), "2048 bytes, this kernel takes 2047") {
			t.Errorf("Into = %v, want ErrCmdline", err)
		}
	}
}

func FuzzPVH(f *testing.F) {
	e := tinykernel.PVH([]byte{0xf4})
	f.Add(e.Image())
	f.Add(e.Image()[:150])
	e.Bits = 32
	f.Add(e.Image())
	e.Segments = append(e.Segments, tinykernel.Segment{Addr: 3 << 20, Data: []byte("data")})
	f.Add(e.Image())
	fuzzLoad(f)
}
