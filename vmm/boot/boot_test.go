package boot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/internal/tinykernel"
	"github.com/ashlar-hv/ashlar/vmm/memory"
)

func newMemory(t testing.TB, size uint64) *memory.Memory {
	t.Helper()
	f, err := memory.Create("test", size)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := memory.Map(f, size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func file(t testing.TB, b []byte) *os.File {
	t.Helper()
	f, err := os.Create(t.TempDir() + "/f")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	return f
}

func load(t testing.TB, kernel []byte) *Load {
	return &Load{
		Kernel: file(t, kernel), Cmdline: "console=ttyS0", RSDP: 0xe0000, Params: 0x7000, CmdlineAt: 0x20000,
		Map: []Range{{Size: 0x9fc00, Type: RAM}, {Base: 1 << 20, Size: 31 << 20, Type: RAM}},
	}
}

func TestLoad(t *testing.T) {
	mem := newMemory(t, 32<<20)
	code := []byte("the code")
	l := load(t, tinykernel.Image(code))
	initramfs := bytes.Repeat([]byte("cpio"), 5000)
	l.Initramfs = file(t, initramfs)
	e, err := l.Into(mem)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Entry{Mode: LongMode, RIP: tinykernel.Pref + 0x200, RSI: 0x7000, ECAM: true}); e != want {
		t.Errorf("entry = %+v, want %+v", e, want)
	}
	read := func(gpa uint64, n int) []byte {
		b := make([]byte, n)
		if err := mem.ReadAt(gpa, b); err != nil {
			t.Fatal(err)
		}
		return b
	}
	if got := read(e.RIP, len(code)); !bytes.Equal(got, code) {
		t.Errorf("code = %q", got)
	}
	if got := read(0x20000, 14); string(got) != "console=ttyS0\x00" {
		t.Errorf("command line = %q", got)
	}
	p := read(0x7000, 4096)
	at, n := le32(p, offRamdiskImage), le32(p, offRamdiskSize)
	if got := read(uint64(at), int(n)); !bytes.Equal(got, initramfs) || at%4096 != 0 {
		t.Errorf("initramfs: %d bytes at %#x", n, at)
	}
	if string(p[offMagic:offMagic+4]) != magic || p[offLoaderType] != 0xff || le32(p, offCmdlinePtr) != 0x20000 ||
		le64(p, offRSDP) != 0xe0000 || p[offE820Entries] != 2 || le64(p, offE820Table+20) != 1<<20 || le32(p, offE820Table+36) != 1 {
		t.Errorf("boot parameters are wrong:\n% x", p[:0x310])
	}
	for _, off := range []int{0x1ef, 0x1f0} {
		if p[off] != 0 {
			t.Errorf("byte %#x = %#x, want 0: only the header is copied", off, p[off])
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		mem  uint64
		edit func(*Load)
		want error
		says string
	}{
		{"long command line", 32 << 20, func(l *Load) { l.Cmdline = strings.Repeat("x", 256) }, ErrCmdline, "256 bytes, this kernel takes 255"},
		{"zero in command line", 32 << 20, func(l *Load) { l.Cmdline = "a\x00b" }, ErrCmdline, "zero byte"},
		{"too little memory", 1 << 20, func(*Load) {}, ErrMemory, "at least 2 MiB"},
		{"empty initramfs", 32 << 20, func(l *Load) { l.Initramfs = file(t, nil) }, ErrInitramfs, "empty"},
		{"large initramfs", 2 << 20, func(l *Load) { l.Initramfs = file(t, make([]byte, 64<<10)) }, ErrMemory, "at least"},
		{"larger initramfs", 2 << 20, func(l *Load) { l.Initramfs = file(t, make([]byte, 3<<20)) }, ErrMemory, "at least"},
		{"directory", 32 << 20, func(l *Load) { l.Kernel, _ = os.Open(t.TempDir()) }, ErrKernel, "not a regular file"},
		{"closed kernel", 32 << 20, func(l *Load) { l.Kernel.Close() }, ErrKernel, "cannot be read"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mem := newMemory(t, tt.mem)
			l := load(t, tinykernel.Image([]byte{0xf4}))
			tt.edit(l)
			e, err := l.Into(mem)
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) || e != (Entry{}) {
				t.Errorf("Into = %+v, %v, want %v and %q", e, err, tt.want, tt.says)
			}
			untouched(t, mem)
		})
	}
}

