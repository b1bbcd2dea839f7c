package network

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/ashlar-hv/ashlar/mgmt/core/folder"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// Keep records the addresses that the guest id has from an earlier time. Those
// that no longer fit their network are let go.
func (s *Set) Keep(id string, nics []folder.Interface) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keep(id, slices.DeleteFunc(slices.Clone(nics), func(n folder.Interface) bool { return !s.fits(id, n) }))
}

// keep makes nics the addresses of id. The caller holds s.mu.
func (s *Set) keep(id string, nics []folder.Interface) {
	for a, owner := range s.owners {
		if owner == id {
			delete(s.owners, a)
		}
	}
	delete(s.kept, id)
	if len(nics) == 0 {
		return
	}
	s.kept[id] = nics
	for _, n := range nics {
		if a, err := netip.ParseAddr(n.Address); err == nil {
			s.owners[a] = id
		}
	}
}

// fits reports whether n can be an address of id. The caller holds s.mu.
func (s *Set) fits(id string, n folder.Interface) bool {
	i, ok := s.byName(n.Network)
	a, err := netip.ParseAddr(n.Address)
	if !ok || err != nil || !s.networks[i].usable(a) {
		return false
	}
	owner, taken := s.owners[a]
	return !taken || owner == id
}

// usable reports whether a guest can have address a.
func (n Network) usable(a netip.Addr) bool {
	// Neither the network's own, the host's nor the broadcast address.
	return n.Subnet.Contains(a) && a != n.Subnet.Addr() && a != n.Gateway && n.Subnet.Contains(a.Next())
}

// Assign gives each NIC of the guest id its address: the one it had, or the
// lowest that is free.
func (s *Set) Assign(id string, nics []hostcall.NIC) ([]folder.Interface, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []folder.Interface
	for i, n := range nics {
		had := slices.IndexFunc(s.kept[id], func(k folder.Interface) bool { return k.MAC == n.MAC && k.Network == n.Network })
		if had >= 0 {
			out = append(out, s.kept[id][had])
			continue
		}
		index, ok := s.byName(n.Network)
		if !ok {
			return nil, fmt.Errorf("assign address: there is no network %q", n.Network)
		}
		a, ok := s.free(s.networks[index], out)
		if !ok {
			return nil, &hostcall.Error{Code: hostcall.ResourceExhausted, Field: fmt.Sprintf("guest.nics[%d].network", i),
				Message: fmt.Sprintf("Network %s has no free address left in %s: delete guests, or configure a larger subnet.",
					n.Network, s.networks[index].Subnet)}
		}
		out = append(out, folder.Interface{MAC: n.MAC, Network: n.Network, Address: a.String()})
	}
	s.keep(id, out)
	return out, nil
}

// free finds an address of n that nobody has. The caller holds s.mu.
func (s *Set) free(n Network, besides []folder.Interface) (netip.Addr, bool) {
	for a := n.Gateway.Next(); n.usable(a); a = a.Next() {
		_, taken := s.owners[a]
		if !taken && !slices.ContainsFunc(besides, func(i folder.Interface) bool { return i.Address == a.String() }) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// Release lets go of the addresses of the guest id.
func (s *Set) Release(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keep(id, nil)
}
