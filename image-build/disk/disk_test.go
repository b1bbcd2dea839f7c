package disk

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ashlar-hv/ashlar/image-build/config"
	"github.com/ashlar-hv/ashlar/image-build/efi"
	"github.com/ashlar-hv/ashlar/image-build/gpt"
)

func build(t testing.TB, n int) memory {
	t.Helper()
	b, err := Build(bytes.Repeat([]byte("EFI binary"), n/10))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestLayout(t *testing.T) {
	m := build(t, 20<<20)
	l, err := Open(m, int64(len(m)))
	if err != nil {
		t.Fatal(err)
	}
	if l.Config.Offset() != ConfigOffset || l.Config.Size() != ConfigSize {
		t.Errorf("configuration partition at %d, %d bytes", l.Config.Offset(), l.Config.Size())
	}
	v, err := l.OpenConfig(m)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := v.ReadFile("README.TXT", 4096); err != nil || !strings.Contains(string(b), config.FileName) {
		t.Errorf("README.TXT = %q, %v", b, err)
	}
	for name, p := range map[string]gpt.Partition{"configuration": l.Config, "EFI system": l.ESP} {
		path := filepath.Join(t.TempDir(), "part")
		if err := os.WriteFile(path, m[p.Offset():][:p.Size()], 0o600); err != nil {
			t.Fatal(err)
		}
		fsck, err := exec.LookPath("fsck.vfat")
		if err != nil {
			fsck, err = exec.LookPath("/usr/sbin/fsck.vfat") // not in everybody's PATH
		}
		if err != nil {
			t.Fatalf("%v: install the package dosfstools", err)
		}
		if out, err := exec.Command(fsck, "-n", path).CombinedOutput(); err != nil {
			t.Errorf("fsck.vfat of the %s partition: %v\n%s", name, err, out)
		}
	}
}

func TestReproducible(t *testing.T) {
	if !bytes.Equal(build(t, 10<<20), build(t, 10<<20)) {
		t.Error("two builds of the same binary differ")
	}
	a, b := build(t, 10<<20), build(t, 10<<20+10)
	ga, err := gpt.Read(a, int64(len(a)))
	if err != nil {
		t.Fatal(err)
	}
	gb, err := gpt.Read(b, int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if ga.Disk == gb.Disk {
		t.Error("images of different binaries have the same identifier")
	}
	if ga.Disk == ga.Partitions[0].ID || ga.Partitions[0].ID == ga.Partitions[1].ID {
		t.Error("identifiers within an image are the same")
	}
}

// TestMaxSize finds the largest binary that fits: nothing above it does, and it
// is no less than the budget leaves.
func TestMaxSize(t *testing.T) {
	largest := MaxSize - espOffset - tail - espOverhead
	b, err := Build(make([]byte, largest))
	if err != nil {
		t.Fatalf("a binary of %d bytes does not fit: %v", largest, err)
	}
	if len(b) != MaxSize {
		t.Errorf("the image has %d bytes, want %d", len(b), MaxSize)
	}
	if _, err := Build(make([]byte, largest+1)); err == nil || !strings.Contains(err.Error(), "want 32.0 MiB at most") {
		t.Errorf("Build with one byte more = %v, want it to name the limit", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	m := build(t, 10<<20)
	size := int64(len(m))
	if _, err := Open(make(memory, 1<<20), 1<<20); !errors.Is(err, ErrNotAshlar) {
		t.Errorf("zeros: Open = %v, want ErrNotAshlar", err)
	}
	if _, err := Open(m, size-3*mib); err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("cut off: Open = %v, want it to say so", err)
	}
	foreign := make(memory, 4*mib)
	table := gpt.Table{Partitions: []gpt.Partition{{Type: gpt.BasicData, First: 2048, Last: 4095, Name: "data"}}}
	if err := table.Write(foreign, int64(len(foreign)), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(foreign, int64(len(foreign))); !errors.Is(err, ErrNotAshlar) {
		t.Errorf("another disk: Open = %v, want ErrNotAshlar", err)
	}
}

func TestCommandLine(t *testing.T) {
	line := CommandLine()
	if len(line)+len(" "+Rescue) > efi.MaxCommandLine {
		t.Errorf("the command line has %d bytes", len(line))
	}
	for _, w := range commandLine {
		if w.reason == "" || strings.ContainsAny(w.word, " \"") || strings.Count(" "+line+" ", " "+w.word+" ") != 1 {
			t.Errorf("word %q, reason %q", w.word, w.reason)
		}
	}
}

func TestPartitionBounds(t *testing.T) {
	m := make(memory, 4096)
	p := &Partition{dev: m, start: 1024, Size: 1024}
	for _, off := range []int64{-1, 1023, 1025, 1 << 62} {
		if _, err := p.ReadAt(make([]byte, 2), off); err == nil {
			t.Errorf("ReadAt %d = nil, want an error", off)
		}
		if _, err := p.WriteAt([]byte{1, 1}, off); err == nil {
			t.Errorf("WriteAt %d = nil, want an error", off)
		}
	}
	if !bytes.Equal(m, make([]byte, 4096)) {
		t.Error("a refused write changed the disk")
	}
}
