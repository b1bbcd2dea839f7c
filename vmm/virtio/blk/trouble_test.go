package blk

import (
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/virtio/internal/virtiotest"
)

// TestTrouble has a disk's file system be full, and then its file be too short: the guest
// gets errors, and each kind is told once.
func TestTrouble(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Fatalf("mount a small file system: %v: this test runs as root", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	f, err := os.Create(filepath.Join(dir, "disk"))
	if err != nil {
		t.Fatal(err)
	}
	const size = 4 << 20
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var told []bool
	dev, err := New(Config{File: f, Trouble: func(full bool) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, full)
	}})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Driver: virtiotest.NewMachine(t).Plug(dev), dev: dev, name: f.Name(), want: make([]byte, size)}
	r.start(all)
	block := make([]byte, 4096)
	do := func(typ uint32, at int, want byte) {
		t.Helper()
		out, in := block, 0
		if typ == typeIn {
			out, in = nil, len(block)
		}
		if _, s, _ := r.do(r.rings[0], typ, uint64(at/SectorSize), out, in); s != want {
			t.Errorf("request of type %d at %d: status %d, want %d", typ, at, s, want)
		}
	}
	do(typeOut, 0, statusOK)
	filler, err := os.Create(filepath.Join(dir, "filler"))
	for err == nil {
		_, err = filler.Write(block)
	}
	filler.Close()
	do(typeOut, 2<<20, statusIOErr)
	do(typeOut, 3<<20, statusIOErr)
	do(typeOut, 0, statusOK) // what has room goes on
	if err := os.Remove(filepath.Join(dir, "filler")); err != nil {
		t.Fatal(err)
	}
	do(typeOut, 2<<20, statusOK)
	if err := f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	do(typeIn, 2<<20, statusIOErr)
	do(typeIn, 0, statusOK)
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(told, []bool{true, false}) {
		t.Errorf("told of %v, want once that it is full and once that it fails", told)
	}
	if n := dev.Counters(); n["host_full"] != 2 || n["host_errors"] != 1 || n["errors"] != 3 {
		t.Errorf("counters = %v", n)
	}
	r.want = nil // the rig's check of the whole file does not hold for one that was cut
}
