// Package scratch gives tests that need root (qemu-tests/roottest) a disk that they may do
// with as they like: with a file system, and with one whose disk fails.
package scratch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/drivers/disk/xfs"
)

// Serial is the serial number of the disk, and Size its size in bytes.
const (
	Serial = "scratch"
	Size   = 1 << 30
)

// Node is the disk's device node.
func Node(t testing.TB) string {
	t.Helper()
	found, err := filepath.Glob("/sys/block/*/serial")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range found {
		if b, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(b)) == Serial {
			return "/dev/" + filepath.Base(filepath.Dir(path))
		}
	}
	t.Fatalf("the machine has no disk with the serial number %s: qemu-tests/roottest's TestDisk has it", Serial)
	return ""
}

// Format makes an empty XFS file system on node.
func Format(t testing.TB, node string) {
	t.Helper()
	f, err := os.OpenFile(node, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Seek(0, 2)
	if err == nil {
		err = xfs.Format(f, size, xfs.Options{Label: Serial, UUID: [16]byte{1}})
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Mount mounts the file system of node on a folder, until the function that it returns is
// called, or the test ends. That fails while a file on it is open.
func Mount(t testing.TB, node string) (dir string, unmount func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "scratch-")
	if err != nil {
		t.Fatal(err)
	}
	if err := mount(node, dir); err != nil {
		t.Fatal(err)
	}
	mounted := true
	unmount = func() {
		t.Helper()
		if !mounted {
			return
		}
		mounted = false
		// The kernel lets go of what rings of io_uring had open some time after their end.
		err := unix.Unmount(dir, 0)
		for range 100 {
			if !errors.Is(err, unix.EBUSY) {
				break
			}
			time.Sleep(100 * time.Millisecond)
			err = unix.Unmount(dir, 0)
		}
		if err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	}
	t.Cleanup(unmount)
	return dir, unmount
}

func mount(node, dir string) error {
	if err := unix.Mount(node, dir, "xfs", unix.MS_NOATIME, ""); err != nil {
		return fmt.Errorf("mount %s: %w", node, err)
	}
	return nil
}
