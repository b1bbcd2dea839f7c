//go:build roottest

package iouring

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/memory"
)

const hugePage = 2 << 20

// pool is memory of so many pages of 2 MiB.
func pool(t *testing.T, pages uint64) *memory.Memory {
	t.Helper()
	const file = "/proc/sys/vm/nr_hugepages"
	if err := os.WriteFile(file, []byte("40"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(file, []byte("0"), 0); err != nil {
			t.Error(err)
		}
	})
	fd, err := unix.MemfdCreate("pool", unix.MFD_CLOEXEC|unix.MFD_HUGETLB|unix.MFD_HUGE_2MB)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "pool")
	defer f.Close()
	if err := f.Truncate(int64(pages * hugePage)); err != nil {
		t.Fatal(err)
	}
	m, err := memory.Map(f, pages*hugePage)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// TestPool registers pages of the host's pool for two rings, which read and write across the
// border of two pages.
func TestPool(t *testing.T) {
	m := pool(t, 32)
	buffers, err := Register(Iovec{Base: uint64(m.Regions()[0].HostAddr), Len: m.Size()})
	if err != nil {
		t.Fatal(err)
	}
	defer buffers.Close()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range uint64(2) {
		r, err := New(4, []*os.File{f}, []Op{OpReadv, OpWritev}, buffers)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		const n = 64 << 10
		at := func(gpa uint64) Iovec {
			base, err := m.HostSpan(gpa, n)
			if err != nil {
				t.Fatal(err)
			}
			return Iovec{Base: uint64(base), Len: n}
		}
		from, to := (i+1)*hugePage-n/2, m.Size()-n
		want := bytes.Repeat([]byte("registered!!!..."), n/16)
		want[0] = byte(i)
		if err := m.WriteAt(from, want); err != nil {
			t.Fatal(err)
		}
		if !r.Registered(at(from)) || !r.Registered(at(to)) {
			t.Fatal("the memory is not registered")
		}
		if c := one(t, r, r.WriteFixed(0, at(from), 0, true, 1)); c != (Completion{1, n}) {
			t.Errorf("write: %+v", c)
		}
		if c := one(t, r, r.ReadFixed(0, at(to), 0, 2)); c != (Completion{2, n}) {
			t.Errorf("read: %+v", c)
		}
		got := make([]byte, n)
		if err := m.ReadAt(to, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("ring %d has read other than what was written (%v)", i, err)
		}
	}
}
