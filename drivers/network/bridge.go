// Package network makes bridges, taps and the sockets of services on them,
// with rtnetlink(7) and the kernel's Documentation/networking/tuntap.rst.
package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// EnsureBridge makes the bridge name with address on it and this MTU, up. One that exists
// is brought into that state; other IPv4 addresses of it are taken away.
func EnsureBridge(name string, address netip.Prefix, mtu int) error {
	link, err := netlink.LinkByName(name)
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing):
		b := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
		b.Name = name
		// A fixed address: else the bridge takes that of a port, and guests
		// would have to learn the gateway anew each time one starts.
		b.HardwareAddr = bridgeMAC(address.Addr())
		if err := netlink.LinkAdd(b); err != nil {
			return fmt.Errorf("create bridge %s (CONFIG_BRIDGE): %w", name, err)
		}
		link = b
	case err != nil:
		return fmt.Errorf("look up bridge %s: %w", name, err)
	case link.Type() != "bridge":
		return fmt.Errorf("bridge %s: there is a %s of this name", name, link.Type())
	}
	// The host speaks no IPv6 to guests. The file is missing without IPv6.
	err = os.WriteFile(filepath.Join("/proc/sys/net/ipv6/conf", name, "disable_ipv6"), []byte("1"), 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("bridge %s: disable IPv6: %w", name, err)
	}
	if err := netlink.LinkSetMTU(link, mtu); err != nil {
		return fmt.Errorf("bridge %s: MTU %d: %w", name, mtu, err)
	}
	if err := setAddress(link, address); err != nil {
		return fmt.Errorf("bridge %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bridge %s: set up: %w", name, err)
	}
	return nil
}

// setAddress makes address the only IPv4 address of link.
func setAddress(link netlink.Link, address netip.Prefix) error {
	have, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	want := &netlink.Addr{IPNet: &net.IPNet{
		IP:   address.Addr().AsSlice(),
		Mask: net.CIDRMask(address.Bits(), 32),
	}}
	found := false
	for _, a := range have {
		if a.IPNet.String() == want.IPNet.String() {
			found = true
			continue
		}
		if err := netlink.AddrDel(link, &a); err != nil {
			return fmt.Errorf("remove address %s: %w", a.IPNet, err)
		}
	}
	if found {
		return nil
	}
	if err := netlink.AddrAdd(link, want); err != nil {
		return fmt.Errorf("add address %s: %w", want.IPNet, err)
	}
	return nil
}

// bridgeMAC derives a locally administered MAC address from an IPv4 address.
func bridgeMAC(a netip.Addr) net.HardwareAddr {
	b := a.As4()
	return net.HardwareAddr{0x02, 0xa5, b[0], b[1], b[2], b[3]}
}

// RemoveLink removes the link name; one that does not exist is removed already.
func RemoveLink(name string) error {
	link, err := netlink.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove link %s: %w", name, err)
	}
	return nil
}

// EnableForwarding lets the host route IPv4.
func EnableForwarding() error {
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return fmt.Errorf("enable IPv4 forwarding: %w", err)
	}
	return nil
}
