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
	if want := (Entry{RIP: tinykernel.Pref + 0x200, RSI: 0x7000}); e != want {
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
		})
	}
}

func TestParseRefuses(t *testing.T) {
	le := binary.LittleEndian
	for _, tt := range []struct {
		name string
		edit func([]byte) []byte
		says string
	}{
		{"empty", func([]byte) []byte { return nil }, "too few"},
		{"text", func(b []byte) []byte { return bytes.Repeat([]byte("text"), 1000) }, "not a bzImage"},
		{"no boot flag", func(b []byte) []byte { b[0x1fe] = 0; return b }, "not a bzImage"},
		{"old protocol", func(b []byte) []byte { le.PutUint16(b[0x206:], 0x20b); return b }, "boot protocol 2.11"},
		{"zImage", func(b []byte) []byte { b[0x211] = 0; return b }, "zImage"},
		{"32-bit", func(b []byte) []byte { b[0x236] = 0; return b }, "no 64-bit entry"},
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
			im, err := Parse(bytes.NewReader(b), int64(len(b)))
			if !errors.Is(err, ErrKernel) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("Parse = %+v, %v, want ErrKernel with %q", im, err, tt.says)
			}
		})
	}
	if _, err := Parse(bytes.NewReader(nil), 1<<40); !errors.Is(err, ErrKernel) {
		t.Errorf("Parse of 1 TiB = %v, want ErrKernel", err)
	}
}

func TestPlace(t *testing.T) {
	for _, tt := range []struct {
		name string
		im   Image
		top  uint64
		want uint64 // 0: refused
	}{
		{"where it likes", Image{pref: 16 << 20, initSize: 10 << 20, alignment: 2 << 20}, 32 << 20, 16 << 20},
		{"just fits", Image{pref: 16 << 20, initSize: 16 << 20, alignment: 2 << 20}, 32 << 20, 16 << 20},
		{"lower", Image{pref: 16 << 20, initSize: 17 << 20, alignment: 2 << 20, relocatable: true}, 32 << 20, 2 << 20},
		{"fixed", Image{pref: 16 << 20, initSize: 17 << 20, alignment: 2 << 20}, 32 << 20, 0},
		{"nowhere", Image{pref: 16 << 20, initSize: 31 << 20, alignment: 2 << 20, relocatable: true}, 32 << 20, 0},
		{"high", Image{pref: 1 << 63, initSize: 1 << 20, alignment: 1 << 20}, 32 << 20, 0},
		{"alignment", Image{pref: 1 << 62, initSize: 1 << 20, alignment: 1 << 31, relocatable: true}, 32 << 20, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.im.place(tt.top)
			if got != tt.want || (err == nil) != (tt.want != 0) || err != nil && !errors.Is(err, ErrMemory) {
				t.Errorf("place = %#x, %v, want %#x", got, err, tt.want)
			}
		})
	}
}

// A header that passes leads to no access outside the file or memory, and what
// is loaded lies where it says.
func FuzzParse(f *testing.F) {
	f.Add(tinykernel.Image([]byte{0xf4}))
	f.Add(tinykernel.Image(make([]byte, 4096))[:2000])
	f.Add([]byte("MZ"))
	mem := newMemory(f, 4<<20)
	f.Fuzz(func(t *testing.T, b []byte) {
		im, err := Parse(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			if !errors.Is(err, ErrKernel) {
				t.Fatalf("Parse = %v, want ErrKernel", err)
			}
			return
		}
		if im.codeOffset+int64(im.codeSize) > int64(len(b)) || im.initSize < im.codeSize {
			t.Fatalf("image of %d bytes: %+v", len(b), im)
		}
		l := load(t, b)
		e, err := l.Into(mem)
		if err == nil && !mem.Contains(e.RIP-entryOffset, im.initSize) {
			t.Fatalf("loaded at %#x", e.RIP)
		}
	})
}
