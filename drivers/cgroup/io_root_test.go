//go:build roottest

package cgroup

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/qemu-tests/scratch"
	"golang.org/x/sys/unix"
)

// TestDiskWall has a process write to a disk past the page cache, and through it, in a group
// that may do so little that it has to wait, whether it is counted in bytes or in operations.
func TestDiskWall(t *testing.T) {
	node := scratch.Node(t)
	scratch.Format(t, node)
	dir, _ := scratch.Mount(t, node)
	parent := filepath.Join(root, "test-guests")
	if err := Enable(root, parent); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(parent)
	g, err := Create(filepath.Join(parent, "writer"), Limits{MemoryMax: 256 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Remove(5 * time.Second)
	probe, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	d, err := DiskOf(probe)
	probe.Close()
	if err != nil || d.Major == 0 {
		t.Fatalf("DiskOf = %v, %v", d, err)
	}
	for _, tt := range []struct {
		name  string
		most  IOMax
		bytes int // of one write
		flags int
		least time.Duration // that 64 of them take
		max   string
	}{
		{"bytes, direct", IOMax{Bytes: 2 << 20}, 128 << 10, unix.O_DIRECT, 3 * time.Second, "rbps=2097152 wbps=2097152 riops=max wiops=max"},
		{"bytes, cached", IOMax{Bytes: 2 << 20}, 128 << 10, 0, 3 * time.Second, "rbps=2097152 wbps=2097152 riops=max wiops=max"},
		{"operations", IOMax{Operations: 20}, 4096, unix.O_DIRECT, 2 * time.Second, "rbps=max wbps=max riops=20 wiops=20"},
		{"nothing", IOMax{}, 4096, unix.O_DIRECT, 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := g.SetIOMax(d, tt.most); err != nil {
				t.Fatal(err)
			}
			want := ""
			if tt.max != "" {
				want = d.String() + " " + tt.max
			}
			if got := read(t, "test-guests/writer/io.max"); got != want {
				t.Errorf("io.max = %q, want %q", got, want)
			}
			took := write64(t, g, filepath.Join(dir, "file"), tt.bytes, tt.flags)
			t.Logf("64 writes of %d bytes took %v", tt.bytes, took)
			if took < tt.least {
				t.Errorf("64 writes of %d bytes took %v, want %v at least", tt.bytes, took, tt.least)
			}
		})
	}
	if stat := read(t, "test-guests/writer/io.stat"); !strings.Contains(stat, d.String()+" ") || !strings.Contains(stat, "wbytes=") {
		t.Errorf("io.stat = %q", stat)
	}
	if err := g.SetIOMax(Disk{4000, 4000}, IOMax{Bytes: 1 << 20}); err == nil {
		t.Error("a disk that is not there was bounded")
	}
}

const writeVariable = "ASHLAR_CGROUP_WRITE"

// write64 has a process in g write 64 times and wait until all is on the disk.
func write64(t *testing.T, g *Group, path string, bytes, flags int) time.Duration {
	t.Helper()
	f, err := g.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{fmt.Sprintf("%s=%s %d %d", writeVariable, path, bytes, flags)}
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}
	begin := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return time.Since(begin)
}

// writes is the process of write64.
func writes(order string) error {
	var path string
	var bytes, flags int
	if _, err := fmt.Sscanf(order, "%s %d %d", &path, &bytes, &flags); err != nil {
		return err
	}
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|flags, 0o600)
	if err != nil {
		return err
	}
	b, err := unix.Mmap(-1, 0, bytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS) // aligned
	if err != nil {
		return err
	}
	for i := range 64 {
		if _, err := unix.Pwrite(fd, b, int64(i*bytes)); err != nil {
			return err
		}
	}
	return unix.Fdatasync(fd)
}
