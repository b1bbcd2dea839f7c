package network

import (
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// OpenTap makes the tap name, with virtio-net headers and one queue, as a port
// of bridge, up. The tap lives as long as its descriptor is open somewhere.
func OpenTap(name, bridge string) (*os.File, error) {
	master, err := netlink.LinkByName(bridge)
	if err != nil {
		return nil, fmt.Errorf("open tap %s: bridge %s: %w", name, bridge, err)
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun (CONFIG_TUN): %w", err)
	}
	// Blocking or not is the user's: the file is handed on, never read here.
	f := os.NewFile(uintptr(fd), name)
	if err := setUpTap(fd, name, master); err != nil {
		f.Close()
		return nil, fmt.Errorf("open tap %s: %w", name, err)
	}
	return f, nil
}

func setUpTap(fd int, name string, master netlink.Link) error {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_TUN_EXCL)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	// No IPv6 address of the host's on the guest's wire.
	_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0)
	if err := netlink.LinkSetMaster(link, master); err != nil {
		return fmt.Errorf("attach to bridge: %w", err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	return nil
}
