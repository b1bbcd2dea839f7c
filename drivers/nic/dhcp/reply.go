package dhcp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// defaultLifetime is taken where a server names none, against RFC 2131.
const defaultLifetime = time.Hour

// errNoMask is what leaseOf returns for a reply without option 1: a guess could
// cut the host off.
var errNoMask = errors.New("read DHCP reply: no subnet mask")

// leaseOf reads an offer or an acknowledgement, and checks it.
func leaseOf(m *dhcpv4.DHCPv4) (Lease, error) {
	ip, ok := addr(m.YourIPAddr)
	if !ok {
		return Lease{}, errors.New("read DHCP reply: no address in it")
	}
	mask := m.SubnetMask()
	ones, bits := mask.Size()
	if bits != 32 {
		return Lease{}, errNoMask
	}
	l := Lease{
		Address:  netip.PrefixFrom(ip, ones),
		DNS:      addrs(m.DNS()),
		NTP:      addrs(m.NTPServers()),
		Lifetime: min(m.IPAddressLeaseTime(defaultLifetime), maxLifetime), // 0xffffffff is for ever
	}
	if server, ok := addr(m.ServerIdentifier()); ok {
		l.Server = server
	}
	if routers := addrs(m.Router()); len(routers) > 0 {
		l.Gateway = routers[0]
	}
	if b := m.Options.Get(dhcpv4.OptionInterfaceMTU); len(b) == 2 {
		l.MTU = int(b[0])<<8 | int(b[1])
	}
	if err := l.Check(); err != nil {
		return Lease{}, fmt.Errorf("read DHCP reply: %w", err)
	}
	return l, nil
}

func addr(ip net.IP) (netip.Addr, bool) {
	a, ok := netip.AddrFromSlice(ip)
	a = a.Unmap()
	return a, ok && !a.IsUnspecified()
}

// addrs keeps the first few that can be hosts.
func addrs(ips []net.IP) []netip.Addr {
	var list []netip.Addr
	for _, ip := range ips {
		if a, ok := addr(ip); ok && host(a) && len(list) < maxServers {
			list = append(list, a)
		}
	}
	return list
}
