package machine

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/acpi"
	"github.com/ashlar-hv/ashlar/vmm/arch"
	"github.com/ashlar-hv/ashlar/vmm/internal/tinykernel"
	"github.com/ashlar-hv/ashlar/vmm/memory"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

const (
	testPluggable = 128 << 20
	pluggableAt   = 5 << 30
)

// newPluggableSpec is a guest with memory that can be plugged in, and its memory file.
func newPluggableSpec(t testing.TB, code []byte) (*spec, *os.File) {
	t.Helper()
	s := newSpec(t, code)
	f, err := memory.Create("guest", testMemory+testPluggable)
	s.Memory = s.add(f, err)
	s.Pluggable = &protocol.Pluggable{MaxBytes: testPluggable, Bytes: 4 << 20}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	own := os.NewFile(uintptr(fd), "guest")
	t.Cleanup(func() { own.Close() })
	return s, own
}

// touch writes to gpa, which the page tables that the guest starts with do not reach.
func touch(gpa uint64) tinykernel.Code {
	const directory = 2 << 20 // a page of memory that nobody else uses
	return tinykernel.Code{}.Store(directory+gpa>>21%512*8, gpa&^(2<<20-1)|0x83).
		Store(arch.PageTables+0x1000+gpa>>30*8, directory|3).Store(gpa, 1).PowerOff()
}

// A guest that touches memory which is not plugged in has got none of it.
func TestTouchUnplugged(t *testing.T) {
	for _, at := range []uint64{pluggableAt, pluggableAt + testPluggable - 4096} {
		s, f := newPluggableSpec(t, touch(at))
		g := s.loaded(t)
		var before, after unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &before); err != nil {
			t.Fatal(err)
		}
		start(t, g)
		// Where KVM emulates the instruction the guest goes on, and its write is lost.
		lost := protocol.Result{Reason: protocol.PoweredOff}
		if got := ended(t, g); got != lost && (got.Reason != protocol.Failed || !strings.Contains(got.Message, "not plugged in")) {
			t.Errorf("%#x: result = %+v", at, got)
		}
		if err := unix.Fstat(int(f.Fd()), &after); err != nil {
			t.Fatal(err)
		}
		// The pages of its code, of its tables.
		if n := (after.Blocks - before.Blocks) * 512; n > 16*4096 {
			t.Errorf("%#x: the guest got %d bytes", at, n)
		}
		if n, err := unix.Seek(int(f.Fd()), testMemory, unix.SEEK_DATA); !errors.Is(err, unix.ENXIO) {
			t.Errorf("%#x: there is memory at %#x of the file, %v", at, n, err)
		}
	}
}

// What is plugged in is memory as any other.
func TestTouchPlugged(t *testing.T) {
	const at = pluggableAt + 2<<20 + 8
	s, _ := newPluggableSpec(t, touch(at))
	g := s.loaded(t)
	if err := g.mem.Plug(pluggableAt+2<<20, 2<<20); err != nil {
		t.Fatal(err)
	}
	start(t, g)
	if got := ended(t, g); got.Reason != protocol.PoweredOff {
		t.Errorf("result = %+v", got)
	}
	if v, err := g.mem.Load64(at); err != nil || v != 1 {
		t.Errorf("the guest wrote %d, %v", v, err)
	}
	if got := g.MemoryState(); got.PluggedBytes != 2<<20 || got.RequestedBytes != 4<<20 {
		t.Errorf("memory = %+v", got)
	}
}

// Outside of all memory nothing answers, and nothing ends.
func TestTouchNothing(t *testing.T) {
	s, _ := newPluggableSpec(t, touch(pluggableAt+testPluggable))
	g := s.loaded(t)
	start(t, g)
	if got := ended(t, g); got.Reason != protocol.PoweredOff {
		t.Errorf("result = %+v", got)
	}
}

func TestSetMemory(t *testing.T) {
	s, _ := newPluggableSpec(t, tinykernel.Code{}.Spin())
	g := s.loaded(t)
	start(t, g)
	if err := g.SetMemory(testPluggable); err != nil || g.MemoryState().RequestedBytes != testPluggable {
		t.Errorf("SetMemory = %v, memory = %+v", err, g.MemoryState())
	}
	for _, n := range []uint64{1, 2<<20 + 4096, testPluggable + 2<<20} {
		if err := g.SetMemory(n); err == nil || err.Code != protocol.InvalidArgument || err.Field != "pluggedBytes" {
			t.Errorf("SetMemory(%d) = %v", n, err)
		}
	}
	if _, ok := g.Counters().Devices["memory.plugged_bytes"]; !ok {
		t.Error("the memory device does not count")
	}
	fixed := newSpec(t, tinykernel.Code{}.Spin()).loaded(t)
	if err := fixed.SetMemory(0); err == nil || err.Code != protocol.FailedPrecondition {
		t.Errorf("SetMemory of fixed memory = %v", err)
	}
}

func TestPluggableRefused(t *testing.T) {
	for _, tt := range []struct {
		name  string
		set   func(*spec)
		field string
	}{
		{"too little", func(s *spec) { s.Pluggable.MaxBytes = 2 << 20 }, "pluggable.maxBytes"},
		{"too much", func(s *spec) { s.Pluggable.MaxBytes = 1 << 40 }, "pluggable.maxBytes"},
		{"far too much", func(s *spec) { s.Pluggable.MaxBytes = 1<<64 - 128<<20 }, "pluggable.maxBytes"},
		{"of a pool", func(s *spec) { s.Backing = &protocol.Backing{Pages: protocol.Pages2MiB} }, "pluggable.maxBytes"},
		{"more than all", func(s *spec) { s.Pluggable.Bytes = testPluggable + 2<<20 }, "pluggable.bytes"},
		{"half a block", func(s *spec) { s.Pluggable.Bytes = 1 << 20 }, "pluggable.bytes"},
		{"not in the file", func(s *spec) { s.Pluggable.MaxBytes *= 2 }, "memory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, _ := newPluggableSpec(t, tinykernel.Code{}.Halt())
			tt.set(s)
			s.refused(t, protocol.InvalidArgument, tt.field)
		})
	}
}

// Memory that is plugged in lies behind that of all nodes, in the file and for the guest,
// and takes none of theirs.
func TestPluggableBehindNodes(t *testing.T) {
	const at = pluggableAt + 2<<20 + 8
	s, _ := newPluggableSpec(t, touch(at))
	s.VCPUs = 1
	s.NUMA = []protocol.NUMANode{{VCPUs: []int{0}, MemoryBytes: testMemory, HostNodes: []int{0}}}
	s.Backing = &protocol.Backing{Populate: true}
	g := s.loaded(t)
	nodes, err := g.nodes()
	if err != nil {
		t.Fatal(err)
	}
	if got := nodes[0].Memory; len(got) != 1 || got[0].Base != 0 || got[0].Size != testMemory {
		t.Errorf("the memory of the node is %+v, want %d bytes from 0 on", got, testMemory)
	}
	if got, want := nodes[0].Pluggable, (acpi.Window{Base: pluggableAt, Size: s.Pluggable.MaxBytes}); got != want {
		t.Errorf("what can be plugged in is %+v, want %+v", got, want)
	}
	if err := g.mem.Plug(pluggableAt+2<<20, 2<<20); err != nil {
		t.Fatal(err)
	}
	start(t, g)
	if got := ended(t, g); got.Reason != protocol.PoweredOff {
		t.Errorf("result = %+v", got)
	}
}
