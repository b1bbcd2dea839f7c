//go:build roottest

package guest

import (
	"errors"
	"strings"
	"testing"

	"github.com/ashlar-hv/ashlar/drivers/hugepages"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// TestPoolIsSet has the kernel make a pool, and keeps it for a guest that was promised
// its pages.
func TestPoolIsSet(t *testing.T) {
	b := newBench(t)
	setPool(t, 0) // also in the end
	set := func(pages int64, atMost bool) (hostcall.HugepagePool, error) {
		t.Helper()
		all, err := b.SetPool(hostcall.HugepageSize{Page: 2 << 20, Pages: pages, AtMost: atMost})
		if err != nil {
			return hostcall.HugepagePool{}, err
		}
		return all[0], nil
	}
	refused := func(pages int64, code hostcall.Code, want string) {
		t.Helper()
		before := pool(t)
		_, err := set(pages, false)
		var e *hostcall.Error
		if !errors.As(err, &e) || e.Code != code || !strings.Contains(e.Message, want) || !strings.HasSuffix(e.Message, "Nothing has changed.") {
			t.Errorf("%d pages: %v, want %s, %q", pages, err, code, want)
		}
		if after := pool(t); after != before {
			t.Errorf("after a refusal the pool is %+v, it was %+v", after, before)
		}
	}
	if p, err := set(40, false); err != nil || p.Total != 40 || p.Free != 40 || p.Nodes[0].Total != 40 {
		t.Fatalf("set = %+v, %v", p, err)
	}
	id := b.create(t, 1)
	if err := b.Start(t.Context(), id, b.pooled("vm")); err != nil {
		t.Fatal(err)
	}
	refused(31, hostcall.FailedPrecondition, "Of the 40 pages of 2MiB 0 are in use and 32 more are promised")
	refused(1<<20, hostcall.ResourceExhausted, "has 40 pages of 2MiB and memory for ")
	if p, err := set(32, false); err != nil || p.Total != 32 || p.Reserved != 32 || p.Surplus != 0 {
		t.Errorf("set = %+v, %v", p, err)
	}
	if p, err := set(1, true); err != nil || p.Total != 32 {
		t.Errorf("set at most = %+v, %v", p, err)
	}
	if got := pool(t); got != (hugepages.Pool{Total: 32, Free: 32, Reserved: 32}) {
		t.Errorf("then the pool is %+v", got)
	}
	if err := b.Kill(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := b.Start(t.Context(), id, b.pooled("hogs")); err != nil {
		t.Fatal(err)
	}
	refused(31, hostcall.FailedPrecondition, "Guests use 32 pages of 2MiB of the host's NUMA node 0, it is to have 31")
	if err := b.Kill(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if p, err := set(0, false); err != nil || p.Total != 0 {
		t.Errorf("set = %+v, %v", p, err)
	}
	if _, err := b.SetPool(hostcall.HugepageSize{Page: 4 << 20, Pages: 1}); err == nil || !strings.Contains(err.Error(), "no pool of pages of 4MiB: it has [2MiB") {
		t.Errorf("a size that there is not: %v", err)
	}
}
