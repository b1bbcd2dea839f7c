package sriov

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const address = "0000:01:00.0"

// pf makes a physical function with two virtual ones below a folder.
func pf(t *testing.T) (root string, read func(file string) string) {
	t.Helper()
	root = t.TempDir()
	dir := device(root, address)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"sriov_numvfs": "2\n", "sriov_drivers_autoprobe": "1\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"virtfn0": "../0000:01:10.0", "virtfn1": "../0000:01:10.2"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return root, func(file string) string {
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
}

func TestCreate(t *testing.T) {
	root, read := pf(t)
	if got, err := Functions(root, address); err != nil || !slices.Equal(got, []string{"0000:01:10.0", "0000:01:10.2"}) {
		t.Errorf("Functions = %v, %v", got, err)
	}
	if err := create(root, address, 2); err != nil || read("sriov_drivers_autoprobe") != "1\n" {
		t.Errorf("a number that it has already is set: %v", err)
	}
	if err := create(root, address, 7); err != nil {
		t.Fatal(err)
	}
	// A file of sysfs takes each write as a whole.
	if n, auto := read("sriov_numvfs"), read("sriov_drivers_autoprobe"); n[:1] != "7" || auto[:1] != "0" {
		t.Errorf("the kernel is told %q, %q", n, auto)
	}
	if got, err := Functions(root, "0000:02:00.0"); err == nil || got != nil {
		t.Errorf("Functions of what there is not = %v, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(device(root, address), "sriov_numvfs"), []byte("-1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := create(root, address, 1); err == nil {
		t.Error("a number below 0 counts")
	}
}

func TestWhy(t *testing.T) {
	if err := why(unix.ENOMEM); !errors.Is(err, unix.ENOMEM) || !strings.Contains(err.Error(), "firmware") {
		t.Errorf("why = %v", err)
	}
	if err := why(unix.EIO); !errors.Is(err, unix.EIO) || err.Error() != unix.EIO.Error() {
		t.Errorf("why = %v", err)
	}
}

func TestOf(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	got := Of(&netlink.LinkAttrs{Vfs: []netlink.VfInfo{
		{Mac: mac, Vlan: 7, Qos: 3, TxRate: 50, Spoofchk: true, Trust: 1, LinkState: 2},
		{ID: 1, MaxTxRate: 100, TxRate: 50, Trust: 0xffffffff}, // a driver that knows no trust
	}})
	want := []Settings{{MAC: mac, VLAN: 7, QoS: 3, MaxRate: 50, SpoofCheck: true, Trust: true, LinkState: Disable}, {MaxRate: 100}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("Of (-want +got):\n%s", d)
	}
}
