//go:build roottest

package network

import (
	"net/netip"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
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

func TestEnsureBridge(t *testing.T) {
	ownNamespace(t)
	for i, address := range []string{"10.80.0.1/24", "10.80.0.1/24", "10.90.0.1/16"} {
		mtu := []int{1500, 9000, 1280}[i]
		if err := EnsureBridge("br0", netip.MustParsePrefix(address), mtu); err != nil {
			t.Fatalf("EnsureBridge %s: %v", address, err)
		}
		link, err := netlink.LinkByName("br0")
		if err != nil {
			t.Fatal(err)
		}
		if link.Attrs().Flags&unix.IFF_UP == 0 {
			t.Errorf("%s: bridge is not up", address)
		}
		if link.Attrs().MTU != mtu {
			t.Errorf("MTU = %d, want %d", link.Attrs().MTU, mtu)
		}
		got, err := netlink.AddrList(link, netlink.FAMILY_V4)
		if err != nil || len(got) != 1 || got[0].IPNet.String() != address {
			t.Errorf("addresses = %v, %v; want %s", got, err, address)
		}
	}
	if err := netlink.LinkAdd(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "other"}}); err == nil {
		if err := EnsureBridge("other", netip.MustParsePrefix("10.1.0.1/24"), 1500); err == nil {
			t.Error("EnsureBridge over another kind of link: no error")
		}
	}
	for range 2 {
		if err := RemoveLink("br0"); err != nil {
			t.Errorf("RemoveLink: %v", err)
		}
	}
}

func TestOpenTap(t *testing.T) {
	ownNamespace(t)
	if err := EnsureBridge("br0", netip.MustParsePrefix("10.80.0.1/24"), 9000); err != nil {
		t.Fatal(err)
	}
	files, err := OpenTap("tap0", "br0", 3)
	if err != nil {
		t.Fatalf("OpenTap: %v", err)
	}
	if len(files) != 3 {
		t.Fatalf("OpenTap made %d queues, want 3", len(files))
	}
	for _, name := range []string{"br0", "tap0"} {
		if l, err := netlink.LinkByName(name); err != nil || l.Attrs().MTU != 9000 {
			t.Errorf("MTU of %s = %v, %v; want 9000", name, l, err)
		}
	}
	if _, err := OpenTap("tap0", "br0", 1); err == nil {
		t.Error("OpenTap of a name in use: no error")
	}
	link, err := netlink.LinkByName("tap0")
	if err != nil {
		t.Fatal(err)
	}
	bridge, err := netlink.LinkByName("br0")
	if err != nil {
		t.Fatal(err)
	}
	if link.Attrs().MasterIndex != bridge.Attrs().Index || link.Attrs().Flags&unix.IFF_UP == 0 {
		t.Errorf("tap: %+v, want up and in the bridge", link.Attrs())
	}
	req, err := unix.NewIfreq("tap0")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlIfreq(int(files[2].Fd()), unix.TUNGETIFF, req); err != nil {
		t.Fatal(err)
	}
	if want := uint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE); req.Uint16()&want != want {
		t.Errorf("flags = %#x, want %#x in them", req.Uint16(), want)
	}
	for i, f := range files {
		if _, err := netlink.LinkByName("tap0"); err != nil {
			t.Errorf("the tap is gone with %d of its descriptors open: %v", len(files)-i, err)
		}
		f.Close()
	}
	if _, err := netlink.LinkByName("tap0"); err == nil {
		t.Error("the tap is there after its descriptors are closed")
	}
	if _, err := OpenTap("tap1", "none", 1); err == nil {
		t.Error("OpenTap on a bridge that is not there: no error")
	}
}

func TestListenUDP(t *testing.T) {
	ownNamespace(t)
	if err := EnsureBridge("br0", netip.MustParsePrefix("10.80.0.1/24"), 9000); err != nil {
		t.Fatal(err)
	}
	f, err := ListenUDP("br0", 67)
	if err != nil {
		t.Fatalf("ListenUDP: %v", err)
	}
	defer f.Close()
	if name, err := unix.GetsockoptString(int(f.Fd()), unix.SOL_SOCKET, unix.SO_BINDTODEVICE); err != nil || name != "br0" {
		t.Errorf("bound to %q, %v; want br0", name, err)
	}
	if _, err := ListenUDP("none", 67); err == nil {
		t.Error("ListenUDP on a device that is not there: no error")
	}
}
