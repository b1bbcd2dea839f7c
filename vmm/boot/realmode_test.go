package boot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/internal/tinykernel"
)

func TestLoadReal(t *testing.T) {
	le := binary.LittleEndian
	old := tinykernel.Real([]byte("the code"))
	old[len(old)-1] = 0xaa
	for _, tt := range []struct {
		name string
		edit func([]byte)
	}{
		{"protocol 2.07", func([]byte) {}},
		{"protocol 2.02", func(b []byte) { le.PutUint16(b[offVersion:], 0x202) }},
		{"protocol 2.15 without a 64-bit entry", func(b []byte) {
			le.PutUint16(b[offVersion:], 0x20f)
			le.PutUint64(b[offPrefAddress:], 16<<20)
			le.PutUint32(b[offInitSize:], 4<<20)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			image := bytes.Clone(old)
			tt.edit(image)
			mem := newMemory(t, 32<<20)
			l := load(t, image)
			initramfs := bytes.Repeat([]byte("cpio"), 5000)
			l.Initramfs = file(t, initramfs)
			e, err := l.Into(mem)
			if err != nil {
				t.Fatal(err)
			}
			if want := (Entry{Mode: RealMode, RIP: 0x10200, Segment: 0x1000, RSP: 0xe000}); e != want {
				t.Errorf("entry = %+v, want %+v", e, want)
			}
			setup := read(t, mem, 0x10000, 6*512)
			if string(setup[tinykernel.RealEntry:tinykernel.RealEntry+8]) != "the code" || le32(setup, offCmdlinePtr) != 0x20000 ||
				setup[offLoaderType] != 0xff || setup[offLoadFlags] != 0x81 || le16(setup, offHeapEnd) != 0xde00 || le16(setup, offVidMode) != 0xffff {
				t.Errorf("setup code is wrong:\n% x", setup[headerStart:0x290])
			}
			at, n := le32(setup, offRamdiskImage), le32(setup, offRamdiskSize)
			if got := read(t, mem, uint64(at), int(n)); !bytes.Equal(got, initramfs) || at%4096 != 0 {
				t.Errorf("initramfs: %d bytes at %#x", n, at)
			}
			if got := read(t, mem, 1<<20+4095, 1); got[0] != 0xaa {
				t.Errorf("the last byte of the code is %#x", got[0])
			}
			if got := read(t, mem, 0x20000, 14); string(got) != "console=ttyS0\x00" {
				t.Errorf("command line = %q", got)
			}
		})
	}
}

func TestRealRefuses(t *testing.T) {
	le := binary.LittleEndian
	for _, tt := range []struct {
		name string
		edit func([]byte) []byte
		says string
	}{
		{"old protocol", func(b []byte) []byte { le.PutUint16(b[offVersion:], 0x201); return b }, "boot protocol 2.01, need 2.02"},
		{"zImage", func(b []byte) []byte { b[offLoadFlags] = 0; return b }, "zImage"},
		{"long setup code", func(b []byte) []byte { b[offSetupSects] = 64; return append(b, make([]byte, 64<<10)...) }, "setup code of 33280 bytes"},
		{"truncated", func(b []byte) []byte { return b[:len(b)-100] }, "truncated"},
		{"setup only", func(b []byte) []byte { return b[:6*512] }, "truncated"},
		{"no code", func(b []byte) []byte { le.PutUint32(b[offSysSize:], 0); return b }, "truncated"},
		{"start of a header", func(b []byte) []byte { return b[:0x206] }, "too few"},
	} {
		t.Run(tt.name, func(t *testing.T) { refused(t, tt.edit(tinykernel.Real(nil)), tt.says) })
	}
	// A kernel that will unpack itself needs more than its image.
	b := tinykernel.Real(nil)
	le.PutUint16(b[offVersion:], 0x20a)
	le.PutUint64(b[offPrefAddress:], 16<<20)
	le.PutUint32(b[offInitSize:], 4<<20)
	if _, err := load(t, b).Into(newMemory(t, 19<<20)); !errors.Is(err, ErrMemory) || !strings.Contains(err.Error(), "at least 20 MiB") {
		t.Errorf("Into = %v, want ErrMemory", err)
	}
}
