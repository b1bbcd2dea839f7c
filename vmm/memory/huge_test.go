//go:build roottest

package memory

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// pool is a memory file on pages of 2 MiB that nobody has set aside.
func pool(t *testing.T, size uint64) *Memory {
	t.Helper()
	_, m := memfd(t, unix.MFD_HUGETLB|unix.MFD_HUGE_2MB, size)
	return m
}

func write(t *testing.T, path, value string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// TestPool populates memory from the host's pool of 2 MiB pages, up to its last page
// and beyond.
func TestPool(t *testing.T) {
	const file = "/proc/sys/vm/nr_hugepages"
	write(t, file, "40")
	t.Cleanup(func() { write(t, file, "0") })
	m := pool(t, 40*hugeSize)
	if m.PageSize() != hugeSize {
		t.Errorf("PageSize() = %d", m.PageSize())
	}
	if err := m.Populate(); err != nil {
		t.Error(err)
	}
	if err := m.WriteAt(39*hugeSize, []byte("the last page")); err != nil {
		t.Error(err)
	}
	if err := pool(t, 100*hugeSize).Populate(); !errors.Is(err, ErrExhausted) {
		t.Errorf("Populate() from an empty pool = %v, want ErrExhausted", err)
	}
}

// TestTransparent has memory of huge pages without a pool, where the kernel is set as
// init sets it.
func TestTransparent(t *testing.T) {
	write(t, "/sys/kernel/mm/transparent_hugepage/shmem_enabled", "advise")
	m := newMemory(t, 64<<20)
	if err := errors.Join(m.AdviseHuge(), m.Populate()); err != nil {
		t.Fatal(err)
	}
	if n := smaps(t, "ShmemPmdMapped:"); n != 64<<10 {
		t.Errorf("%d KiB are mapped as huge pages, want %d", n, 64<<10)
	}
}

// smaps is the sum of a field of all mappings, in KiB.
func smaps(t *testing.T, field string) (sum int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		if f := bytes.Fields(line); len(f) == 3 && string(f[0]) == field {
			n, err := strconv.Atoi(string(f[1]))
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
	}
	return sum
}