func TestBzImageRefuses(t *testing.T) {
	le := binary.LittleEndian
	for _, tt := range []struct {
		name string
		edit func([]byte) []byte
		says string
	}{
		{"empty", func([]byte) []byte { return nil }, "empty"},
		{"text", func(b []byte) []byte { return bytes.Repeat([]byte("text"), 1000) }, "no known kind: want a bzImage"},
		{"one byte", func(b []byte) []byte { return b[:1] }, "no known kind"},
		{"no boot flag", func(b []byte) []byte { b[0x1fe] = 0; return b }, "no known kind"},
		{"start of a header", func(b []byte) []byte { return b[:0x206] }, "too few for a bzImage"},
		{"old protocol", func(b []byte) []byte { le.PutUint16(b[0x206:], 0x201); return b }, "boot protocol 2.01, need 2.02"},
		{"zImage", func(b []byte) []byte { b[0x211] = 0; return b }, "zImage"},
		{"short header", func(b []byte) []byte { b[0x201] = 0x20; return b }, "header ends"},
		{"long header", func(b []byte) []byte { b[0x201] = 0xff; return b }, "header ends"},
		{"truncated", func(b []byte) []byte { return b[:len(b)-100] }, "truncated"},
		{"setup only", func(b []byte) []byte { return b[:1024] }, "truncated"},
		{"huge setup", func(b []byte) []byte { b[0x1f1] = 0xff; return b }, "truncated"},
		{"no code", func(b []byte) []byte { le.PutUint32(b[0x1f4:], 0); return b }, "only 0 bytes"},
		{"payload outside", func(b []byte) []byte { le.PutUint32(b[0x248:], 0xffffffff); return b }, "payload"},
		{"payload over the end", func(b []byte) []byte { le.PutUint32(b[0x24c:], 1<<20); return b }, "payload"},
		{"no init size", func(b []byte) []byte { le.PutUint32(b[0x260:], 0); return b }, "wants 0 bytes"},
		{"odd alignment", func(b []byte) []byte { le.PutUint32(b[0x230:], 3); return b }, "alignment"},
		{"no alignment", func(b []byte) []byte { le.PutUint32(b[0x230:], 0); return b }, "alignment"},
		{"low", func(b []byte) []byte { le.PutUint64(b[0x258:], 0x1000); return b }, "preferred address"},
		{"unaligned", func(b []byte) []byte { le.PutUint64(b[0x258:], 1<<20+1); return b }, "preferred address"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := tt.edit(tinykernel.Image(make([]byte, 100)))
			refused(t, b, tt.says)
		})
	}
	if _, err := parse(bytes.NewReader(nil), 1<<40); !errors.Is(err, ErrKernel) {
		t.Errorf("parse of 1 TiB = %v, want ErrKernel", err)
	}
}

// refused checks that the image b is refused with such words, and that nothing
// is copied.
func refused(t *testing.T, b []byte, says string) {
	t.Helper()
	mem := newMemory(t, 4<<20)
	e, err := load(t, b).Into(mem)
	if !errors.Is(err, ErrKernel) || !strings.Contains(err.Error(), says) || e != (Entry{}) {
		t.Errorf("Into = %+v, %v, want ErrKernel with %q", e, err, says)
	}
	untouched(t, mem)
}

// untouched checks that memory is all zero.
func untouched(t *testing.T, mem *memory.Memory) {
	t.Helper()
	b := make([]byte, mem.Size())
	if err := mem.ReadAt(0, b); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, make([]byte, len(b))) {
		t.Error("memory was written to before all was checked")
	}
}

