//go:build roottest

package guest

import (
	"testing"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// startVCPUs starts a guest with one processor of four.
func (b *bench) startVCPUs(t *testing.T, n int, name string) string {
	t.Helper()
	id, g := b.create(t, n), b.guest(name)
	g.VCPUs, g.MaxVCPUs = 1, 4
	if err := b.Start(t.Context(), id, g); err != nil {
		t.Fatal(err)
	}
	return id
}

// TestSetVCPUs has a guest whose processors come and go; a core that is started anew
// knows how many there are.
func TestSetVCPUs(t *testing.T) {
	b := newBench(t)
	id := b.startVCPUs(t, 1, "vm")
	if n := b.status(t, id).VCPUs; n != 1 {
		t.Errorf("started with %d", n)
	}
	if got, err := b.SetVCPUs(t.Context(), id, 4); err != nil || *got != (protocol.VCPUs{Present: 4, Target: 4}) {
		t.Errorf("SetVCPUs(4) = %+v, %v", got, err)
	}
	if got, err := b.SetVCPUs(t.Context(), id, 2); err != nil || *got != (protocol.VCPUs{Present: 3, Target: 2}) {
		t.Errorf("SetVCPUs(2) = %+v, %v", got, err)
	}
	b.letGo(t, id)
	if n := b.status(t, id).VCPUs; n != 3 {
		t.Errorf("adopted with %d", n)
	}
	if got, err := b.VCPUs(t.Context(), id); err != nil || *got != (protocol.VCPUs{Present: 3, Target: 2}) {
		t.Errorf("VCPUs = %+v, %v", got, err)
	}
	for _, n := range []int{-1, 0, 5} {
		if _, err := b.SetVCPUs(t.Context(), id, n); code(err) != hostcall.InvalidArgument {
			t.Errorf("SetVCPUs(%d): %v", n, err)
		}
	}
	if err := b.Kill(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := b.VCPUs(t.Context(), id); code(err) != hostcall.FailedPrecondition {
		t.Errorf("VCPUs of a stopped guest: %v", err)
	}
}

// TestVCPUsLie has a VMM that tells of more processors than there can be.
func TestVCPUsLie(t *testing.T) {
	b := newBench(t)
	id := b.startVCPUs(t, 1, "boastful")
	if _, err := b.SetVCPUs(t.Context(), id, 2); code(err) != hostcall.Internal {
		t.Errorf("SetVCPUs: %v", err)
	}
	if n := b.status(t, id).VCPUs; n != 1 {
		t.Errorf("%d processors are believed", n)
	}
}
