package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The network between this process and the guest.
const (
	hostAddress   = "10.99.0.1/24"
	guestAddress  = "10.99.0.2/24"
	serverAddress = "10.99.0.1:7"
	guestMAC      = "52:54:00:be:0c:01"
	tapName       = "bench0"
)

// A nic is the host's end of a guest's network card, a tap that stays.
type nic struct{ link netlink.Link }

// newNIC makes one with an address of the host's, "" for none.
func newNIC(address string) (*nic, error) {
	f, err := openTap(unix.IFF_TUN_EXCL)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := unix.IoctlSetInt(int(f.Fd()), unix.TUNSETPERSIST, 1); err != nil {
		return nil, fmt.Errorf("keep tap: %w", err)
	}
	link, err := netlink.LinkByName(tapName)
	if err != nil {
		return nil, err
	}
	n := &nic{link}
	if err := setUp(link, address); err != nil {
		n.close()
		return nil, fmt.Errorf("set up %s: %w", tapName, err)
	}
	return n, nil
}

// setUp switches a link on, with an address, "" for none.
func setUp(link netlink.Link, address string) error {
	if address == "" {
		return netlink.LinkSetUp(link)
	}
	addr, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	return errors.Join(netlink.AddrAdd(link, addr), netlink.LinkSetUp(link))
}

func (n *nic) close() { _ = netlink.LinkDel(n.link) }

// attach opens the tap for a guest.
func (n *nic) attach() (*os.File, error) { return openTap(0) }

// forQEMU opens the tap and vhost-net.
func (n *nic) forQEMU() ([]*os.File, error) {
	tap, err := n.attach()
	if err != nil {
		return nil, err
	}
	vhost, err := os.OpenFile("/dev/vhost-net", os.O_RDWR, 0)
	if err != nil {
		tap.Close()
		return nil, err
	}
	return []*os.File{tap, vhost}, nil
}

func openTap(flags uint16) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	ifr, err := unix.NewIfreq(tapName)
	if err == nil {
		ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | flags)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open tap %s: %w", tapName, err)
	}
	return os.NewFile(uintptr(fd), tapName), nil
}
