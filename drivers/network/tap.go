package network

import (
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// OpenTap makes the tap name, with virtio-net headers, as a port of bridge and with its MTU, up. It
// returns a descriptor for each of its queues, at least 1. The tap lives as long
// as one of them is open somewhere.
func OpenTap(name, bridge string, queues int) ([]*os.File, error) {
	master, err := netlink.LinkByName(bridge)
	if err != nil {
		return nil, fmt.Errorf("open tap %s: bridge %s: %w", name, bridge, err)
	}
	flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if queues > 1 {
		flags |= unix.IFF_MULTI_QUEUE
	}
	first, err := openQueue(name, flags|unix.IFF_TUN_EXCL)
	if err != nil {
		return nil, fmt.Errorf("open tap %s: %w", name, err)
	}
	files := []*os.File{first}
	err = setUpTap(name, master)
	for err == nil && len(files) < queues {
		var f *os.File
		if f, err = openQueue(name, flags); err == nil {
			files = append(files, f)
		}
	}
	if err != nil {
		for _, f := range files {
			f.Close()
		}
		return nil, fmt.Errorf("open tap %s: %w", name, err)
	}
	return files, nil
}

// openQueue makes the tap name, or another queue of it.
func openQueue(name string, flags uint16) (*os.File, error) {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun (CONFIG_TUN): %w", err)
	}
	// Blocking or not is the user's: the file is handed on, never read here.
	f := os.NewFile(uintptr(fd), name)
	req.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		f.Close()
		return nil, fmt.Errorf("create: %w", err)
	}
	return f, nil
}

func setUpTap(name string, master netlink.Link) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	// No IPv6 address of the host's on the guest's wire.
	_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0)
	// First: else the bridge, or what it forwards, is cut to the tap's.
	if err := netlink.LinkSetMTU(link, master.Attrs().MTU); err != nil {
		return fmt.Errorf("MTU %d: %w", master.Attrs().MTU, err)
	}
	if err := netlink.LinkSetMaster(link, master); err != nil {
		return fmt.Errorf("attach to bridge: %w", err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	return nil
}
