//go:build roottest

package firewall

import (
	"net/netip"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// ownNamespace puts the test into a network namespace of its own. The thread
// is not given back: it ends with the test.
func ownNamespace(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("unshare: %v: needs root and CONFIG_NET_NS", err)
	}
}

// rules returns how many rules each chain of the table has.
func rules(t *testing.T) map[string]int {
	t.Helper()
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	chains, err := c.ListChains()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]int)
	for _, chain := range chains {
		r, err := c.GetRules(chain.Table, chain)
		if err != nil {
			t.Fatal(err)
		}
		got[chain.Table.Name+" "+chain.Name] = len(r)
	}
	return got
}

func TestApply(t *testing.T) {
	ownNamespace(t)
	networks := []Network{
		{Bridge: "ashlar0", Subnet: netip.MustParsePrefix("10.80.0.0/24")},
		{Bridge: "ashlar1", Subnet: netip.MustParsePrefix("10.81.0.0/24")},
	}
	tests := []struct {
		name   string
		uplink string
		nets   []Network
		want   map[string]int
	}{
		{"two networks", "eth0", networks, map[string]int{"ashlar input": 8, "ashlar forward": 6, "ashlar postrouting": 2}},
		{"again", "eth0", networks, map[string]int{"ashlar input": 8, "ashlar forward": 6, "ashlar postrouting": 2}},
		{"one fewer", "eth0", networks[:1], map[string]int{"ashlar input": 4, "ashlar forward": 3, "ashlar postrouting": 1}},
		{"no uplink", "", networks, map[string]int{"ashlar input": 8, "ashlar forward": 2}},
		{"none", "eth0", nil, map[string]int{"ashlar input": 0, "ashlar forward": 0, "ashlar postrouting": 0}},
	}
	for _, tt := range tests {
		if err := Apply(tt.uplink, tt.nets); err != nil {
			t.Fatalf("%s: Apply: %v", tt.name, err)
		}
		if d := cmp.Diff(tt.want, rules(t)); d != "" {
			t.Errorf("%s: rules (-want +got):\n%s", tt.name, d)
		}
	}
	if err := Remove(); err != nil {
		t.Fatalf("Remove: %v", err)
	}
	if got := rules(t); len(got) != 0 {
		t.Errorf("after Remove: %v, want none", got)
	}
	if err := Remove(); err != nil {
		t.Errorf("second Remove: %v", err)
	}
}
