// Package dhcp asks for the host's address: a client for DHCP (RFC 2131) that
// runs as an unprivileged process of its own, and what the privileged side
// accepts from it.
//
// What a server on the network sends is parsed in the client only. The client
// reports in lines of JSON, Events, which Read takes with suspicion.
package dhcp

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Bounds of what is accepted in a lease.
const (
	maxServers  = 3               // of each kind: more are cut off
	minLifetime = 1 * time.Minute // shorter ones would only make noise
	maxLifetime = 365 * 24 * time.Hour
	minMTU      = 576 // RFC 791: what every host must take
	maxMTU      = 9216
)

// A Lease is an address for the host and what goes with it.
type Lease struct {
	// Address is the host's, with the length of the network's prefix.
	Address netip.Prefix `json:"address"`
	// Gateway is the default router; the zero value means none.
	Gateway netip.Addr `json:"gateway"`
	// Server is the DHCP server that leased it.
	Server netip.Addr   `json:"server"`
	DNS    []netip.Addr `json:"dns,omitempty"`
	NTP    []netip.Addr `json:"ntp,omitempty"`
	// MTU in bytes; 0 where the server says nothing.
	MTU int `json:"mtu,omitempty"`
	// Lifetime is how long the lease is good from its arrival on.
	Lifetime time.Duration `json:"lifetime"`
}

// Check reports why a lease cannot be used.
func (l Lease) Check() error {
	switch {
	case !host(l.Address.Addr()):
		return fmt.Errorf("lease of %v: not an address that a host can have", l.Address)
	case l.Address.Bits() < 8:
		return fmt.Errorf("lease of %v: a network of that size is a mistake", l.Address)
	case l.Address.Bits() < 31 && edge(l.Address):
		return fmt.Errorf("lease of %v: the network's own address or its broadcast", l.Address)
	case l.Gateway.IsValid() && !host(l.Gateway):
		return fmt.Errorf("lease of %v: gateway %v is not an address that a router can have", l.Address, l.Gateway)
	case l.Gateway.IsValid() && l.Address.Bits() < 31 && !l.Address.Contains(l.Gateway):
		return fmt.Errorf("lease of %v: gateway %v is outside of the network", l.Address, l.Gateway)
	case l.Gateway == l.Address.Addr():
		return fmt.Errorf("lease of %v: the host is its own gateway", l.Address)
	case !host(l.Server):
		return fmt.Errorf("lease of %v: server identifier %v is not a host", l.Address, l.Server)
	case l.Lifetime < minLifetime || l.Lifetime > maxLifetime:
		return fmt.Errorf("lease of %v: lifetime %v, want %v to %v", l.Address, l.Lifetime, minLifetime, maxLifetime)
	case l.MTU != 0 && (l.MTU < minMTU || l.MTU > maxMTU):
		return fmt.Errorf("lease of %v: MTU %d, want %d to %d", l.Address, l.MTU, minMTU, maxMTU)
	case len(l.DNS) > maxServers || len(l.NTP) > maxServers:
		return fmt.Errorf("lease of %v: more than %d servers of a kind", l.Address, maxServers)
	}
	for _, a := range append(append([]netip.Addr{}, l.DNS...), l.NTP...) {
		if !host(a) {
			return errors.New("lease of " + l.Address.String() + ": a server's address is not a host's")
		}
	}
	return nil
}

// host reports whether a is an IPv4 address that one machine can have in a
// network (RFC 1122, section 3.2.1.3).
func host(a netip.Addr) bool {
	if !a.Is4() {
		return false
	}
	b := a.As4()
	return b[0] != 0 && b[0] != 127 && b[0] < 224
}

// edge reports whether the address is the first or the last of its network.
func edge(p netip.Prefix) bool {
	b := p.Addr().As4()
	n := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	mask := uint32(1)<<(32-p.Bits()) - 1
	return n&mask == 0 || n&mask == mask
}
