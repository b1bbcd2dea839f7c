package fat

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const testSize = 4 << 20

// memory is a device that can break down after a number of writes.
type memory struct {
	b      []byte
	writes int // made so far
	limit  int // how many succeed, if not 0; the one after it is cut in half
}

func newMemory(size int64) *memory { return &memory{b: make([]byte, size)} }

func (m *memory) ReadAt(b []byte, off int64) (int, error) {
	return bytes.NewReader(m.b).ReadAt(b, off)
}

func (m *memory) WriteAt(b []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(b)) > int64(len(m.b)) {
		return 0, io.ErrShortWrite
	}
	m.writes++
	if m.limit > 0 && m.writes > m.limit {
		if m.writes == m.limit+1 {
			// Sectors are written whole or not at all.
			copy(m.b[off:], b[:len(b)/2/sectorSize*sectorSize])
		}
		return 0, errors.New("power cut")
	}
	return copy(m.b[off:], b), nil
}

func formatted(t testing.TB, size int64, o Options) (*memory, *Volume) {
	t.Helper()
	m := newMemory(size)
	if err := Format(m, size, o); err != nil {
		t.Fatal(err)
	}
	v, err := Open(m, size)
	if err != nil {
		t.Fatal(err)
	}
	return m, v
}

var testOptions = Options{Label: "ASHLAR-CFG", ID: 0x12345678, ClusterSize: 512, Hidden: 2048}

