package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/u-root/mkuimage/cpio"
)

func records() []cpio.Record {
	odd := cpio.StaticFile("bin/b", "bee", 0o755)
	odd.MTime, odd.UID, odd.Ino, odd.NLink = 12345, 1000, 77, 3
	return append(skeleton(), odd, cpio.StaticFile("a/deep/file", "old", 0o644), cpio.StaticFile("a/deep/file", "new", 0o644))
}

func TestSave(t *testing.T) {
	dir := t.TempDir()
	var plainBytes []byte
	for _, name := range []string{"x.cpio", "x.cpio.zst", "again.cpio.zst"} {
		if err := save(filepath.Join(dir, name), arrange(records())); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if name == "x.cpio" {
			plainBytes = b
			continue
		}
		z, err := zstd.NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		unpacked, err := io.ReadAll(z)
		z.Close()
		if err != nil || !bytes.Equal(unpacked, plainBytes) {
			t.Errorf("%s: %v, not the same as plain", name, err)
		}
	}
	one, _ := os.ReadFile(filepath.Join(dir, "x.cpio.zst"))
	two, _ := os.ReadFile(filepath.Join(dir, "again.cpio.zst"))
	if !bytes.Equal(one, two) {
		t.Error("the same records give other bytes")
	}
	all, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(plainBytes)))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range all {
		names = append(names, r.Name)
		if r.MTime != 0 || r.UID != 0 || r.GID != 0 || r.NLink > 1 {
			t.Errorf("%s: not normalised: %+v", r.Name, r.Info)
		}
	}
	want := []string{"a", "a/deep", "a/deep/file", "bbin", "bin", "bin/b", "data", "dev", "dev/console", "etc", "proc", "run", "sys", "tmp"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSaveLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	bad := cpio.Record{Info: cpio.Info{Name: "x", Mode: cpio.S_IFREG, FileSize: 10}, ReaderAt: bytes.NewReader(nil)}
	if err := save(filepath.Join(dir, "x.cpio.zst"), []cpio.Record{bad}); err == nil {
		t.Error("no error for a file that is too short")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestFilesSet(t *testing.T) {
	var f files
	if err := f.Set("out/x:bin/x"); err != nil || f[0] != [2]string{"out/x", "bin/x"} {
		t.Errorf("Set = %v, %v", f, err)
	}
	for _, bad := range []string{"", "x", "x:", ":x", "x:/bin/x"} {
		if err := f.Set(bad); err == nil {
			t.Errorf("Set(%q) = nil error", bad)
		}
	}
}

// A program that has become too large is refused with its size.
func TestCheckSizes(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "small"), make([]byte, 100), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, fits := range []int64{0, 100, 101} {
		if err := checkSizes(dir, []program{{pkg: "./a/small", path: "bin/small", max: fits}}); err != nil {
			t.Errorf("%d: %v", fits, err)
		}
	}
	if err := checkSizes(dir, []program{{pkg: "./a/small", path: "bin/small", max: 99}}); err == nil || !strings.Contains(err.Error(), "bin/small has 100 bytes, want 99 at most") {
		t.Errorf("error = %v", err)
	}
	if err := checkSizes(dir, []program{{pkg: "./a/none", path: "bin/none"}}); err == nil {
		t.Error("no error for a program that was not built")
	}
}
