package network

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/ashlar-hv/ashlar/initramfs/layout"
	"github.com/ashlar-hv/ashlar/mgmt/core/folder"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/mgmt/core/netd"
	"github.com/google/go-cmp/cmp"
)

func newSet(t testing.TB, subnets ...string) *Set {
	t.Helper()
	s := &Set{owners: make(map[netip.Addr]string), kept: make(map[string][]folder.Interface), active: make(map[string]folder.Interface)}
	var c []layout.Network
	for i, n := range subnets {
		c = append(c, layout.Network{Name: string(rune('a' + i)), Subnet: n})
	}
	networks, problems := parse(c, nil)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	s.networks = networks
	return s
}

func TestParse(t *testing.T) {
	networks, problems := parse([]layout.Network{
		{Name: "good", Subnet: "10.80.0.5/24"},
		{Name: "good", Subnet: "10.81.0.0/24"},
		{Name: "over", Subnet: "10.80.0.128/25"},
		{Name: "v6", Subnet: "fd00::/64"},
		{Name: "tiny", Subnet: "10.82.0.0/30"},
		{Name: "wide", Subnet: "10.0.0.0/7"},
		{Name: "none", Subnet: ""},
		{Name: "other", Subnet: "192.168.7.0/29"},
		{Name: "uplink", Subnet: "172.16.0.0/24"},
		{Name: "low", Subnet: "10.84.0.0/24", MTU: 1279},
		{Name: "high", Subnet: "10.84.0.0/24", MTU: 9001},
		{Name: "jumbo", Subnet: "10.84.0.0/24", MTU: 9000},
	}, []string{"fd00::5/64", "172.16.0.20/16", "not an address"})
	var got []string
	for _, n := range networks {
		got = append(got, n.Name+" "+n.Bridge+" "+n.Subnet.String()+" "+n.Gateway.String()+" "+strconv.Itoa(int(n.MTU)))
	}
	want := []string{"good ashlar0 10.80.0.0/24 10.80.0.1 1500", "other ashlar7 192.168.7.0/29 192.168.7.1 1500",
		"jumbo ashlar11 10.84.0.0/24 10.84.0.1 9000"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("networks (-want +got):\n%s", d)
	}
	if len(problems) != 9 {
		t.Errorf("problems: %q", problems)
	}
	for _, p := range problems {
		if !strings.HasSuffix(p, ".") {
			t.Errorf("problem %q is no sentence", p)
		}
	}
}

func addresses(nics []folder.Interface) []string {
	var out []string
	for _, n := range nics {
		out = append(out, n.Address)
	}
	return out
}

func TestAssign(t *testing.T) {
	s := newSet(t, "10.80.0.0/29", "10.81.0.0/24")
	assign := func(id string, nics ...hostcall.NIC) []string {
		t.Helper()
		got, err := s.Assign(id, nics)
		if err != nil {
			t.Fatalf("Assign(%s): %v", id, err)
		}
		return addresses(got)
	}
	nic := func(network, mac string) hostcall.NIC { return hostcall.NIC{Network: network, MAC: mac} }
	for _, tt := range []struct {
		id   string
		nics []hostcall.NIC
		want []string
	}{
		{"1", []hostcall.NIC{nic("a", "m1"), nic("b", "m2"), nic("a", "m3")}, []string{"10.80.0.2", "10.81.0.2", "10.80.0.3"}},
		{"2", []hostcall.NIC{nic("a", "m4")}, []string{"10.80.0.4"}},
		{"1", []hostcall.NIC{nic("a", "m3"), nic("a", "m1")}, []string{"10.80.0.3", "10.80.0.2"}}, // stable by MAC
		{"3", []hostcall.NIC{nic("b", "m5")}, []string{"10.81.0.2"}},                              // let go by 1
		{"3", []hostcall.NIC{nic("a", "m5"), nic("a", "m6")}, []string{"10.80.0.5", "10.80.0.6"}},
	} {
		if d := cmp.Diff(tt.want, assign(tt.id, tt.nics...)); d != "" {
			t.Errorf("Assign(%s) (-want +got):\n%s", tt.id, d)
		}
	}
	_, err := s.Assign("4", []hostcall.NIC{nic("a", "m7")})
	var e *hostcall.Error
	if !errors.As(err, &e) || e.Code != hostcall.ResourceExhausted || e.Field != "guest.nics[0].network" {
		t.Errorf("Assign in a full network: %v", err)
	}
	s.Release("2")
	if got := assign("4", nic("a", "m7")); !cmp.Equal(got, []string{"10.80.0.4"}) {
		t.Errorf("Assign after Release = %v", got)
	}
}

func TestKeep(t *testing.T) {
	s := newSet(t, "10.80.0.0/24")
	kept := func(address string) folder.Interface {
		return folder.Interface{Network: "a", MAC: address, Address: address}
	}
	s.Keep("1", []folder.Interface{kept("10.80.0.9"), kept("10.80.0.1"), kept("10.80.0.0"), kept("10.80.0.255"), kept("10.9.0.1"), kept("x"),
		{Network: "gone", MAC: "m", Address: "10.80.0.10"}})
	s.Keep("2", []folder.Interface{kept("10.80.0.9"), kept("10.80.0.2")})
	for id, want := range map[string][]string{"1": {"10.80.0.9"}, "2": {"10.80.0.2"}} {
		if d := cmp.Diff(want, addresses(s.kept[id])); d != "" {
			t.Errorf("kept by %s (-want +got):\n%s", id, d)
		}
	}
}

