//go:build roottest

package guest

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// A memoryPeer is the memory of a guest that gives back half of what it is to give back,
// and the rest when it is asked again.
type memoryPeer struct{ plugged uint64 }

func (p *memoryPeer) answer(name string, r protocol.Request) *protocol.Memory {
	if name == "boasts" {
		return &protocol.Memory{PluggedBytes: 1 << 60}
	}
	if r.Method == protocol.MemoryMethod {
		return &protocol.Memory{PluggedBytes: p.plugged}
	}
	if r.PluggedBytes < p.plugged {
		p.plugged -= (p.plugged - r.PluggedBytes + 1) / 2
	} else {
		p.plugged = r.PluggedBytes
	}
	return nil
}

// plugs starts a guest that can have 256 MiB plugged in.
func (b *bench) plugs(t *testing.T, n int, name string) string {
	t.Helper()
	g := b.guest(name)
	g.Pluggable, g.NICs = &protocol.Pluggable{MaxBytes: 256 << 20}, nil
	guest := b.create(t, n)
	if err := b.Start(t.Context(), guest, g); err != nil {
		t.Fatal(err)
	}
	return guest
}

// most is memory.max of a guest.
func (b *bench) most(t *testing.T, guest string) int64 {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(b.c.Cgroup, guest, "memory.max"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A VMM may use what its guest is asked to have, or has not given back yet.
func TestHotplugMemory(t *testing.T) {
	b := newBench(t)
	guest := b.plugs(t, 1, "vm")
	least := b.most(t, guest)
	want := func(plugged int64) {
		t.Helper()
		if got := b.most(t, guest); got != least+plugged+plugged/overheadShare {
			t.Errorf("memory.max = %d, want %d for %d plugged in", got, least+plugged+plugged/overheadShare, plugged)
		}
	}
	memory := func() protocol.Memory {
		t.Helper()
		got, err := b.Memory(t.Context(), guest)
		if err != nil {
			t.Error(err)
		}
		return got
	}
	for _, n := range []int64{-2 << 20, 1 << 20, 258 << 20} {
		if err := b.SetMemory(t.Context(), guest, n); code(err) != hostcall.InvalidArgument {
			t.Errorf("SetMemory(%d) = %v", n, err)
		}
	}
	if err := b.SetMemory(t.Context(), guest, 256<<20); err != nil {
		t.Fatal(err)
	}
	want(256 << 20)
	if err := b.SetMemory(t.Context(), guest, 0); err != nil {
		t.Fatal(err)
	}
	want(256 << 20) // until core knows better
	if got := memory(); got.PluggedBytes != 128<<20 || got.RequestedBytes != 0 {
		t.Errorf("memory = %+v", got)
	}
	want(128 << 20)

	// Another core knows what is promised, and asks before it refuses.
	b.letGo(t, guest)
	want(128 << 20)
	if err := b.SetMemory(t.Context(), guest, 0); err != nil {
		t.Fatal(err)
	}
	used, err := b.lookup(guest).group.MemoryCurrent()
	if err != nil {
		t.Fatal(err)
	}
	b.c.Memory = func() (int64, error) { return 416 << 20, nil }
	b.Manager.c.Memory = b.c.Memory
	if err := b.SetMemory(t.Context(), guest, 256<<20); code(err) != hostcall.ResourceExhausted {
		t.Errorf("SetMemory over what is free = %v (the VMM uses %d)", err, used)
	}
	want(64 << 20)
	if err := b.SetMemory(t.Context(), guest, 0); err != nil {
		t.Fatal(err)
	}
	b.start(t, 2, "other")
	want(32 << 20)

	if err := b.SetMemory(t.Context(), id(2), 0); code(err) != hostcall.FailedPrecondition {
		t.Errorf("SetMemory of fixed memory = %v", err)
	}
	if got, err := b.Memory(t.Context(), id(2)); err != nil || got != (protocol.Memory{}) {
		t.Errorf("fixed memory = %+v, %v", got, err)
	}
}

// A VMM that has more than it may is not believed.
func TestHotplugMemoryBoasts(t *testing.T) {
	b := newBench(t)
	guest := b.plugs(t, 1, "boasts")
	if got, err := b.Memory(t.Context(), guest); code(err) != hostcall.Internal {
		t.Errorf("Memory = %+v, %v", got, err)
	}
}