// tool runs a program of a package that must be there.
func tool(t *testing.T, pkg, name string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + name) // not in everybody's PATH
	}
	if err != nil {
		t.Fatalf("%v: install the package %s", err, pkg)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "MTOOLS_SKIP_CHECK=1", "TZ=UTC", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func save(t *testing.T, m *memory) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fat.img")
	if err := os.WriteFile(path, m.b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func fsck(t *testing.T, m *memory) {
	t.Helper()
	if out, err := tool(t, "dosfstools", "fsck.vfat", "-n", save(t, m)); err != nil {
		t.Errorf("fsck.vfat: %v\n%s", err, out)
	}
}

func TestOthersReadWhatWeWrite(t *testing.T) {
	for _, tt := range []struct {
		size    int64
		cluster int
	}{{2200 << 10, 512}, {testSize, 512}, {9 << 20, 2048}, {31 << 20, 2048}, {40 << 20, 4096}} {
		t.Run(fmt.Sprintf("%d KiB, clusters of %d", tt.size>>10, tt.cluster), func(t *testing.T) {
			o := testOptions
			o.ClusterSize = tt.cluster
			m, v := formatted(t, tt.size, o)
			for _, dir := range []string{"EFI", "EFI/BOOT"} {
				if err := v.Mkdir(dir); err != nil {
					t.Fatal(err)
				}
			}
			files := map[string][]byte{
				"ashlar.yaml":          []byte("version: 1\n"),
				"ashlar.yaml.bak":      []byte("another with the same short name"),
				"EFI/BOOT/BOOTX64.EFI": bytes.Repeat([]byte("0123456789abcdef"), 50001),
				"EMPTY":                nil,
				"EFI/a-name-longer-than-thirteen-characters.conf": []byte("x"),
			}
			for name, data := range files {
				if err := v.WriteFile(name, data); err != nil {
					t.Fatal(err)
				}
			}
			fsck(t, m)
			path := save(t, m)
			for name, want := range files {
				got, err := tool(t, "mtools", "mtype", "-i", path, "::/"+name)
				if err != nil || got != string(want) {
					t.Errorf("mtype %s: %v, %d bytes, want %d", name, err, len(got), len(want))
				}
				mine, err := v.ReadFile(strings.ToLower(name), 1<<20)
				if err != nil || !bytes.Equal(mine, want) {
					t.Errorf("ReadFile(%s) = %d bytes, %v", name, len(mine), err)
				}
			}
			out, err := tool(t, "mtools", "mdir", "-b", "-/", "-i", path)
			if err != nil || !strings.Contains(out, "::/ashlar.yaml\n") || !strings.Contains(out, "::/EFI/BOOT/BOOTX64.EFI\n") {
				t.Errorf("mdir: %v\n%s", err, out)
			}
			if v.Label() != "ASHLAR-CFG" {
				t.Errorf("Label = %q", v.Label())
			}
		})
	}
}

func TestWeReadWhatOthersWrite(t *testing.T) {
	m, _ := formatted(t, testSize, testOptions)
	path := save(t, m)
	doc := filepath.Join(t.TempDir(), "ashlar.yaml")
	if err := os.WriteFile(doc, bytes.Repeat([]byte("k: v\n"), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][]string{
		{"mmd", "-i", path, "::/System Volume Information"},
		{"mcopy", "-i", path, doc, "::/another file with a long name.txt"},
		{"mcopy", "-i", path, doc, "::/ashlar.yaml"},
		{"mdel", "-i", path, "::/another file with a long name.txt"},
	} {
		if out, err := tool(t, "mtools", c[0], c[1:]...); err != nil {
			t.Fatalf("%v: %v\n%s", c, err, out)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m = &memory{b: b}
	v, err := Open(m, testSize)
	if err != nil {
		t.Fatal(err)
	}
	got, err := v.ReadFile("ashlar.yaml", 1<<20)
	if err != nil || len(got) != 5000 {
		t.Fatalf("ReadFile = %d bytes, %v", len(got), err)
	}
	if err := v.WriteFile("ashlar.yaml", []byte("new")); err != nil {
		t.Fatal(err)
	}
	fsck(t, m)
	if out, err := tool(t, "mtools", "mtype", "-i", save(t, m), "::/ashlar.yaml"); err != nil || out != "new" {
		t.Errorf("mtype = %q, %v", out, err)
	}
}

// TestPowerCut cuts the power at every write of a first and a second document.
func TestPowerCut(t *testing.T) {
	before, v := formatted(t, testSize, testOptions)
	documents := [][]byte{nil, bytes.Repeat([]byte("first\n"), 700), bytes.Repeat([]byte("second\n"), 400)}
	for n := 1; n < len(documents); n++ {
		for limit := 1; ; limit++ {
			m := &memory{b: bytes.Clone(before.b), limit: limit}
			w, err := Open(m, testSize)
			if err != nil {
				t.Fatal(err)
			}
			failed := w.WriteFile("ashlar.yaml", documents[n])
			// Who reads it next sees either.
			r, err := Open(&memory{b: m.b}, testSize)
			if err != nil {
				t.Fatalf("document %d, cut after write %d: %v", n, limit, err)
			}
			got, err := r.ReadFile("ashlar.yaml", 1<<20)
			if errors.Is(err, fs.ErrNotExist) && n == 1 {
				got, err = nil, nil
			}
			if err != nil || !bytes.Equal(got, documents[n-1]) && !bytes.Equal(got, documents[n]) {
				t.Fatalf("document %d, cut after write %d: read %d bytes, %v", n, limit, len(got), err)
			}
			if err := r.WriteFile("ashlar.yaml", documents[n]); err != nil {
				t.Fatalf("document %d, cut after write %d: write again: %v", n, limit, err)
			}
			if failed == nil {
				break
			}
		}
		if err := v.WriteFile("ashlar.yaml", documents[n]); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWriteManyTimes(t *testing.T) {
	m, v := formatted(t, 2200<<10, testOptions)
	for i := range 200 {
		if err := v.WriteFile("ashlar.yaml", bytes.Repeat([]byte{'a' + byte(i%26)}, 65536-i)); err != nil {
			t.Fatalf("write %d: %v", i, err)
		}
	}
	fsck(t, m)
}

// TestManyNames fills a directory with names of one and two entries, which
// leaves gaps at the ends of its sectors.
func TestManyNames(t *testing.T) {
	m, v := formatted(t, testSize, testOptions)
	var names []string
	for i := range 9 {
		names = append(names, fmt.Sprintf("long-name-%d.yaml", i), fmt.Sprintf("S%d", i), fmt.Sprintf("T%d", i), fmt.Sprintf("%d-is-a-name-of-four-entries-in-the-directory", i))
	}
	for _, name := range names {
		if err := v.WriteFile(name, []byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range names {
		if b, err := v.ReadFile(name, 100); err != nil || string(b) != name {
			t.Errorf("ReadFile(%s) = %q, %v", name, b, err)
		}
	}
	fsck(t, m)
	out, err := tool(t, "mtools", "mdir", "-b", "-i", save(t, m))
	if err != nil || strings.Count(out, "::/") != len(names) {
		t.Errorf("mdir: %v, want %d names\n%s", err, len(names), out)
	}
}

// TestLeftOverLongName has the entries of a long name before a file that they do
// not belong to, as systems leave them that know short names only.
func TestLeftOverLongName(t *testing.T) {
	m, v := formatted(t, testSize, testOptions)
	if err := v.WriteFile("ashlar.yaml", []byte("old")); err != nil {
		t.Fatal(err)
	}
	slots, err := v.slots(0)
	if err != nil {
		t.Fatal(err)
	}
	s := find(slots, "ashlar.yaml")
	copy(m.b[s.offset:], "OTHER   TXT")
	if b, err := v.ReadFile("OTHER.TXT", 100); err != nil || string(b) != "old" {
		t.Errorf("ReadFile(OTHER.TXT) = %q, %v", b, err)
	}
	if b, err := v.ReadFile("ashlar.yaml", 100); err == nil {
		t.Errorf("ReadFile(ashlar.yaml) = %q, want that there is none", b)
	}
	if err := v.WriteFile("ashlar.yaml", []byte("new")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"OTHER.TXT": "old", "ashlar.yaml": "new"} {
		if b, err := v.ReadFile(name, 100); err != nil || string(b) != want {
			t.Errorf("ReadFile(%s) = %q, %v, want %q", name, b, err, want)
		}
	}
}

func TestNoRoom(t *testing.T) {
	m, v := formatted(t, 2200<<10, testOptions)
	if err := v.WriteFile("BIG.BIN", make([]byte, 2000<<10)); err != nil {
		t.Fatal(err)
	}
	was := bytes.Clone(m.b)
	err := v.WriteFile("ashlar.yaml", make([]byte, 300<<10))
	if err == nil || !strings.Contains(err.Error(), "no room") {
		t.Errorf("WriteFile = %v, want it to say that there is no room", err)
	}
	if !bytes.Equal(was, m.b) {
		t.Error("the refused file changed the file system")
	}
}

func TestOpenRefuses(t *testing.T) {
	m, _ := formatted(t, testSize, testOptions)
	for _, tt := range []struct {
		name string
		size int64
		edit func(b []byte)
	}{
		{"zeros", testSize, func(b []byte) { clear(b) }},
		{"cut off", testSize / 2, func([]byte) {}},
		{"clusters of 0 sectors", testSize, func(b []byte) { b[bpbSectorsPerCluster] = 0 }},
		{"no FAT", testSize, func(b []byte) { b[bpbFATs] = 0 }},
		{"short FAT", testSize, func(b []byte) { b[bpbFATSectors] = 1 }},
		{"FAT32", testSize, func(b []byte) { b[bpbFATSectors], b[bpbFATSectors+1] = 0, 0 }},
		{"FAT12", testSize, func(b []byte) { b[bpbSectorsPerCluster] = 4 }},
	} {
		b := bytes.Clone(m.b)
		tt.edit(b)
		if v, err := Open(&memory{b: b}, tt.size); err == nil {
			t.Errorf("%s: Open = %+v, want an error", tt.name, v)
		}
	}
}

// FuzzVolume reads and writes a file system whose boot sector, allocation table
// and root directory come from elsewhere.
func FuzzVolume(f *testing.F) {
	m, v := formatted(f, 2200<<10, testOptions)
	for _, name := range []string{"ashlar.yaml", "SHORT.TXT"} {
		if err := v.WriteFile(name, make([]byte, 5000)); err != nil {
			f.Fatal(err)
		}
	}
	if err := v.Mkdir("DIR"); err != nil {
		f.Fatal(err)
	}
	part := func(at, n int64) []byte { return bytes.Clone(m.b[at : at+n]) }
	f.Add(part(0, sectorSize), part(v.fatStart, 128), part(v.rootStart, 512))
	loop := part(v.fatStart, 128)
	copy(loop[4:], []byte{3, 0, 2, 0})
	f.Add(part(0, sectorSize), loop, part(v.rootStart, 512))
	f.Fuzz(func(t *testing.T, boot, table, root []byte) {
		m := newMemory(2200 << 10)
		copy(m.b, boot[:min(len(boot), sectorSize)])
		copy(m.b[v.fatStart:], table[:min(int64(len(table)), v.fatSize)])
		copy(m.b[v.rootStart:], root[:min(int64(len(root)), v.rootSize)])
		w, err := Open(m, 2200<<10)
		if err != nil {
			return
		}
		for _, name := range []string{"ashlar.yaml", "SHORT.TXT", "DIR/x"} {
			if _, err := w.ReadFile(name, 1<<20); err != nil {
				continue
			}
		}
		if err := w.WriteFile("ashlar.yaml", []byte("new")); err != nil {
			return
		}
		if got, err := w.ReadFile("ashlar.yaml", 100); err != nil || string(got) != "new" {
			t.Fatalf("read back %q, %v", got, err)
		}
	})
}
