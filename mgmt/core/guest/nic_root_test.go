//go:build roottest

package guest

import (
	"net"
	"testing"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// A NIC has the limits and the link that it is started with, and those that it is given
// later, also from a core that is started again.
func TestNICLimitsAndLink(t *testing.T) {
	b := newBench(t)
	id := b.create(t, 1)
	g := b.guest("vm")
	limits := &hostcall.NICLimits{Transmit: &hostcall.NetworkLimits{BytesPerSecond: 1 << 20}, Receive: &hostcall.NetworkLimits{PacketsPerSecond: 100}}
	g.NICs[0].Limits, g.NICs[0].LinkDown = limits, true
	if err := b.Start(t.Context(), id, g); err != nil {
		t.Fatalf("Start: %v", err)
	}
	tap := b.lookup(id).rec.tap(0)
	connected := func(want bool) {
		t.Helper()
		i, err := net.InterfaceByName(tap)
		if err != nil {
			t.Fatal(err)
		}
		if up := i.Flags&net.FlagUp != 0; up != want {
			t.Errorf("tap is up: %v, want %v", up, want)
		}
	}
	connected(false)
	for range 2 {
		if err := b.SetNICLink(t.Context(), id, 0, false); err != nil {
			t.Fatalf("SetNICLink: %v", err)
		}
		connected(true)
	}
	b.letGo(t, id)
	connected(true)
	for _, l := range []*hostcall.NICLimits{nil, limits, limits, nil, nil} {
		if err := b.SetNICLimits(id, 0, l); err != nil {
			t.Fatalf("SetNICLimits: %v", err)
		}
	}
	c, err := b.Counters(t.Context(), id)
	if _, ok := c.Devices["nic0.rx_throttled"]; !ok || err != nil {
		t.Errorf("counters = %v, %v", c.Devices, err)
	}
	for _, nic := range []int{-1, 1} {
		if err := b.SetNICLimits(id, nic, limits); code(err) != hostcall.InvalidArgument {
			t.Errorf("SetNICLimits of NIC %d: %v", nic, err)
		}
		if err := b.SetNICLink(t.Context(), id, nic, true); code(err) != hostcall.InvalidArgument {
			t.Errorf("SetNICLink of NIC %d: %v", nic, err)
		}
	}
	if err := b.SetNICLink(t.Context(), id, 0, true); err != nil {
		t.Fatalf("SetNICLink: %v", err)
	}
	connected(false)
	if err := b.Kill(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := b.SetNICLimits(id, 0, limits); code(err) != hostcall.FailedPrecondition {
		t.Errorf("SetNICLimits of a stopped guest: %v", err)
	}
}
