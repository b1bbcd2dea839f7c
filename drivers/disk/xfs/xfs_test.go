package xfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var testOptions = Options{Label: "ashlar-data", UUID: [16]byte{0xd9, 0x5e, 0x28, 0x62, 0xf7, 0xf6, 0x4f, 0x24, 0xbe, 0x31, 0x5c, 0x47, 0xdb, 0xcd, 0xb9, 0xee}}

// sparse is a file of size bytes that takes no space.
func sparse(t *testing.T, size int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

// tool runs one of xfsprogs.
func tool(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + name) // not in everybody's PATH
	}
	if err != nil {
		t.Fatalf("%v: install the package xfsprogs", err)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	return string(out), err
}

func TestFormatIsCleanForRepair(t *testing.T) {
	for _, tt := range []struct {
		size   int64
		sector int
	}{
		{MinSize, 512},
		{MinSize, 4096},
		{MinSize + 4096*3 + 512, 512},
		{1 << 30, 512},
		{10 << 30, 512},
		{10 << 30, 4096},
		{1 << 40, 512},
		{4<<40 + 4096*100, 512}, // a last group too small to be one
		{5 << 40, 4096},
	} {
		t.Run(fmt.Sprintf("%d MiB, sectors of %d", tt.size>>20, tt.sector), func(t *testing.T) {
			f := sparse(t, tt.size)
			if err := format(f, tt.size, tt.sector, testOptions, time.Now()); err != nil {
				t.Fatal(err)
			}
			out, err := tool(t, "xfs_repair", "-n", "-f", f.Name())
			if err != nil {
				t.Fatalf("xfs_repair -n: %v\n%s", err, out)
			}
			for line := range strings.Lines(out) {
				if !quiet(line) {
					t.Errorf("xfs_repair -n: %s", line)
				}
			}
			info, err := Probe(f)
			if err != nil {
				t.Fatal(err)
			}
			if info.Label != testOptions.Label || info.UUID != testOptions.UUID || !info.Reflink || info.BlockSize != 4096 {
				t.Errorf("Probe = %+v", info)
			}
			if lost := tt.size - info.Size; lost < 0 || lost > groupMin*blockSize {
				t.Errorf("Probe = a size of %d on a device of %d", info.Size, tt.size)
			}
		})
	}
}

// quiet reports whether a line of xfs_repair -n is what it says of a clean
// file system.
func quiet(line string) bool {
	line = strings.TrimSpace(line)
	for _, p := range []string{
		"Phase ", "- ", "No modify flag set", "Maximum metadata LSN", "", "setting up",
		// The file lies on something other than XFS.
		"Cannot get host filesystem geometry", "Repair may fail if there is a sector size mismatch", "the image and the host filesystem.",
	} {
		if line == p || p != "" && strings.HasPrefix(line, p) {
			return true
		}
	}
	return false
}

// TestSameGeometryAsMkfs holds us to the choices of mkfs.xfs.
func TestSameGeometryAsMkfs(t *testing.T) {
	fields := []string{"dblocks", "agblocks", "agcount", "agblklog", "rootino", "logstart", "versionnum", "sectsize", "inodesize",
		"imax_pct", "icount", "ifree", "fdblocks", "inoalignmt", "spino_align", "logsunit", "logsectsize", "features2", "features_ro_compat", "features_incompat", "logblocks"}
	var args []string
	for _, s := range fields {
		args = append(args, "-c", "print "+s)
	}
	for _, tt := range []struct {
		size   int64
		sector int
	}{{MinSize, 512}, {10 << 30, 4096}, {200 << 30, 512}, {1 << 40, 512}} {
		ours, theirs := sparse(t, tt.size), sparse(t, tt.size)
		if err := format(ours, tt.size, tt.sector, testOptions, time.Now()); err != nil {
			t.Fatal(err)
		}
		if out, err := tool(t, "mkfs.xfs", "-q", "-f", "-s", fmt.Sprintf("size=%d", tt.sector), "-m", "crc=1,finobt=1,reflink=1,rmapbt=0,bigtime=1,inobtcount=1",
			"-i", "sparse=1,nrext64=0", "-l", fmt.Sprintf("size=%d", min(max(tt.size/logShare, logMin), logMax)), theirs.Name()); err != nil {
			t.Fatalf("mkfs.xfs: %v\n%s", err, out)
		}
		show := func(f *os.File) string {
			out, err := tool(t, "xfs_db", append([]string{"-c", "sb 0"}, append(args, f.Name())...)...)
			if err != nil {
				t.Fatalf("xfs_db: %v\n%s", err, out)
			}
			return out
		}
		if got, want := show(ours), show(theirs); got != want {
			t.Errorf("superblock of %d bytes:\n%s\nmkfs.xfs has:\n%s", tt.size, got, want)
		}
	}
}

