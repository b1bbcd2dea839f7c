package memory

import (
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"
)

func TestSpan(t *testing.T) {
	m := newMemory(t, LowTop+4*hugeSize)
	for _, tt := range []struct {
		off, n uint64
		want   string
	}{
		{0, LowTop, "0+c0000000"},
		{LowTop - hugeSize, 2 * hugeSize, "bfe00000+200000 100000000+200000"},
		{LowTop, 4 * hugeSize, "100000000+800000"},
		{LowTop + hugeSize, hugeSize, "100200000+200000"},
		{0, LowTop + 4*hugeSize, "0+c0000000 100000000+800000"},
		{LowTop, 5 * hugeSize, "none"},
		{hugeSize, math.MaxUint64, "none"},
		{math.MaxUint64, 1, "none"},
	} {
		regions, err := m.Span(tt.off, tt.n)
		var words []string
		for _, r := range regions {
			words = append(words, fmt.Sprintf("%x+%x", r.GPA, r.Size))
			if r.HostAddr != m.Regions()[0].HostAddr+uintptr(r.Offset) {
				t.Errorf("Span(%#x, %#x): host address %#x of byte %#x", tt.off, tt.n, r.HostAddr, r.Offset)
			}
		}
		if errors.Is(err, ErrOutOfRange) {
			words = []string{"none"}
		}
		if got := strings.Join(words, " "); got != tt.want {
			t.Errorf("Span(%#x, %#x) = %s, %v, want %s", tt.off, tt.n, got, err, tt.want)
		}
	}
}

// policies are the lines of the mapping of m in the kernel's numa_maps.
func policies(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/numa_maps")
	if err != nil {
		t.Fatalf("%v: these tests need a kernel with CONFIG_NUMA", err)
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, "memfd:test") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}

// The kernel binds a part of the memory to node 0, which every machine has, and refuses
// one that it has not.
func TestBind(t *testing.T) {
	m := newMemory(t, 8*hugeSize)
	if err := m.Bind(0, 2*hugeSize, []int{0}); err != nil {
		t.Fatal(err)
	}
	if err := m.Populate(); err != nil {
		t.Fatal(err)
	}
	got := policies(t)
	if want := "bind:0 file=/memfd:test"; strings.Count(got, want) != 1 || !strings.Contains(got, "default file=/memfd:test") ||
		!strings.Contains(got, "N0=") {
		t.Errorf("numa_maps, want one part with %q, and one without:\n%s", want, got)
	}
	for _, nodes := range [][]int{{maxNode}, {maxNode + 1}, {-1}, {}} {
		if err := m.Bind(0, hugeSize, nodes); !errors.Is(err, ErrNode) {
			t.Errorf("Bind to %v = %v, want ErrNode", nodes, err)
		}
	}
	for _, r := range [][2]uint64{{0, 9 * hugeSize}, {8 * hugeSize, hugeSize}, {1, PageSize}, {0, 0}, {PageSize, math.MaxUint64 - PageSize + 1}} {
		if err := m.Bind(r[0], r[1], []int{0}); !errors.Is(err, ErrOutOfRange) {
			t.Errorf("Bind(%#x, %#x) = %v, want ErrOutOfRange", r[0], r[1], err)
		}
	}
}

// Threads take pieces of all bound parts by turns.
func TestPieces(t *testing.T) {
	m := newMemory(t, 5*populateUnit+hugeSize)
	m.bounds = []uint64{0, 2 * populateUnit}
	var got []uint64
	sum := uint64(0)
	for _, p := range m.pieces() {
		got = append(got, p.Offset/populateUnit)
		sum += p.Size
	}
	if want := []uint64{0, 2, 1, 3, 4, 5}; !reflect.DeepEqual(got, want) || sum != m.Size() {
		t.Errorf("pieces of %d bytes at %v, want %d at %v", sum, got, m.Size(), want)
	}
}

// What can be plugged in prefers nodes, and what is there already stays bound or not.
func TestPreferPluggable(t *testing.T) {
	f, err := Create("test", 8*hugeSize)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := MapPluggable(f, 4*hugeSize, PluggableConfig{Size: 4 * hugeSize, Block: hugeSize, Populate: true})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.PreferPluggable([]int{0}); err != nil {
		t.Fatal(err)
	}
	if err := m.Plug(m.Pluggable().GPA, hugeSize); err != nil {
		t.Fatal(err)
	}
	got := policies(t)
	if want := "prefer (many):0 file=/memfd:test"; !strings.Contains(got, want) || !strings.Contains(got, "default file=/memfd:test") {
		t.Errorf("numa_maps, want one part with %q, and one without:\n%s", want, got)
	}
	if err := m.PreferPluggable([]int{maxNode}); !errors.Is(err, ErrNode) {
		t.Errorf("PreferPluggable of a node that the host has not = %v, want ErrNode", err)
	}
	if err := newMemory(t, hugeSize).PreferPluggable([]int{0}); !errors.Is(err, ErrOutOfRange) {
		t.Errorf("PreferPluggable without such memory = %v, want ErrOutOfRange", err)
	}
}
