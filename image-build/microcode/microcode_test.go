package microcode

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ashlar-hv/ashlar/image-build/microcode/microcodetest"
)

// Sizes of the formats.
const (
	header, tableHeader = 48, 20
	section, entry      = 8, 16
)

var (
	broadwell = microcodetest.ID{CPUID: 0x406f1, Platforms: 0xef}
	rapids    = microcodetest.ID{CPUID: 0x806f8, Platforms: 0x87}
)

func testSet() Set {
	return Set{
		Intel:    append(microcodetest.Intel(0xb000040, broadwell), microcodetest.Intel(0x2b000650, rapids, microcodetest.ID{CPUID: 0x806f7, Platforms: 0x87})...),
		AMD:      append(microcodetest.AMD(0x800126f, 0x8012, 0x800f12), microcodetest.AMD(0x600063e, 0x6012, 0x600f12, 0x600f11)...),
		Sources:  []string{"intel-microcode 1", "amd64-microcode 2"},
		Licences: map[string][]byte{"licence-b": []byte("text of b"), "licence-a": []byte("text of a")},
	}
}

func TestParse(t *testing.T) {
	s := testSet()
	list, err := ParseIntel(s.Intel)
	if err != nil || len(list) != 2 || len(list[1].Signatures) != 2 || list[1].Revision != 0x2b000650 || list[1].Signatures[1] != (Signature{0x806f7, 0x87}) {
		t.Errorf("%+v, %v", list, err)
	}
	list, err = ParseAMD(s.AMD)
	if err != nil || len(list) != 2 || len(list[1].Signatures) != 2 || list[1].Signatures[0].CPUID != 0x600f12 || list[0].Revision != 0x800126f {
		t.Errorf("%+v, %v", list, err)
	}
}

// Whatever is changed or cut off is noticed.
func TestIntelRefuses(t *testing.T) {
	good := microcodetest.Intel(1, rapids, microcodetest.ID{CPUID: 0x806f7, Platforms: 0x87})
	put := func(off int, v uint32) func([]byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint32(b[off:], v); return b }
	}
	table := header + 2000
	for _, tt := range []struct {
		name string
		edit func([]byte) []byte
		want string
	}{
		{"nothing", func([]byte) []byte { return nil }, "there is nothing"},
		{"half a header", func(b []byte) []byte { return b[:40] }, "want a header"},
		{"cut off", func(b []byte) []byte { return b[:4095] }, "cut off"},
		{"one and a bit", func(b []byte) []byte { return append(b, 1, 2, 3) }, "update 1, at byte 4096"},
		{"header version", put(0, 2), "header version 2"},
		{"loader", put(20, 2), "loader revision 2"},
		{"no processor", put(12, 0), "no processor"},
		{"sizes", put(28, 4096), "4096 of data"},
		{"odd size", put(32, 4000), "want a multiple"},
		{"huge data", put(28, 0xfffffffc), "want a multiple"},
		{"huge", put(32, 0xfffffc00), "want a multiple"},
		{"old", put(28, 0), "checksum is wrong"},
		{"a bit of the data", func(b []byte) []byte { b[100] ^= 1; return b }, "checksum is wrong"},
		{"revision", put(4, 2), "checksum is wrong"},
		{"table too long", put(table, 200), "a table of 200"},
		{"table huge", put(table, 0xffffffff), "a table of 4294967295"},
		{"a bit of the table", func(b []byte) []byte { b[table+tableHeader] ^= 1; return b }, "table of processors is wrong"},
		{"an entry", func(b []byte) []byte {
			b[table+tableHeader]++
			// The table's own checksum holds.
			return put(table+4, binary.LittleEndian.Uint32(b[table+4:])-1)(b)
		}, "processor 000806f9/87 is wrong"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			list, err := ParseIntel(tt.edit(bytes.Clone(good)))
			if err == nil || !strings.Contains(err.Error(), tt.want) || list != nil {
				t.Errorf("%v, %v, want %q", list, err, tt.want)
			}
		})
	}
}

