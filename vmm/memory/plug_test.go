package memory

import (
	"bytes"
	"errors"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	plugBlock = 2 << 20
	plugSize  = 8 * plugBlock
)

func newPluggable(t testing.TB, size uint64, c PluggableConfig) (*Memory, *os.File) {
	t.Helper()
	f, err := Create("test", size+c.Size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	m, err := MapPluggable(f, size, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m, f
}

func allocated(t testing.TB, f *os.File) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return uint64(st.Blocks) * 512
}

func TestPluggableLayout(t *testing.T) {
	for _, tt := range []struct{ size, gpa uint64 }{
		{32 << 20, 5 << 30}, {LowTop, 5 << 30}, {LowTop + 2<<20, 5 << 30}, {LowTop + 1<<30, 6 << 30}, {LowTop + 1<<30 + 2<<20, 6 << 30},
	} {
		m, _ := newPluggable(t, tt.size, PluggableConfig{Size: plugSize, Block: plugBlock})
		p := m.Pluggable()
		if p.GPA != tt.gpa || p.Size != plugSize || p.Block != plugBlock || p.Plugged != 0 || m.End() != p.GPA+p.Size || m.Size() != tt.size {
			t.Errorf("%d MiB: %+v, end %#x, want %#x", tt.size>>20, p, m.End(), tt.gpa)
		}
		last := m.HostRegions()[len(m.Regions())]
		if last.GPA != p.GPA || last.Size != p.Size || last.Offset != tt.size || last.HostAddr%hugeSize != 0 {
			t.Errorf("%d MiB: region for the kernel = %+v", tt.size>>20, last)
		}
	}
	if m := newMemory(t, PageSize); m.Pluggable() != (Pluggable{}) || m.End() != PageSize || len(m.HostRegions()) != 1 {
		t.Errorf("fixed memory: %+v, end %#x", m.Pluggable(), m.End())
	}
}

func TestPluggableRefused(t *testing.T) {
	f, err := Create("test", 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, c := range []PluggableConfig{
		{}, {Size: plugSize}, {Size: plugSize, Block: 1 << 20}, {Size: plugSize, Block: 3 << 20}, {Size: plugSize + 1<<20, Block: plugBlock},
		{Size: (MaxBlocks + 1) * plugBlock, Block: plugBlock}, {Size: MaxSize, Block: 1 << 40}, {Size: 1 << 63, Block: 1 << 60},
		{Size: plugSize, Block: plugBlock}, // not what the file has
	} {
		if _, err := MapPluggable(f, 32<<20, c); !errors.Is(err, ErrSize) {
			t.Errorf("MapPluggable(%+v) = %v, want ErrSize", c, err)
		}
	}
}

// What is not plugged in is out of reach for this process and for the kernel, and has no
// pages; what is, is memory as any.
func TestPlug(t *testing.T) {
	m, f := newPluggable(t, 32<<20, PluggableConfig{Size: plugSize, Block: plugBlock})
	if err := m.AdviseHuge(); err != nil {
		t.Fatal(err)
	}
	gpa := m.Pluggable().GPA
	view := m.HostRegions()[1].HostAddr
	// touches has the kernel write a byte to block i, as vhost and io_uring do.
	touches := func(i uint64) error { return readInto(view + uintptr(i*plugBlock)) }
	reachable := func(i uint64) bool {
		t.Helper()
		at, b := gpa+i*plugBlock, []byte{1}
		ok := m.Contains(at, plugBlock)
		_, spanErr := m.HostSpan(at, 8)
		_, l16 := m.Load16(at)
		_, l32 := m.Load32(at)
		_, l64 := m.Load64(at)
		errs := []error{
			spanErr, l16, l32, l64, m.ReadAt(at, b), m.WriteAt(at, b), m.Zero(at, 8), m.Store16(at, 1), m.Store32(at, 1), m.Store64(at, 1),
			m.Remove(at, PageSize),
		}
		for n, err := range errs {
			if ok != (err == nil) || err != nil && !errors.Is(err, ErrOutOfRange) {
				t.Errorf("block %d, access %d = %v, want %v", i, n, err, ok)
			}
		}
		if err := touches(i); ok != (err == nil) || err != nil && !errors.Is(err, unix.EFAULT) {
			t.Errorf("block %d for the kernel: %v, want %v", i, err, ok)
		}
		return ok
	}
	want := func(plugged ...bool) {
		t.Helper()
		n := uint64(0)
		for i, p := range plugged {
			if reachable(uint64(i)) != p {
				t.Errorf("block %d: want plugged in = %v", i, p)
			}
			if p {
				n += plugBlock
			}
		}
		if got := m.Pluggable().Plugged; got != n {
			t.Errorf("plugged in are %d bytes, want %d", got, n)
		}
		if got := allocated(t, f); got > n {
			t.Errorf("%d bytes are allocated, %d are plugged in", got, n)
		}
	}
	want(false, false, false, false)
	if err := m.Plug(gpa+plugBlock, 2*plugBlock); err != nil {
		t.Fatal(err)
	}
	want(false, true, true, false)
	// An access may go from one block to the next, and not into the one after.
	if err := m.WriteAt(gpa+2*plugBlock-4, make([]byte, 8)); err != nil {
		t.Error(err)
	}
	for _, at := range []uint64{gpa + plugBlock - 4, gpa + 3*plugBlock - 4, gpa + plugSize - 4, gpa - 4} {
		if err := m.WriteAt(at, make([]byte, 8)); !errors.Is(err, ErrOutOfRange) {
			t.Errorf("WriteAt(%#x) = %v", at, err)
		}
	}
	if err := m.WriteAt(gpa+plugBlock, bytes.Repeat([]byte{5}, 2*plugBlock)); err != nil {
		t.Fatal(err)
	}
	if err := m.Plug(gpa+2*plugBlock, 2*plugBlock); !errors.Is(err, ErrPlugged) {
		t.Errorf("Plug twice = %v", err)
	}
	if err := m.Unplug(gpa, 2*plugBlock); !errors.Is(err, ErrUnplugged) {
		t.Errorf("Unplug of a block that is not there = %v", err)
	}
	if err := m.Unplug(gpa+plugBlock, plugBlock); err != nil {
		t.Fatal(err)
	}
	want(false, false, true, false)
	if err := m.Plug(gpa+plugBlock, plugBlock); err != nil {
		t.Fatal(err)
	}
	if v, err := m.Load64(gpa + plugBlock + 64); err != nil || v != 0 {
		t.Errorf("a block plugged in again reads %#x, %v", v, err)
	}
	for _, r := range [][2]uint64{{gpa, 0}, {gpa, PageSize}, {gpa + PageSize, plugBlock}} {
		if err := m.Plug(r[0], r[1]); !errors.Is(err, ErrUnaligned) {
			t.Errorf("Plug(%#x) = %v", r, err)
		}
	}
	for _, r := range [][2]uint64{{0, plugBlock}, {gpa - plugBlock, plugBlock}, {gpa, plugSize + plugBlock}, {1 << 63, 1 << 63}} {
		if err := errors.Join(m.Plug(r[0], r[1]), m.Unplug(r[0], r[1])); !errors.Is(err, ErrOutOfRange) {
			t.Errorf("Plug(%#x) = %v", r, err)
		}
	}
}

func TestPlugPopulated(t *testing.T) {
	m, f := newPluggable(t, 32<<20, PluggableConfig{Size: plugSize, Block: plugBlock, Populate: true})
	if err := m.Plug(m.Pluggable().GPA, 3*plugBlock); err != nil {
		t.Fatal(err)
	}
	if got := allocated(t, f); got != 3*plugBlock {
		t.Errorf("%d bytes are allocated", got)
	}
}

// Devices that write while a block comes and goes leave no page behind.
func TestPlugRace(t *testing.T) {
	m, f := newPluggable(t, 32<<20, PluggableConfig{Size: plugSize, Block: plugBlock})
	gpa := m.Pluggable().GPA
	done := make(chan struct{})
	var wg sync.WaitGroup
	for i := range uint64(2) {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				err := errors.Join(m.WriteAt(gpa+i*plugBlock, []byte{1, 2, 3}), m.Store64(gpa+plugBlock-64, 1))
				if err != nil && !errors.Is(err, ErrOutOfRange) {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 200 {
		if err := errors.Join(m.Plug(gpa, 2*plugBlock), m.Unplug(gpa, 2*plugBlock)); err != nil {
			t.Error(err)
			break
		}
		if got := allocated(t, f); got != 0 {
			t.Errorf("%d bytes are left", got)
			break
		}
	}
	close(done)
	wg.Wait()
}