func TestAddress(t *testing.T) {
	for _, tt := range []struct {
		name string
		im   bzImage
		top  uint64
		want uint64 // 0: refused
	}{
		{"where it likes", bzImage{pref: 16 << 20, initSize: 10 << 20, alignment: 2 << 20}, 32 << 20, 16 << 20},
		{"just fits", bzImage{pref: 16 << 20, initSize: 16 << 20, alignment: 2 << 20}, 32 << 20, 16 << 20},
		{"lower", bzImage{pref: 16 << 20, initSize: 17 << 20, alignment: 2 << 20, relocatable: true}, 32 << 20, 2 << 20},
		{"fixed", bzImage{pref: 16 << 20, initSize: 17 << 20, alignment: 2 << 20}, 32 << 20, 0},
		{"nowhere", bzImage{pref: 16 << 20, initSize: 31 << 20, alignment: 2 << 20, relocatable: true}, 32 << 20, 0},
		{"high", bzImage{pref: 1 << 63, initSize: 1 << 20, alignment: 1 << 20}, 32 << 20, 0},
		{"alignment", bzImage{pref: 1 << 62, initSize: 1 << 20, alignment: 1 << 31, relocatable: true}, 32 << 20, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.im.address(tt.top)
			if got != tt.want || (err == nil) != (tt.want != 0) || err != nil && !errors.Is(err, ErrMemory) {
				t.Errorf("address = %#x, %v, want %#x", got, err, tt.want)
			}
		})
	}
}

// The boot data of each protocol has room for the longest memory map.
func TestMemoryMapFits(t *testing.T) {
	for _, image := range [][]byte{
		tinykernel.Image([]byte{0xf4}), tinykernel.PVH([]byte{0xf4}).Image(), tinykernel.Multiboot([]byte{0xf4}),
	} {
		mem := newMemory(t, 32<<20)
		l := load(t, image)
		l.Map = make([]Range, maxRanges)
		if e, err := l.Into(mem); err != nil {
			t.Errorf("Into = %+v, %v", e, err)
		}
		if !bytes.Equal(read(t, mem, l.Params+paramsSize, 4096), make([]byte, 4096)) {
			t.Error("the boot data is longer than its page")
		}
		l.Map = make([]Range, maxRanges+1)
		if _, err := l.Into(mem); err == nil {
			t.Error("a longer memory map is taken")
		}
	}
}

// fuzzLoad loads images of any bytes: one that passes leads to no access outside
// the file or memory, and is entered where something was loaded; one that does
// not has changed nothing.
func fuzzLoad(f *testing.F) {
	mem := newMemory(f, 4<<20)
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := load(t, b).Into(mem)
		if err != nil {
			if e != (Entry{}) || !errors.Is(err, ErrKernel) && !errors.Is(err, ErrMemory) {
				t.Fatalf("Into = %+v, %v", e, err)
			}
			return
		}
		if e.Mode == RealMode && e.RIP == realBase+offJump {
			e.RIP = highMemory // the code of its segment, below
		}
		if e.RIP < highMemory || !mem.Contains(e.RIP, 1) {
			t.Fatalf("entry at %#x", e.RIP)
		}
		im, err := parse(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		p, err := im.place(4 << 20)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range p.segments {
			checkLoaded(t, mem, g, b)
		}
	})
}

// checkLoaded checks that segment g of image b is in mem and in its bounds.
func checkLoaded(t testing.TB, mem *memory.Memory, g segment, b []byte) {
	t.Helper()
	if g.at < highMemory || g.memSize < g.fileSize || !mem.Contains(g.at, g.memSize) {
		t.Fatalf("segment %+v", g)
	}
	got := make([]byte, g.memSize)
	if err := mem.ReadAt(g.at, got); err != nil {
		t.Fatal(err)
	}
	want := make([]byte, g.memSize)
	if g.fileSize > 0 {
		copy(want, b[g.off:g.off+g.fileSize])
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("segment %+v is not as in the file", g)
	}
}

func FuzzBzImage(f *testing.F) {
	f.Add(tinykernel.Image([]byte{0xf4}))
	f.Add(tinykernel.Image(make([]byte, 4096))[:2000])
	f.Add(tinykernel.Real([]byte{0xf4}))
	f.Add([]byte("MZ"))
	fuzzLoad(f)
}