func TestAMDRefuses(t *testing.T) {
	good := microcodetest.AMD(0x800126f, 0x8012, 0x800f12)
	put := func(off int, v uint32) func([]byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint32(b[off:], v); return b }
	}
	patch := 4 + section + 2*entry
	for _, tt := range []struct {
		name string
		edit func([]byte) []byte
		want string
	}{
		{"nothing", func([]byte) []byte { return nil }, "there is nothing"},
		{"no mark", put(0, 1), "does not begin"},
		{"a mark alone", func(b []byte) []byte { return b[:4] }, "type and size"},
		{"no table", put(4, 1), "want a table"},
		{"odd table", put(8, 17), "want a table"},
		{"huge table", put(8, 0xffffffff), "4294967295 bytes"},
		{"table without patches", func(b []byte) []byte { return b[:patch] }, "there is nothing"},
		{"a type", put(patch, 2), "section of type 2"},
		{"a patch cut off", func(b []byte) []byte { return b[:len(b)-1] }, "512 bytes, where there are 511"},
		{"a small patch", func(b []byte) []byte { return put(patch+4, 32)(b)[:patch+8+32] }, "32 bytes, want 1 and at least 64"},
		{"an unknown processor", put(patch+8+24, 7), "no processor with the ID 0x0007"},
		{"something behind it", func(b []byte) []byte { return append(b, 1) }, "1 bytes, want the type"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			list, err := ParseAMD(tt.edit(bytes.Clone(good)))
			if err == nil || !strings.Contains(err.Error(), tt.want) || list != nil {
				t.Errorf("%v, %v, want %q", list, err, tt.want)
			}
		})
	}
}

func TestServers(t *testing.T) {
	max := microcodetest.Intel(2, microcodetest.ID{CPUID: 0x806f8, Platforms: 0x10})
	all, err := ParseIntel(bytes.Join([][]byte{
		microcodetest.Intel(1, microcodetest.ID{CPUID: 0x6f2, Platforms: 1}), microcodetest.Intel(3, microcodetest.ID{CPUID: 0x806f7, Platforms: 0x87}, rapids), microcodetest.Intel(3, microcodetest.ID{CPUID: 0x806f7, Platforms: 0x87}, rapids), max,
	}, nil))
	if err != nil {
		t.Fatal(err)
	}
	if list := Servers(all); len(list) != 1 || list[0].Revision != 3 {
		t.Errorf("%+v, want the one of 806f8/87, once", list)
	}
}

// What is put into an archive comes out of it, and what follows it is left alone.
func TestArchive(t *testing.T) {
	s := testSet()
	b, err := s.Archive()
	if err != nil {
		t.Fatal(err)
	}
	again, err := testSet().Archive()
	if err != nil || !bytes.Equal(b, again) {
		t.Errorf("the same set makes another archive: %v", err)
	}
	c, size, err := Read(append(bytes.Clone(b), "\x28\xb5\x2f\xfd and so on"...))
	if err != nil || size != len(b) {
		t.Fatalf("Read: %d of %d bytes, %v", size, len(b), err)
	}
	if diff := cmp.Diff(s.Sources, c.Sources); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}
	for _, tt := range []struct {
		v               Vendor
		cpuid, platform uint32
		want            uint32
	}{
		{Intel, 0x406f1, 0x80, 0xb000040}, {Intel, 0x406f1, 0x10, 0}, {Intel, 0x806f7, 0x4, 0x2b000650}, {Intel, 0x806f9, 0x4, 0},
		{AMD, 0x800f12, 0, 0x800126f}, {AMD, 0x600f11, 0, 0x600063e}, {AMD, 0x406f1, 0x80, 0}, {"", 0, 0, 0},
	} {
		if got, ok := c.For(tt.v, tt.cpuid, tt.platform); got != tt.want || ok != (tt.want != 0) {
			t.Errorf("For(%s, %x, %x) = %x, %v, want %x", tt.v, tt.cpuid, tt.platform, got, ok, tt.want)
		}
	}
	for name, want := range map[string][]byte{string(Intel): s.Intel, string(AMD): s.AMD} {
		at := bytes.Index(b, want)
		if at < 0 || at%16 != 0 {
			t.Errorf("the updates for %s lie at byte %d, want a multiple of 16", name, at)
		}
		named := bytes.Index(b, []byte("kernel/x86/microcode/"+name+".bin"))
		if named < 0 || named%4 != 110%4 {
			t.Errorf("%s is named at byte %d", name, named)
		}
	}
	if !bytes.Contains(b, []byte("text of a")) || !bytes.Contains(b, []byte("microcode/licence-b\x00")) {
		t.Error("licences are missing")
	}
}

