package nic

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A Setup is the addresses of an interface.
type Setup struct {
	// Address is the host's own, with the length of its network's prefix.
	Address netip.Prefix
	// Gateway is the default router; the zero value means none.
	Gateway netip.Addr
	// Lifetime is how long the kernel keeps the address; 0 is for ever.
	Lifetime time.Duration
	// MTU in bytes; 0 leaves it as it is.
	MTU int
}

// Apply gives the interface called name the set-up s and takes away the
// addresses of the same family that it had, link-local ones excepted.
func Apply(name string, s Setup) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("set up %s: %w", name, err)
	}
	if s.MTU != 0 && s.MTU != l.Attrs().MTU {
		if err := netlink.LinkSetMTU(l, s.MTU); err != nil {
			return fmt.Errorf("set up %s: MTU %d: %w", name, s.MTU, err)
		}
	}
	// First: with the first address of a network the kernel drops all others.
	if err := removeOthers(l, s.Address); err != nil {
		return fmt.Errorf("set up %s: %w", name, err)
	}
	addr := &netlink.Addr{IPNet: ipNet(s.Address), ValidLft: seconds(s.Lifetime), PreferedLft: seconds(s.Lifetime)}
	if s.Address.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD // the gateway route must not wait for it
	}
	if err := netlink.AddrReplace(l, addr); err != nil {
		return fmt.Errorf("set up %s: address %s: %w", name, s.Address, err)
	}
	return route(l, s)
}

// Clear takes all addresses of IPv4 from the interface called name, and with
// them its routes.
func Clear(name string) error {
	l, err := netlink.LinkByName(name)
	if err == nil {
		err = removeOthers(l, netip.PrefixFrom(netip.IPv4Unspecified(), 32))
	}
	if err != nil {
		return fmt.Errorf("clear %s: %w", name, err)
	}
	return nil
}

// removeOthers removes the global addresses of keep's family other than keep.
func removeOthers(l netlink.Link, keep netip.Prefix) error {
	addrs, err := netlink.AddrList(l, family(keep.Addr()))
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	var errs []error
	for _, a := range addrs {
		ip, _ := netip.AddrFromSlice(a.IP)
		bits, _ := a.Mask.Size()
		if ip = ip.Unmap(); ip.IsLinkLocalUnicast() && ip.Is6() || netip.PrefixFrom(ip, bits) == keep {
			continue
		}
		if err := netlink.AddrDel(l, &a); err != nil {
			errs = append(errs, fmt.Errorf("remove address %s: %w", a.IPNet, err))
		}
	}
	return errors.Join(errs...)
}

// route sets the default route.
func route(l netlink.Link, s Setup) error {
	if !s.Gateway.IsValid() {
		return noRoute(l, s.Address.Addr())
	}
	r := &netlink.Route{
		LinkIndex: l.Attrs().Index,
		Gw:        s.Gateway.AsSlice(),
		Dst:       ipNet(netip.PrefixFrom(unspecified(s.Gateway), 0)),
	}
	if !s.Address.Contains(s.Gateway) {
		r.Flags = int(netlink.FLAG_ONLINK) // a host route (RFC 3442) or link-local
	}
	if err := netlink.RouteReplace(r); err != nil {
		return fmt.Errorf("set up %s: gateway %s: %w", l.Attrs().Name, s.Gateway, err)
	}
	return nil
}

// noRoute takes away the default route that an earlier set-up has made. IPv6's may
// be a router's own word: they stay.
func noRoute(l netlink.Link, like netip.Addr) error {
	if !like.Is4() {
		return nil
	}
	filter := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(netip.PrefixFrom(unspecified(like), 0))}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_DST)
	if err != nil {
		return fmt.Errorf("set up %s: list default routes: %w", l.Attrs().Name, err)
	}
	for _, r := range routes {
		if err := netlink.RouteDel(&r); err != nil {
			return fmt.Errorf("set up %s: remove gateway %s: %w", l.Attrs().Name, r.Gw, err)
		}
	}
	return nil
}

// EnableIPv6 lets the kernel configure the interface called name by IPv6's own
// means: a link-local address, and what routers advertise (RFC 4861, 4862),
// also where the host forwards for guests.
func EnableIPv6(procfs, name string) error {
	dir := filepath.Join(procfs, "sys/net/ipv6/conf", name)
	for _, s := range [][2]string{{"accept_ra", "2"}, {"accept_redirects", "0"}, {"disable_ipv6", "0"}} {
		if err := os.WriteFile(filepath.Join(dir, s[0]), []byte(s[1]), 0); err != nil {
			return fmt.Errorf("enable IPv6 on %s: %w", name, err)
		}
	}
	return nil
}

// Addresses lists the global addresses of the interface called name.
func Addresses(name string) ([]netip.Prefix, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("addresses of %s: %w", name, err)
	}
	addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("addresses of %s: %w", name, err)
	}
	var list []netip.Prefix
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP)
		if bits, _ := a.Mask.Size(); ok && !ip.IsLinkLocalUnicast() {
			list = append(list, netip.PrefixFrom(ip.Unmap(), bits))
		}
	}
	return list, nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func family(a netip.Addr) int {
	if a.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

func seconds(d time.Duration) int { return int(d / time.Second) }
