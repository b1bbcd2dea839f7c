package netd

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
)

// A macAddress is an Ethernet address.
type macAddress [6]byte

func parseMAC(s string) (macAddress, error) {
	b, err := net.ParseMAC(s)
	if err != nil || len(b) != 6 {
		return macAddress{}, fmt.Errorf("%q is not an Ethernet address", s)
	}
	return macAddress(b), nil
}

func (m macAddress) String() string { return net.HardwareAddr(m[:]).String() }

// minMTU is the least that the option can tell (RFC 2132 section 5.1).
const minMTU = 68

// A network is a checked Network.
type network struct {
	subnet  netip.Prefix
	gateway netip.Addr
	dns     []net.IP
	mtu     uint16
}

func parseNetwork(n Network) (network, error) {
	subnet, err := netip.ParsePrefix(n.Subnet)
	if err != nil || !subnet.Addr().Is4() {
		return network{}, fmt.Errorf("%q is not an IPv4 network", n.Subnet)
	}
	gateway, err := netip.ParseAddr(n.Gateway)
	if err != nil || !subnet.Contains(gateway) {
		return network{}, fmt.Errorf("%q is not an address of %s", n.Gateway, subnet)
	}
	if n.MTU != 0 && n.MTU < minMTU {
		return network{}, fmt.Errorf("MTU %d, want at least %d", n.MTU, minMTU)
	}
	out := network{subnet: subnet.Masked(), gateway: gateway, mtu: n.MTU}
	for _, d := range n.DNS {
		a, err := netip.ParseAddr(d)
		if err != nil || !a.Is4() {
			return network{}, fmt.Errorf("DNS server %q is not an IPv4 address", d)
		}
		out.dns = append(out.dns, a.AsSlice())
	}
	return out, nil
}

// A table is who gets what, on one network.
type table struct {
	network network

	mu    sync.Mutex
	hosts map[macAddress]netip.Addr
	told  map[macAddress]bool // core knows that it has taken its address
}

func newTable(n network) *table {
	return &table{network: n, hosts: make(map[macAddress]netip.Addr), told: make(map[macAddress]bool)}
}

func (t *table) add(h Host) error {
	mac, err := parseMAC(h.MAC)
	if err != nil {
		return err
	}
	address, err := netip.ParseAddr(h.Address)
	if err != nil || !t.network.subnet.Contains(address) || address == t.network.gateway {
		return fmt.Errorf("%q is not a guest's address of %s", h.Address, t.network.subnet)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hosts[mac] = address
	delete(t.told, mac)
	return nil
}

func (t *table) remove(h Host) error {
	mac, err := parseMAC(h.MAC)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.hosts, mac)
	delete(t.told, mac)
	return nil
}

func (t *table) address(mac macAddress) (netip.Addr, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a, ok := t.hosts[mac]
	return a, ok
}

// tell reports whether core has to be told of a lease: once, or a guest that
// asks without end would keep core busy.
func (t *table) tell(l *Lease) bool {
	mac, err := parseMAC(l.MAC)
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, known := t.hosts[mac]; err != nil || !known || t.told[mac] {
		return false
	}
	t.told[mac] = true
	return true
}

// apply changes tables as o says.
func apply(tables []*table, o Order) error {
	for _, change := range []struct {
		host *Host
		do   func(*table, Host) error
	}{{o.Add, (*table).add}, {o.Remove, (*table).remove}} {
		if change.host == nil {
			continue
		}
		if n := change.host.Network; n < 0 || n >= len(tables) {
			return fmt.Errorf("there is no network %d", n)
		}
		if err := change.do(tables[change.host.Network], *change.host); err != nil {
			return err
		}
	}
	if o.Networks != nil {
		return errors.New("networks come first, once")
	}
	return nil
}
