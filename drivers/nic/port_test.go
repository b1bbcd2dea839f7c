package nic

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/drivers/sriov"
)

func TestPortOf(t *testing.T) {
	sysfs := t.TempDir()
	device := filepath.Join(sysfs, "devices/pci0000:00/0000:01:00.0")
	if err := os.MkdirAll(filepath.Join(device, "net/eth1"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(sysfs, "class/net"), 0o700); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{
		"class/net/eth1": device + "/net/eth1", "devices/pci0000:00/0000:01:00.0/net/eth1/device": device,
		"devices/pci0000:00/0000:01:00.0/driver": "../../../bus/pci/drivers/igb", "devices/pci0000:00/0000:01:00.0/subsystem": "../../../bus/pci",
	} {
		if err := os.Symlink(to, filepath.Join(sysfs, link)); err != nil {
			t.Fatal(err)
		}
	}
	for file, text := range map[string]string{
		"numa_node": "1\n", "sriov_totalvfs": "7\n", "sriov_numvfs": "1\n", "net/eth1/speed": "1000\n", "net/eth1/duplex": "full\n",
	} {
		if err := os.WriteFile(filepath.Join(device, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	a := &netlink.LinkAttrs{Name: "eth1", Index: 3, HardwareAddr: mac, PermHWAddr: mac, MTU: 1500,
		RawFlags: unix.IFF_UP | unix.IFF_LOWER_UP, Vfs: []netlink.VfInfo{{Vlan: 5}}}
	want := Port{Interface: Interface{Name: "eth1", Index: 3, MAC: mac, Carrier: true, Functions: 1}, Up: true, PermanentMAC: mac, MTU: 1500, SpeedMbps: 1000,
		FullDuplex: true, Driver: "igb", Device: "0000:01:00.0", Node: 1, TotalVFs: 7, VFs: []sriov.Settings{{VLAN: 5}}}
	if d := cmp.Diff(want, portOf(sysfs, a), cmpopts.EquateEmpty()); d != "" {
		t.Errorf("portOf (-want +got):\n%s", d)
	}
	// What both ends had agreed on says nothing when the cable is gone.
	a.RawFlags = unix.IFF_UP
	if p := portOf(sysfs, a); p.SpeedMbps != 0 || p.FullDuplex || p.Carrier || !p.Up {
		t.Errorf("without a carrier: %+v", p)
	}
}

// Whoever follows ends when asked to.
func TestFollowEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Follow(ctx, func() {}) }()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := Ports("/sys"); err != nil {
		t.Error(err)
	}
}