func TestFormatRefuses(t *testing.T) {
	f := sparse(t, MinSize)
	for _, tt := range []struct {
		name string
		size int64
		o    Options
		want string
	}{
		{"too small", MinSize - 1, testOptions, "want 314572800 to"},
		{"too large", MaxSize + 1, testOptions, "want 314572800 to"},
		{"long label", MinSize, Options{Label: "thirteen-char", UUID: testOptions.UUID}, "label"},
		{"no UUID", MinSize, Options{Label: "a"}, "UUID"},
	} {
		err := Format(f, tt.size, tt.o)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Format = %v, want %q in it", tt.name, err, tt.want)
		}
	}
	if _, err := Probe(f); !errors.Is(err, ErrNotXFS) {
		t.Errorf("Probe of a refused disk = %v, want ErrNotXFS", err)
	}
}

// TestFormatWipes checks that no mark of what was there before stays.
func TestFormatWipes(t *testing.T) {
	f := sparse(t, MinSize)
	for _, at := range []int64{512, 1080, 4096, 65536, MinSize - 512, MinSize - 65536} {
		if _, err := f.WriteAt([]byte("a mark of another"), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := Format(f, MinSize, testOptions); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1<<20)
	for _, at := range []int64{0, MinSize - 1<<20} {
		if _, err := f.ReadAt(b, at); err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, []byte("a mark of another")) {
			t.Errorf("the MiB at %d still has a mark of what was there", at)
		}
	}
}

// TestFormatCutOff ends a formatting after each of its steps: until the last,
// the device says that it is not finished.
func TestFormatCutOff(t *testing.T) {
	f := sparse(t, MinSize)
	g, err := newGeometry(MinSize, 512)
	if err != nil {
		t.Fatal(err)
	}
	m := &maker{f: f, geometry: g, options: testOptions, now: time.Now()}
	for i, step := range []func() error{m.wipe, m.groups, m.inodes, m.log} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, len(Unfinished))
		if _, err := f.ReadAt(b, 0); err != nil || string(b) != Unfinished {
			t.Errorf("after step %d: %q, %v", i, b, err)
		}
		if _, err := Probe(f); !errors.Is(err, ErrNotXFS) {
			t.Errorf("after step %d: Probe = %v", i, err)
		}
	}
	if err := m.superblock(); err != nil {
		t.Fatal(err)
	}
	if _, err := Probe(f); err != nil {
		t.Errorf("at the end: Probe = %v", err)
	}
}

func TestProbeDamaged(t *testing.T) {
	f := sparse(t, MinSize)
	if err := Format(f, MinSize, testOptions); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{1}, sbDataBlocks); err != nil {
		t.Fatal(err)
	}
	if _, err := Probe(f); err == nil || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("Probe = %v, want it to name the checksum", err)
	}
}

func FuzzProbe(f *testing.F) {
	m := &maker{options: testOptions}
	for _, sector := range []int{512, 4096} {
		g, err := newGeometry(MinSize, sector)
		if err != nil {
			f.Fatal(err)
		}
		m.geometry = g
		f.Add(m.super(), true)
	}
	f.Add([]byte("XFSB"), false)
	f.Fuzz(func(t *testing.T, b []byte, sum bool) {
		if sum && len(b) >= 512 {
			b = seal(bytes.Clone(b[:512]), sbCRC)
		}
		info, err := Probe(bytes.NewReader(b))
		if (info == nil) == (err == nil) {
			t.Fatalf("Probe = %v, %v", info, err)
		}
		if err == nil && info.Size < 0 {
			t.Fatalf("Probe = a size of %d", info.Size)
		}
	})
}
