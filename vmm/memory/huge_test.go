//go:build roottest

package memory

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"testing"
	"time"

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

// TestGivenBackStaysGivenBack has the kernel look for small pages that it can make huge ones of,
// set as init sets it, in memory of which most has been given back.
func TestGivenBackStaysGivenBack(t *testing.T) {
	const dir = "/sys/kernel/mm/transparent_hugepage/"
	write(t, dir+"shmem_enabled", "advise")
	write(t, dir+"khugepaged/max_ptes_none", "0")
	write(t, dir+"khugepaged/scan_sleep_millisecs", "20")
	t.Cleanup(func() { write(t, dir+"khugepaged/scan_sleep_millisecs", "10000") })
	m, f := newMemoryAndFile(t, 8*hugeSize)
	if err := errors.Join(m.AdviseHuge(), m.Populate()); err != nil {
		t.Fatal(err)
	}
	for gpa := uint64(0); gpa < m.Size(); gpa += hugeSize {
		if err := m.Remove(gpa, hugeSize-PageSize); err != nil {
			t.Fatal(err)
		}
	}
	held := func() int64 {
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks * 512
	}
	if got := held(); got != 8*PageSize {
		t.Fatalf("%d bytes are held when all but 8 pages are given back", got)
	}
	for looks := fullScans(t) + 3; fullScans(t) < looks; time.Sleep(10 * time.Millisecond) {
	}
	if got := held(); got != 8*PageSize {
		t.Errorf("%d bytes are held after khugepaged has looked, want %d", got, 8*PageSize)
	}
}

// fullScans is how often khugepaged has looked at all there is.
func fullScans(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/khugepaged/full_scans")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(string(bytes.TrimSpace(b)))
	if err != nil {
		t.Fatal(err)
	}
	return n
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
