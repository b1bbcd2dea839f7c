package pci

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// record is a server as sysfs shows it.
func record(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("testdata/server.txt")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// tree makes the files of a record. A line is a path and what is in the file (`|` for the
// end of a line), or where a link leads (after `->`), or, for configuration space, its
// size and some of its bytes.
func tree(t *testing.T, record string) string {
	t.Helper()
	root := t.TempDir()
	for line := range strings.Lines(record) {
		path, value, _ := strings.Cut(strings.TrimRight(line, "\n"), " ")
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if to, ok := strings.CutPrefix(value, "-> "); ok {
			if err := os.Symlink(to, path); err != nil {
				t.Fatal(err)
			}
			continue
		}
		content := []byte(strings.ReplaceAll(value, "|", "\n") + "\n")
		if words, ok := strings.CutPrefix(value, "bytes "); ok {
			content = space(t, strings.Fields(words))
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// space is configuration space of a size, with bytes at offsets.
func space(t *testing.T, words []string) []byte {
	t.Helper()
	size, err := strconv.Atoi(words[0])
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	for _, w := range words[1:] {
		at, digits, _ := strings.Cut(w, ":")
		offset, err := strconv.ParseUint(at, 16, 12)
		if err != nil {
			t.Fatal(err)
		}
		bytes, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatal(err)
		}
		copy(b[offset:], bytes)
	}
	return b
}

// server reads all devices of a record, by address.
func server(t *testing.T, record string, h Host) map[string]*Device {
	t.Helper()
	inv, err := find(tree(t, record), h)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*Device{}
	for _, address := range inv.Addresses() {
		if out[address], err = inv.Read(address); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

var used = Host{BootLabel: "ASHLAR-CFG", DataDisk: "/dev/dm-0", Interface: "mgmt"}

func TestServer(t *testing.T) {
	got := server(t, record(t), used)
	want := map[string]*Device{
		"0000:01:00.0": {
			Address: "0000:01:00.0", Path: "0000:00-1c.0-00.0", Parent: "0000:00:1c.0",
			Vendor: 0x8086, Device: 0x1572, SubsystemVendor: 0x8086, SubsystemDevice: 1, Class: 0x020000, Revision: 2,
			Driver: "i40e", Group: 15, ResetMethods: []string{"flr", "bus"}, SRIOV: &SRIOV{64, 2},
			BARs: []BAR{{Index: 0, Bytes: 8 << 20, Wide: true, Cached: true}, {Index: 3, Bytes: 32 << 10, Wide: true, Cached: true}},
			Link: &Link{8000, 8, 8000, 8}, Extended: true, SerialNumber: "fedcba9876543210",
			Interfaces: []Interface{{"eth1", "3c:fd:fe:01:02:03"}}, Uses: []Use{ManagementParent},
		},
		"0000:01:02.1": {
			Address: "0000:01:02.1", Path: "0000:00-1c.0-00.0-vf1", Parent: "0000:00:1c.0", Vendor: 0x8086, Device: 0x154c, Class: 0x020000,
			Driver: "iavf", Group: 17, ResetMethods: []string{"flr"}, Physical: &Physical{"0000:01:00.0", 1}, Extended: true,
			Interfaces: []Interface{{"eth2", ""}}, Uses: []Use{ManagementNIC},
		},
		"0000:02:00.0": {
			Address: "0000:02:00.0", Path: "0000:00-1d.0-00.0", Parent: "0000:00:1d.0", Vendor: 0x144d, Device: 0xa824, Class: 0x010802, Node: 1,
			Driver: "nvme", Group: 11, ResetMethods: []string{"flr", "bus"}, BARs: []BAR{{Bytes: 32 << 10, Wide: true}},
			Link: &Link{2500, 4, 16000, 4}, Extended: true, NoACS: []string{"0000:00:1d.0"}, NVMe: "S5 Y/1", Uses: []Use{DataDisk},
		},
		// One of several functions, none of which isolates.
		"0000:00:14.0": {
			Address: "0000:00:14.0", Path: "0000:00-14.0", Vendor: 0x8086, Device: 0x7ae0, SubsystemVendor: 0x1028, SubsystemDevice: 0xc99,
			Class: 0x0c0330, Revision: 0x11, Driver: "xhci_hcd", Group: 2, ResetMethods: []string{"pm"},
			BARs: []BAR{{Bytes: 64 << 10, Wide: true}}, Extended: true, NoACS: []string{"0000:00:14.0"}, Uses: []Use{BootDisk},
		},
		// Behind a bridge to PCI, where all devices see each other.
		"0000:03:01.0": {
			Address: "0000:03:01.0", Path: "0000:00-1e.0-01.0", Parent: "0000:00:1e.0", Vendor: 0x104c, Device: 0x8024, Class: 0x0c0010,
			Node: -1, Group: -1, Extended: true, NoACS: []string{"0000:03:01.0", "0000:00:1e.0"},
		},
		// Its configuration space cannot be read past the first 64 bytes.
		"0000:03:00.0": {
			Address: "0000:03:00.0", Path: "0000:00-1e.0-00.0", Parent: "0000:00:1e.0", Vendor: 0x1000, Device: 0x12, Class: 0x010000,
			Node: -1, Group: -1, BARs: []BAR{{Bytes: 256, IO: true}},
		},
		// In the domain of a controller of others.
		"10000:e1:00.0": {
			Address: "10000:e1:00.0", Path: "10000:e0-06.0-00.0", Parent: "10000:e0:06.0", Vendor: 0x144d, Device: 0xa80a, Class: 0x010802,
			Group: -1, Extended: true,
		},
	}
	for address, w := range want {
		if d := cmp.Diff(w, got[address], cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s (-want +got):\n%s", address, d)
		}
	}
	if len(got) != 13 {
		t.Errorf("%d devices, want 13", len(got))
	}
	for address, d := range got {
		if _, ok := want[address]; !ok && len(d.Uses) > 0 {
			t.Errorf("%s is used as %s", address, d.Uses)
		}
	}
}

// A card more gives buses other numbers: names stay.
func TestNamesStay(t *testing.T) {
	before := server(t, record(t), used)
	after := server(t, strings.NewReplacer("0000:02:", "0000:07:", "0000:01:", "0000:02:").Replace(record(t)), used)
	for old, now := range map[string]string{
		"0000:00:1c.0": "0000:00:1c.0", "0000:01:00.0": "0000:02:00.0", "0000:01:02.1": "0000:02:02.1", "0000:02:00.0": "0000:07:00.0",
	} {
		if d := cmp.Diff(before[old].Names(), after[now].Names()); d != "" {
			t.Errorf("%s, now %s: %s", old, now, d)
		}
	}
	for address, want := range map[string][]string{
		"0000:01:00.0": {"path-0000:00-1c.0-00.0", "dsn-fedcba9876543210.0", "mac-3cfdfe010203"},
		"0000:01:02.1": {"path-0000:00-1c.0-00.0-vf1"},
		"0000:02:00.0": {"path-0000:00-1d.0-00.0", "nvme-S5_Y_1"},
	} {
		if d := cmp.Diff(want, before[address].Names()); d != "" {
			t.Errorf("names of %s: %s", address, d)
		}
	}
}

func TestAfter(t *testing.T) {
	inv, err := find(tree(t, record(t)), Host{})
	if err != nil {
		t.Fatal(err)
	}
	all := inv.Addresses()
	for address, want := range map[string][]string{"": all, all[0]: all[1:], "0000:01:00.1": all[6:]} {
		if got := inv.After(address); !slices.Equal(got, want) {
			t.Errorf("After(%q) = %q, want %q", address, got, want)
		}
	}
	if all[len(all)-1] != "10000:e1:00.0" || len(inv.After(all[len(all)-1])) != 0 {
		t.Errorf("addresses are %q", all)
	}
	if _, err := inv.Read("0000:55:00.0"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Read of what is not there: %v", err)
	}
	if inv, err := find(t.TempDir(), Host{}); err != nil || len(inv.Addresses()) != 0 {
		t.Errorf("without PCI: %v", err)
	}
}

// The devices of this machine.
func TestThisMachine(t *testing.T) {
	inv, err := Find(Host{})
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range inv.Addresses() {
		d, err := inv.Read(address)
		if err != nil {
			t.Error(err)
			continue
		}
		if d.Vendor == 0 || d.Class == 0 || d.Path == "" || !strings.HasSuffix(d.Path, address[len(address)-4:]) && d.Physical == nil {
			t.Errorf("device %+v", d)
		}
		t.Logf("%+v %q", *d, d.Names())
	}
}

// FuzzConfig reads configuration space as a broken device may have it.
func FuzzConfig(f *testing.F) {
	b := make([]byte, 512)
	copy(b[0x06:], "\x10\x00")
	copy(b[0x34:], "\x40")
	copy(b[0x40:], "\x10\x40\x42\x00") // bites its tail
	copy(b[0x100:], "\x0d\x00\x01\x10\x1f\x00\x1d\x00")
	f.Add(b, true)
	f.Add(b[:64], false)
	f.Fuzz(func(t *testing.T, b []byte, bridge bool) {
		c := config(b)
		if c.isolates(bridge) && bridge && c.capability(capExpress) == 0 {
			t.Error("a bridge of a shared bus isolates")
		}
		if s := c.serialNumber(); s != "" && len(s) != 16 {
			t.Errorf("serial number %q", s)
		}
	})
}
