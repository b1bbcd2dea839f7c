package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPoolProblem(t *testing.T) {
	sys, small := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(sys, "class/block/sda"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=80m"); err != nil {
		t.Fatalf("mount a small file system: %v: this test runs as root", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(small, unix.MNT_DETACH) })
	check := func(dir, device, want string) {
		t.Helper()
		if got := poolProblem(dir, device, sys); (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("poolProblem(%s, %s) = %q, want %q", dir, device, got, want)
		}
	}
	check(small, "", "")
	check(small, "/dev/sda", "")
	check(small, "/dev/sdb", "/dev/sdb is gone")
	check(filepath.Join(small, "none"), "/dev/sda", "fails")
	if err := os.WriteFile(filepath.Join(small, "filler"), make([]byte, 20<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	check(small, "/dev/sda", "is full: 60 MiB")
	if err := os.Remove(filepath.Join(small, "filler")); err != nil {
		t.Fatal(err)
	}
	check(small, "/dev/sda", "")
}