// FuzzLease reads what netd says: only a running guest with that very address
// is passed on.
func FuzzLease(f *testing.F) {
	f.Add([]byte(`{"network":0,"mac":"02:00:00:00:00:01","address":"10.80.0.2"}`))
	f.Add([]byte(`{"network":-1,"mac":"02:00:00:00:00:01","address":"10.80.0.3"}`))
	f.Add([]byte(`{"mac":"","address":""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var l netd.Lease
		if json.Unmarshal(b, &l) != nil {
			return
		}
		s := newSet(t, "10.80.0.0/24")
		s.leased = func(mac, address string) {
			if mac != "02:00:00:00:00:01" || address != "10.80.0.2" {
				t.Errorf("leased %q to %q", address, mac)
			}
		}
		if err := s.Activate([]folder.Interface{{MAC: "02:00:00:00:00:01", Network: "a", Address: "10.80.0.2"}}); err != nil {
			t.Fatal(err)
		}
		s.take(l)
	})
}

// FuzzParse reads networks as init has written them: those that are taken have
// room for guests and are apart from each other and the host.
func FuzzParse(f *testing.F) {
	f.Add("10.80.0.0/24", "10.80.0.128/25", "192.0.2.1/24")
	f.Add("255.255.255.0/24", "0.0.0.0/8", "255.0.0.1/8")
	f.Add("::ffff:10.0.0.0/120", "10.0.0.0/8", "")
	f.Fuzz(func(t *testing.T, a, b, host string) {
		networks, problems := parse([]layout.Network{{Name: "a", Subnet: a}, {Name: "b", Subnet: b}}, []string{host})
		if len(networks)+len(problems) != 2 {
			t.Errorf("%d networks and %d problems of 2", len(networks), len(problems))
		}
		for i, n := range networks {
			if !n.Subnet.Contains(n.Gateway) || !n.usable(n.Gateway.Next()) {
				t.Errorf("network %+v has no room", n)
			}
			if p, err := netip.ParsePrefix(host); err == nil && p.Overlaps(n.Subnet) || i > 0 && networks[0].Subnet.Overlaps(n.Subnet) {
				t.Errorf("network %+v is in another", n)
			}
		}
	})
}

func TestCheck(t *testing.T) {
	s := newSet(t, "10.80.0.0/24")
	const good = "02:00:00:00:00:01"
	if err := s.Check([]hostcall.NIC{{Network: "a", MAC: good}}); err != nil {
		t.Errorf("a good NIC: %v", err)
	}
	for _, tt := range []struct {
		nics  []hostcall.NIC
		field string
	}{
		{[]hostcall.NIC{{Network: "a", MAC: good}, {Network: "x", MAC: "02:00:00:00:00:02"}}, "guest.nics[1].network"},
		{[]hostcall.NIC{{Network: "a", MAC: good}, {Network: "a", MAC: good}}, "guest.nics[1].mac"},
		{[]hostcall.NIC{{Network: "a", MAC: ""}}, "guest.nics[0].mac"},
		{[]hostcall.NIC{{Network: "a", MAC: "01:00:00:00:00:01"}}, "guest.nics[0].mac"},
		{[]hostcall.NIC{{Network: "a", MAC: "00:00:00:00:00:00"}}, "guest.nics[0].mac"},
		{[]hostcall.NIC{{Network: "a", MAC: "02-00-00-00-00-01"}}, "guest.nics[0].mac"},
		{[]hostcall.NIC{{Network: "a", MAC: "02:00:00:00:00:0A"}}, "guest.nics[0].mac"},
		{[]hostcall.NIC{{Network: "a", MAC: "02:00:00:00:00:00:00:01"}}, "guest.nics[0].mac"},
		{make([]hostcall.NIC, maxNICs+1), "guest.nics"},
	} {
		err := s.Check(tt.nics)
		var e *hostcall.Error
		if !errors.As(err, &e) || e.Code != hostcall.InvalidArgument || e.Field != tt.field {
			t.Errorf("Check(%v) = %v, want invalid %s", tt.nics, err, tt.field)
		}
	}
}

func TestActivate(t *testing.T) {
	s := newSet(t, "10.80.0.0/24")
	one, two := folder.Interface{MAC: "m", Network: "a", Address: "10.80.0.2"}, folder.Interface{MAC: "m", Network: "a", Address: "10.80.0.3"}
	if err := s.Activate([]folder.Interface{one}); err != nil {
		t.Fatal(err)
	}
	err := s.Activate([]folder.Interface{{MAC: "n", Network: "a"}, two})
	var e *hostcall.Error
	if !errors.As(err, &e) || e.Code != hostcall.AlreadyExists || e.Field != "guest.nics[1].mac" {
		t.Errorf("Activate of a MAC in use: %v", err)
	}
	err = s.Activate([]folder.Interface{{MAC: "n", Network: "gone", Address: "10.99.0.2"}})
	if !errors.As(err, &e) || e.Code != hostcall.FailedPrecondition || e.Field != "guest.nics[0].network" {
		t.Errorf("Activate on a network that is not there: %v", err)
	}
	s.Deactivate([]folder.Interface{two}) // not the one in use
	if d := cmp.Diff(map[string]folder.Interface{"m": one}, s.active); d != "" {
		t.Errorf("active (-want +got):\n%s", d)
	}
	s.Deactivate([]folder.Interface{one})
	if len(s.active) != 0 {
		t.Errorf("active: %v, want none", s.active)
	}
}