func TestArchiveRefuses(t *testing.T) {
	for name, edit := range map[string]func(*Set){
		"no Intel": func(s *Set) { s.Intel = nil },
		"no AMD":   func(s *Set) { s.AMD = nil },
		"swapped":  func(s *Set) { s.Intel, s.AMD = s.AMD, s.Intel },
		"too much": func(s *Set) { s.Intel = bytes.Repeat(s.Intel, MaxSize/len(s.Intel)) },
	} {
		s := testSet()
		edit(&s)
		if b, err := s.Archive(); err == nil || b != nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	b, err := testSet().Archive()
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{"nothing": nil, "an initramfs": []byte("\x28\xb5\x2f\xfd"), "cut off": b[:len(b)/2], "without its end": b[:len(b)-512]} {
		if _, _, err := Read(bad); !errors.Is(err, ErrNone) {
			t.Errorf("%s: %v, want ErrNone", name, err)
		}
	}
	for what, text := range map[string]string{"a revision of the list": "0b000040\n", "a checksum": "\x15\x1c\x23\x2a\x31"} {
		bad := bytes.Clone(b)
		at := bytes.Index(bad, []byte(text))
		if at < 0 {
			t.Fatalf("there is no %q", text)
		}
		bad[at+1]++
		if _, _, err := Read(bad); err == nil || errors.Is(err, ErrNone) {
			t.Errorf("%s changed: %v", what, err)
		}
	}
}

func TestSignatureOf(t *testing.T) {
	for _, tt := range []struct {
		family, model, stepping int
		want                    uint32
	}{{6, 79, 1, 0x406f1}, {6, 143, 8, 0x806f8}, {23, 1, 2, 0x800f12}, {25, 17, 1, 0xa10f11}, {15, 6, 8, 0xf68}} {
		if got, ok := SignatureOf(tt.family, tt.model, tt.stepping); got != tt.want || !ok {
			t.Errorf("SignatureOf(%d, %d, %d) = %x, want %x", tt.family, tt.model, tt.stepping, got, tt.want)
		}
	}
	for _, bad := range [][3]int{{-1, 0, 0}, {271, 0, 0}, {6, 256, 0}, {6, 0, 16}} {
		if _, ok := SignatureOf(bad[0], bad[1], bad[2]); ok {
			t.Errorf("SignatureOf(%v): no error", bad)
		}
	}
}

// What the image has is what Debian's packages have, where they have been fetched.
func TestOfDebian(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("../..", "out/microcode.cpio"))
	if errors.Is(err, os.ErrNotExist) {
		if _, err := os.Stat("../../out/no-microcode"); err == nil {
			return // this build is to have none
		}
	}
	if err != nil {
		t.Fatalf("%v: `make microcode` makes it", err)
	}
	c, size, err := Read(b)
	if err != nil || size != len(b) {
		t.Fatalf("%d of %d bytes, %v", size, len(b), err)
	}
	for _, s := range serverSignatures() {
		if _, ok := c.For(Intel, s.CPUID, s.Platforms); !ok {
			t.Errorf("there is nothing for %s", s)
		}
	}
	for _, cpuid := range []uint32{0x800f12, 0x830f10, 0xa00f11, 0xa10f11} { // EPYC 7001 to 9004
		if _, ok := c.For(AMD, cpuid, 0); !ok {
			t.Errorf("there is nothing for AMD's %08x", cpuid)
		}
	}
}

func FuzzParse(f *testing.F) {
	s := testSet()
	f.Add(s.Intel)
	f.Add(s.AMD)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, parse := range []func([]byte) ([]Update, error){ParseIntel, ParseAMD} {
			list, err := parse(b)
			if err != nil && list != nil || err == nil && len(list) == 0 {
				t.Fatalf("%d updates beside %v", len(list), err)
			}
			for _, u := range list {
				if len(u.Signatures) == 0 || len(u.Data) > len(b) {
					t.Fatalf("%+v", u)
				}
			}
		}
	})
}

func FuzzRead(f *testing.F) {
	b, err := testSet().Archive()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:1000])
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, size, err := Read(b); err == nil && (size == 0 || size > len(b)) || err != nil && size != 0 {
			t.Fatalf("%d bytes of %d, %v", size, len(b), err)
		}
	})
}

func FuzzContents(f *testing.F) {
	f.Add([]byte("source x 1\nGenuineIntel 000406f1 000000ef 0b000040\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseContents(b)
		if err != nil {
			return
		}
		again, err := ParseContents(c.marshal())
		if err != nil || !bytes.Equal(again.marshal(), c.marshal()) {
			t.Fatalf("%q is written as %q, and read as %+v, %v", b, c.marshal(), again, err)
		}
	})
}
