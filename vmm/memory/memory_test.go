package memory

import (
	"bytes"
	"errors"
	"io"
	"math"
	"os"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func newMemory(t testing.TB, size uint64) *Memory {
	t.Helper()
	m, f := newMemoryAndFile(t, size)
	f.Close()
	return m
}

// newMemoryAndFile is newMemory with the file, for the time of the test.
func newMemoryAndFile(t testing.TB, size uint64) (*Memory, *os.File) {
	t.Helper()
	f, err := Create("test", size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return mapped(t, f, size), f
}

// memfd is a file of so many bytes that is not sealed, and mapped.
func memfd(t testing.TB, flags int, size uint64) (*os.File, *Memory) {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|flags)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "test")
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(int64(size)); err != nil {
		t.Fatal(err)
	}
	return f, mapped(t, f, size)
}

func mapped(t testing.TB, f *os.File, size uint64) *Memory {
	t.Helper()
	m, err := Map(f, size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func TestRegions(t *testing.T) {
	for _, tt := range []struct {
		name string
		size uint64
		want []Region
	}{
		{"one page", PageSize, []Region{{Size: PageSize}}},
		{"all low", LowTop, []Region{{Size: LowTop}}},
		{"one page high", LowTop + PageSize, []Region{{Size: LowTop}, {GPA: HighBase, Size: PageSize, Offset: LowTop}}},
		{"8 GiB", 8 << 30, []Region{{Size: LowTop}, {GPA: HighBase, Size: 5 << 30, Offset: LowTop}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMemory(t, tt.size)
			got := m.Regions()
			if len(got) != len(tt.want) {
				t.Fatalf("Regions() = %v, want %d", got, len(tt.want))
			}
			for i, r := range got {
				if r.HostAddr != got[0].HostAddr+uintptr(r.Offset) {
					t.Errorf("region %d: HostAddr = %#x, not at its offset", i, r.HostAddr)
				}
				r.HostAddr = 0
				if r != tt.want[i] {
					t.Errorf("region %d = %+v, want %+v", i, r, tt.want[i])
				}
			}
		})
	}
}

func TestBounds(t *testing.T) {
	m := newMemory(t, LowTop+2*PageSize)
	const top = HighBase + 2*PageSize
	for _, tt := range []struct {
		gpa, n uint64
		want   bool
	}{
		{0, 0, true}, {0, 1, true}, {0, LowTop, true}, {0, LowTop + 1, false},
		{LowTop - 1, 1, true}, {LowTop - 1, 2, false}, {LowTop, 0, false}, {LowTop, 1, false},
		{HighBase - 1, 1, false}, {HighBase - 1, 2, false}, {HighBase, 1, true},
		{HighBase, 2 * PageSize, true}, {HighBase, 2*PageSize + 1, false},
		{top - 1, 1, true}, {top - 1, 2, false}, {top, 1, false},
		{0, math.MaxUint64, false}, {1, math.MaxUint64, false}, {HighBase, math.MaxUint64, false},
		{top - 1, math.MaxUint64, false}, {math.MaxUint64, 1, false}, {math.MaxUint64, 2, false},
		{math.MaxUint64 - 1, math.MaxUint64, false},
	} {
		if got := m.Contains(tt.gpa, tt.n); got != tt.want {
			t.Errorf("Contains(%#x, %#x) = %v, want %v", tt.gpa, tt.n, got, tt.want)
		}
		_, err := m.HostSpan(tt.gpa, tt.n)
		if (err == nil) != tt.want || (err != nil && !errors.Is(err, ErrOutOfRange)) {
			t.Errorf("HostSpan(%#x, %#x) = %v, want ok %v", tt.gpa, tt.n, err, tt.want)
		}
		if !tt.want {
			if err := m.Zero(tt.gpa, tt.n); !errors.Is(err, ErrOutOfRange) {
				t.Errorf("Zero(%#x, %#x) = %v, want ErrOutOfRange", tt.gpa, tt.n, err)
			}
		}
	}
}

func TestCopies(t *testing.T) {
	m := newMemory(t, LowTop+PageSize)
	for _, gpa := range []uint64{0, 1, 4095, LowTop - 16, HighBase, HighBase + PageSize - 16} {
		want := []byte("sixteen bytes ok")
		if err := m.WriteAt(gpa, want); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 16)
		if err := m.ReadAt(gpa, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("ReadAt(%#x) = %q, %v, want %q", gpa, got, err, want)
		}
		if err := m.Zero(gpa+1, 14); err != nil {
			t.Fatal(err)
		}
		if err := m.ReadAt(gpa, got); err != nil || !bytes.Equal(got, []byte("s\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00k")) {
			t.Errorf("ReadAt(%#x) after Zero = %q, %v", gpa, got, err)
		}
	}
	b := make([]byte, 17)
	if err := m.WriteAt(LowTop-16, b); !errors.Is(err, ErrOutOfRange) {
		t.Errorf("WriteAt over the end = %v, want ErrOutOfRange", err)
	}
	if err := m.ReadAt(LowTop-16, b); !errors.Is(err, ErrOutOfRange) {
		t.Errorf("ReadAt over the end = %v, want ErrOutOfRange", err)
	}
}

func TestWords(t *testing.T) {
	m := newMemory(t, PageSize)
	if err := m.WriteAt(8, []byte{1, 2, 3, 4, 5, 6, 7, 8}); err != nil {
		t.Fatal(err)
	}
	if v, err := m.Load16(10); err != nil || v != 0x0403 {
		t.Errorf("Load16 = %#x, %v", v, err)
	}
	if v, err := m.Load16(8); err != nil || v != 0x0201 {
		t.Errorf("Load16 = %#x, %v", v, err)
	}
	if v, err := m.Load32(12); err != nil || v != 0x08070605 {
		t.Errorf("Load32 = %#x, %v", v, err)
	}
	if v, err := m.Load64(8); err != nil || v != 0x0807060504030201 {
		t.Errorf("Load64 = %#x, %v", v, err)
	}
	if err := errors.Join(m.Store16(10, 0xbbaa), m.Store32(16, 0xddccbbaa), m.Store64(24, 0x1122334455667788)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 24)
	want := []byte{1, 2, 0xaa, 0xbb, 5, 6, 7, 8, 0xaa, 0xbb, 0xcc, 0xdd, 0, 0, 0, 0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11}
	if err := m.ReadAt(8, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("memory = %x, want %x", got, want)
	}
	if v, err := m.Load16(PageSize - 2); err != nil || v != 0 {
		t.Errorf("Load16 of the last word = %v, %v", v, err)
	}
	for _, gpa := range []uint64{1, 3, PageSize - 1} {
		if _, err := m.Load16(gpa); !errors.Is(err, ErrUnaligned) {
			t.Errorf("Load16(%d) = %v, want ErrUnaligned", gpa, err)
		}
		if err := m.Store16(gpa, 1); !errors.Is(err, ErrUnaligned) {
			t.Errorf("Store16(%d) = %v, want ErrUnaligned", gpa, err)
		}
	}
	for _, gpa := range []uint64{PageSize, math.MaxUint64 - 7} {
		if _, err := m.Load64(gpa); !errors.Is(err, ErrOutOfRange) {
			t.Errorf("Load64(%d) = %v, want ErrOutOfRange", gpa, err)
		}
		if err := m.Store32(gpa, 1); !errors.Is(err, ErrOutOfRange) {
			t.Errorf("Store32(%d) = %v, want ErrOutOfRange", gpa, err)
		}
	}
}

// Stores of neighbouring 16-bit words by two goroutines must not undo each other.
func TestStore16Neighbours(t *testing.T) {
	m := newMemory(t, PageSize)
	var wg sync.WaitGroup
	for i := range uint64(2) {
		wg.Go(func() {
			for v := range uint16(20000) {
				if err := m.Store16(i*2, v); err != nil {
					t.Error(err)
					return
				}
				if got, err := m.Load16(i * 2); err != nil || got != v {
					t.Errorf("Load16 = %d, %v, want %d", got, err, v)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestReadFile(t *testing.T) {
	m := newMemory(t, PageSize)
	f, err := os.Create(t.TempDir() + "/f")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("0123456789"); err != nil {
		t.Fatal(err)
	}
	if err := m.ReadFile(f, 2, 100, 8); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 10)
	if err := m.ReadAt(99, got); err != nil || string(got) != "\x0023456789\x00" {
		t.Errorf("memory = %q, %v", got, err)
	}
	if err := m.ReadFile(f, 3, 0, 8); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("ReadFile over the end of the file = %v, want ErrUnexpectedEOF", err)
	}
	if err := m.ReadFile(f, 0, PageSize-4, 8); !errors.Is(err, ErrOutOfRange) {
		t.Errorf("ReadFile over the end of memory = %v, want ErrOutOfRange", err)
	}
}

func TestMapRefuses(t *testing.T) {
	f, err := Create("test", 2*PageSize)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []uint64{0, 1, PageSize, 3 * PageSize, 2*PageSize + 1, MaxSize + PageSize, math.MaxUint64} {
		if m, err := Map(f, size); !errors.Is(err, ErrSize) || m != nil {
			t.Errorf("Map(%d) = %v, %v, want ErrSize", size, m, err)
		}
	}
	if err := f.Truncate(PageSize); err == nil {
		t.Error("Truncate of a sealed memory file succeeded")
	}
	if _, err := Create("test", 5); !errors.Is(err, ErrSize) {
		t.Errorf("Create(5) = %v, want ErrSize", err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if _, err := Map(null, PageSize); err == nil {
		t.Error("Map(/dev/null) succeeded")
	}
}

// The mapping is aligned as huge pages need it.
func TestAligned(t *testing.T) {
	for _, size := range []uint64{PageSize, hugeSize, LowTop + hugeSize} {
		if base := newMemory(t, size).Regions()[0].HostAddr; base%hugeSize != 0 {
			t.Errorf("%d bytes lie at %#x, want a multiple of 2 MiB", size, base)
		}
	}
}

func TestPopulate(t *testing.T) {
	for _, size := range []uint64{PageSize, 3*populateUnit - PageSize} {
		f, m := memfd(t, 0, size)
		if m.PageSize() != PageSize {
			t.Errorf("PageSize() = %d", m.PageSize())
		}
		if err := errors.Join(m.AdviseHuge(), m.Populate()); err != nil {
			t.Fatal(err)
		}
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if n := info.Sys().(*syscall.Stat_t).Blocks * 512; n != int64(size) {
			t.Errorf("%d bytes are allocated of %d", n, size)
		}
	}
}

// Where there is no page for a place, Populate says so, and nobody dies.
func TestPopulateExhausted(t *testing.T) {
	f, m := memfd(t, 0, 8*populateUnit)
	if err := f.Truncate(PageSize); err != nil {
		t.Fatal(err)
	}
	if err := m.Populate(); !errors.Is(err, ErrExhausted) {
		t.Errorf("Populate() = %v, want ErrExhausted", err)
	}
}

func TestClose(t *testing.T) {
	m := newMemory(t, PageSize)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Errorf("second Close = %v", err)
	}
	if err := m.WriteAt(0, []byte{1}); !errors.Is(err, ErrOutOfRange) {
		t.Errorf("WriteAt after Close = %v, want ErrOutOfRange", err)
	}
}

func TestNoAllocation(t *testing.T) {
	m := newMemory(t, PageSize)
	b := make([]byte, 64)
	if n := testing.AllocsPerRun(100, func() {
		m.ReadAt(0, b)
		m.WriteAt(64, b)
		m.Load16(2)
		m.Store16(2, 3)
	}); n != 0 {
		t.Errorf("allocations = %v, want 0", n)
	}
}

func BenchmarkPopulate(b *testing.B) {
	const size = 1 << 30
	b.SetBytes(size)
	for b.Loop() {
		f, err := Create("test", size)
		if err != nil {
			b.Fatal(err)
		}
		m := mapped(b, f, size)
		if err := errors.Join(m.Populate(), m.Close(), f.Close()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadAt(b *testing.B) {
	m := newMemory(b, 1<<20)
	for _, bb := range []struct {
		name string
		n    int
	}{{"16B", 16}, {"4KiB", 4096}} {
		b.Run(bb.name, func(b *testing.B) {
			buf := make([]byte, bb.n)
			b.SetBytes(int64(bb.n))
			for b.Loop() {
				m.ReadAt(8192, buf)
			}
		})
	}
}

func BenchmarkLoad16(b *testing.B) {
	m := newMemory(b, 1<<20)
	for b.Loop() {
		m.Load16(4098)
	}
}

func BenchmarkStore16(b *testing.B) {
	m := newMemory(b, 1<<20)
	for b.Loop() {
		m.Store16(4098, 1)
	}
}

// What is removed is the host's: it counts the blocks of the file behind it.
func TestRemove(t *testing.T) {
	const size = 4 << 20
	m, f := newMemoryAndFile(t, size)
	if err := m.WriteAt(0, bytes.Repeat([]byte{1}, size)); err != nil {
		t.Fatal(err)
	}
	blocks := func() int64 {
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks * 512
	}
	before := blocks()
	if err := m.Remove(1<<20-1, 1<<20+2); err != nil { // a byte of a page is no page
		t.Fatal(err)
	}
	if got := before - blocks(); got != 1<<20 {
		t.Errorf("the host got %d bytes, want %d", got, 1<<20)
	}
	if err := m.Remove(size-PageSize, 2*PageSize); !errors.Is(err, ErrOutOfRange) {
		t.Errorf("Remove past the end = %v", err)
	}
}

// Memory of the host's pools keeps its pages, and that is no error.
func TestRemoveFromHugePages(t *testing.T) {
	const size = 4 << 20
	fd, err := unix.MemfdCreate("huge", unix.MFD_CLOEXEC|unix.MFD_HUGETLB|unix.MFD_HUGE_2MB)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "huge")
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	m, err := Map(f, size)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for _, r := range [][2]uint64{{0, PageSize}, {PageSize, 2 << 20}, {2 << 20, 2 << 20}} {
		if err := m.Remove(r[0], r[1]); err != nil {
			t.Errorf("Remove(%#x, %#x) = %v", r[0], r[1], err)
		}
	}
}
