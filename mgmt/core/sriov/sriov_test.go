package sriov

import (
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/ashlar-hv/ashlar/drivers/nic"
	"github.com/ashlar-hv/ashlar/drivers/pci"
	driver "github.com/ashlar-hv/ashlar/drivers/sriov"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/google/go-cmp/cmp"
)

func mac(n byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, n} }

// links are two with functions on different nodes, and one without.
func links() []candidate {
	return []candidate{
		{nic.Port{Interface: nic.Interface{Name: "eth0", MAC: mac(1)}, Node: 0, VFs: []driver.Settings{{MAC: mac(10)}, {MAC: mac(11)}}}, []string{"0000:01:10.0", "0000:01:10.2"}},
		{nic.Port{Interface: nic.Interface{Name: "eth1", MAC: mac(2)}, Node: 1, VFs: []driver.Settings{{}}}, []string{"0000:02:10.0"}},
		{nic.Port{Interface: nic.Interface{Name: "eth2", MAC: mac(3)}, Node: -1}, nil},
	}
}

func TestChoose(t *testing.T) {
	for _, tt := range []struct {
		name        string
		nodes       []int
		taken       string
		want, wrong string
	}{
		{name: "the first", want: "0000:01:10.0"},
		{name: "the next", taken: "0000:01:10.0", want: "0000:01:10.2"},
		{name: "on the guest's node", nodes: []int{1}, want: "0000:02:10.0"},
		{name: "on another node", nodes: []int{1}, taken: "0000:02:10.0", want: "0000:01:10.0"},
		{name: "none", taken: "0000:01:10.0 0000:01:10.2 0000:02:10.0", wrong: "all 2 of eth0 are in use, all 1 of eth1 are in use, eth2 has no virtual functions"},
	} {
		got, err := choose(links(), tt.nodes, func(a string) bool { return !strings.Contains(tt.taken, a) })
		if got != tt.want || (err != nil) != (tt.wrong != "") || err != nil && !strings.Contains(err.Error(), tt.wrong) {
			t.Errorf("%s: %q, %v", tt.name, got, err)
		}
	}
}

func TestUnique(t *testing.T) {
	free := func(a string) bool { return a == "0000:01:10.2" }
	for mac, wrong := range map[string]string{
		"": "", mac(9).String(): "", mac(11).String(): "", // of a function that nobody has
		mac(2).String(): "link eth1", mac(10).String(): "virtual function 0 of eth0",
	} {
		err := unique(links(), mac, free)
		if (err != nil) != (wrong != "") || err != nil && !strings.Contains(err.Error(), wrong) {
			t.Errorf("%s: %v, want %q", mac, err, wrong)
		}
	}
}

func TestSettings(t *testing.T) {
	s := hostcall.VFSettings{MAC: mac(1).String(), VLAN: 5, QoS: 2, MaxRate: 100, NoSpoofCheck: true, Trust: true, State: hostcall.LinkDisable}
	d, err := asked(s)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, told(d)); diff != "" {
		t.Errorf("what is told of what was asked for (-want +got):\n%s", diff)
	}
	if got := told(driver.Settings{MAC: make(net.HardwareAddr, 6), SpoofCheck: true}); got != (hostcall.VFSettings{}) {
		t.Errorf("what nobody has set is told as %+v", got)
	}
}

// What cannot be is refused before anything is done.
func TestSetRefuses(t *testing.T) {
	m := New(Config{Log: slog.New(slog.DiscardHandler), Owners: func() map[string]string { return map[string]string{"0000:09:00.0": "guest"} }, Inventory: func() (*pci.Inventory, error) { return pci.Find(pci.Host{}) }})
	card := pci.Device{Address: "0000:01:00.0", Driver: "igb", SRIOV: &pci.SRIOV{Total: 7}}
	owned, dull := card, card
	owned.Address, dull.SRIOV = "0000:09:00.0", nil
	inv := new(pci.Inventory)
	for _, tt := range []struct {
		d     pci.Device
		v     hostcall.VFs
		wrong string
	}{
		{card, hostcall.VFs{Count: 7}, ""},
		{card, hostcall.VFs{Count: 8}, "at most 7"},
		{dull, hostcall.VFs{Count: 1}, "no SR-IOV"},
		{owned, hostcall.VFs{Count: 1}, "a guest's"},
		{card, hostcall.VFs{Count: 1, Namespaces: [][]int{{1}}}, "no NVMe controller"},
	} {
		if err := m.check(inv, &tt.d, tt.v); (err != nil) != (tt.wrong != "") || err != nil && !strings.Contains(err.Error(), tt.wrong) {
			t.Errorf("%+v, %+v: %v, want %q", tt.d, tt.v, err, tt.wrong)
		}
	}
	for device, code := range map[string]hostcall.Code{"0000:01:00.0": hostcall.InvalidArgument, "path-0000:00-99.0": hostcall.NotFound, "path-../../x": hostcall.NotFound} {
		var e *hostcall.Error
		if err := m.Set(t.Context(), hostcall.VFs{Device: device, Count: 1}); !errors.As(err, &e) || e.Code != code {
			t.Errorf("set of %s: %v, want %s", device, err, code)
		}
	}
}
