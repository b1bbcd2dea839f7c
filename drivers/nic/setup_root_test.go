//go:build roottest

package nic

import (
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// port makes a network namespace with an interface "eth0". The thread ends with
// the test.
func port(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("unshare: %v: needs root and CONFIG_NET_NS", err)
	}
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "peer"}); err != nil {
		t.Fatalf("veth: %v: needs CONFIG_VETH", err)
	}
	for _, name := range []string{"eth0", "peer"} { // both: else there is no carrier
		if err := Up(name); err != nil {
			t.Fatal(err)
		}
	}
}

func gateways(t *testing.T) []string {
	t.Helper()
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, r := range routes {
		if r.Gw != nil {
			list = append(list, r.Gw.String())
		}
	}
	return list
}

func TestApply(t *testing.T) {
	port(t)
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	for _, s := range []Setup{
		{Address: p("192.0.2.10/24"), Gateway: a("192.0.2.1"), Lifetime: time.Hour, MTU: 1400},
		{Address: p("192.0.2.10/24"), Gateway: a("192.0.2.1"), Lifetime: time.Hour}, // renewed
		{Address: p("192.0.2.10/24"), Lifetime: time.Hour},                          // the router is gone
		{Address: p("192.0.2.11/24"), Gateway: a("192.0.2.2")},                      // another address
		{Address: p("198.51.100.7/32"), Gateway: a("10.0.0.1")},                     // a gateway elsewhere
	} {
		if err := Apply("eth0", s); err != nil {
			t.Fatal(err)
		}
		got, err := Addresses("eth0")
		if diff := cmp.Diff([]netip.Prefix{s.Address}, got, cmpopts.EquateComparable(netip.Prefix{})); err != nil || diff != "" {
			t.Errorf("addresses after %v: %v (-want +got):\n%s", s, err, diff)
		}
		var want []string
		if s.Gateway.IsValid() {
			want = []string{s.Gateway.String()}
		}
		if diff := cmp.Diff(want, gateways(t)); diff != "" {
			t.Errorf("gateways after %v (-want +got):\n%s", s, diff)
		}
	}
	if l, err := netlink.LinkByName("eth0"); err != nil || l.Attrs().MTU != 1400 {
		t.Errorf("MTU = %v, %v, want 1400", l, err)
	}
	if err := Clear("eth0"); err != nil {
		t.Fatal(err)
	}
	if got, err := Addresses("eth0"); err != nil || len(got) != 0 || len(gateways(t)) != 0 {
		t.Errorf("after Clear: %v, %v, %v", got, gateways(t), err)
	}
	if err := Down("eth0"); err != nil {
		t.Fatal(err)
	}
}

func TestApplyIPv6(t *testing.T) {
	port(t)
	s := Setup{Address: netip.MustParsePrefix("2001:db8::10/64"), Gateway: netip.MustParseAddr("fe80::1")}
	if err := Apply("eth0", s); err != nil {
		t.Fatal(err)
	}
	got, err := Addresses("eth0")
	if diff := cmp.Diff([]netip.Prefix{s.Address}, got, cmpopts.EquateComparable(netip.Prefix{})); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestApplyToNothing(t *testing.T) {
	port(t)
	for _, err := range []error{Apply("none", Setup{}), Clear("none"), Up("none"), Down("none")} {
		if err == nil {
			t.Error("no error for an interface that is not there")
		}
	}
}
