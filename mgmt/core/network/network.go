// Package network runs the guest networks: a bridge each, the firewall between
// them, an address for every NIC, and the process that hands the addresses out.
package network

import (
	"cmp"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/ashlar-hv/ashlar/drivers/firewall"
	driver "github.com/ashlar-hv/ashlar/drivers/network"
	"github.com/ashlar-hv/ashlar/initramfs/layout"
	"github.com/ashlar-hv/ashlar/mgmt/core/folder"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

const (
	maxNetworks = 16
	maxNICs     = 8

	// The range and the default are those of the configuration (package config).
	minMTU, defaultMTU, maxMTU = 1280, 1500, 9000
)

// A Network is one guest network.
type Network struct {
	Name    string
	Bridge  string
	Subnet  netip.Prefix // masked
	Gateway netip.Addr   // the host's address: the first of Subnet
	MTU     uint16
}

// A Set is all guest networks.
type Set struct {
	networks []Network
	log      *slog.Logger
	leased   func(mac, address string)

	mu     sync.Mutex
	uplink string                // the interface to the outside, "" for none
	dns    []string              // what guests are told
	owners map[netip.Addr]string // address → guest that keeps it
	kept   map[string][]folder.Interface
	active map[string]folder.Interface // MAC → NIC of a running guest
	server *server                     // nil while there is none
}

// New makes bridges and firewall rules for the networks of info. What does not
// work is left out and told in problems, sentences for the operator. leased is
// called when a guest has taken its address.
func New(info layout.HostInfo, leased func(mac, address string), log *slog.Logger) (s *Set, problems []string) {
	s = &Set{log: log, leased: leased, uplink: info.Interface, dns: servers(info.DNS), owners: make(map[netip.Addr]string),
		kept: make(map[string][]folder.Interface), active: make(map[string]folder.Interface)}
	networks, problems := parse(info.Networks, info.Addresses)
	for _, n := range networks {
		if err := driver.EnsureBridge(n.Bridge, netip.PrefixFrom(n.Gateway, n.Subnet.Bits()), int(n.MTU)); err != nil {
			problems = append(problems, fmt.Sprintf("Network %s is not available: %v.", n.Name, err))
			continue
		}
		s.networks = append(s.networks, n)
	}
	if err := s.protect(info.Interface); err != nil {
		// Without the rules guests would reach the host: no networks then.
		problems = append(problems, fmt.Sprintf("Guest networks are not available: %v.", err))
		s.networks = nil
	}
	return s, problems
}

// servers are the DNS servers that guests can use.
func servers(list []string) (out []string) {
	for _, d := range list {
		if a, err := netip.ParseAddr(d); err == nil && a.Is4() && len(out) < 4 {
			out = append(out, a.String())
		}
	}
	return out
}

// Update takes over what init has found out since: the interface to the outside,
// and DNS servers, which guests learn of when they renew their addresses.
func (s *Set) Update(info layout.HostInfo) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if dns := servers(info.DNS); !slices.Equal(dns, s.dns) {
		s.dns = dns
		if s.server != nil { // the next one is told
			_ = s.server.conn.Close()
			s.server = nil
		}
	}
	for _, n := range s.networks {
		if err := n.apart(info.Addresses); err != nil {
			s.log.Error("a guest network stands in the host's way", "network", n.Name, "error", err)
		}
	}
	if info.Interface == s.uplink || len(s.networks) == 0 {
		return nil
	}
	if err := s.protect(info.Interface); err != nil {
		return fmt.Errorf("lead guest networks to %q: %w", info.Interface, err)
	}
	s.uplink = info.Interface
	return nil
}

// protect puts the firewall into force, and only then lets the host route.
func (s *Set) protect(uplink string) error {
	var rules []firewall.Network
	for _, n := range s.networks {
		rules = append(rules, firewall.Network{Bridge: n.Bridge, Subnet: n.Subnet})
	}
	if err := firewall.Apply(uplink, rules); err != nil {
		return err
	}
	if len(rules) == 0 || uplink == "" {
		return nil
	}
	return driver.EnableForwarding()
}

// parse checks the configured networks and names their bridges. host is the
// host's own addresses, as CIDRs.
func parse(configured []layout.Network, host []string) (networks []Network, problems []string) {
	for i, c := range configured {
		n, err := parseOne(c, i, networks)
		if err == nil {
			err = n.apart(host)
		}
		if err != nil {
			problems = append(problems, fmt.Sprintf("Network %q is left out: %v.", c.Name, err))
			continue
		}
		networks = append(networks, n)
	}
	return networks, problems
}

func parseOne(c layout.Network, index int, before []Network) (Network, error) {
	if len(before) >= maxNetworks {
		return Network{}, fmt.Errorf("a host has at most %d networks", maxNetworks)
	}
	subnet, err := netip.ParsePrefix(c.Subnet)
	if err != nil || !subnet.Addr().Is4() || subnet.Bits() < 8 || subnet.Bits() > 29 {
		return Network{}, fmt.Errorf("its subnet %q is not an IPv4 network with a prefix of 8 to 29 bits, such as 10.80.0.0/24", c.Subnet)
	}
	subnet = subnet.Masked()
	for _, b := range before {
		if b.Name == c.Name {
			return Network{}, fmt.Errorf("the name is taken")
		}
		if b.Subnet.Overlaps(subnet) {
			return Network{}, fmt.Errorf("its subnet %s overlaps that of network %s", subnet, b.Name)
		}
	}
	mtu := cmp.Or(c.MTU, defaultMTU)
	if mtu < minMTU || mtu > maxMTU {
		return Network{}, fmt.Errorf("its MTU is %d, want %d to %d", mtu, minMTU, maxMTU)
	}
	return Network{Name: c.Name, MTU: uint16(mtu), Bridge: fmt.Sprintf("ashlar%d", index), Subnet: subnet, Gateway: subnet.Addr().Next()}, nil
}

// apart refuses a network that would take the host's own away from it: its
// bridge is routed to like the interface that the operator comes in by.
func (n Network) apart(host []string) error {
	for _, h := range host {
		if p, err := netip.ParsePrefix(h); err == nil && p.Masked().Overlaps(n.Subnet) {
			return fmt.Errorf("its subnet %s overlaps %s, which the host itself is in: choose another", n.Subnet, p.Masked())
		}
	}
	return nil
}

// Names returns the names of the networks that work.
func (s *Set) Names() []string {
	var names []string
	for _, n := range s.networks {
		names = append(names, n.Name)
	}
	return names
}

// Uplink are the networks that reach the outside through the interface called name.
func (s *Set) Uplink(name string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name == "" || name != s.uplink {
		return nil
	}
	return s.Names()
}

func (s *Set) byName(name string) (int, bool) {
	for i, n := range s.networks {
		if n.Name == name {
			return i, true
		}
	}
	return 0, false
}

// MTU returns that of a network, 0 where there is none of this name.
func (s *Set) MTU(network string) uint16 {
	i, ok := s.byName(network)
	if !ok {
		return 0
	}
	return s.networks[i].MTU
}

// OpenTap makes the tap name on a network, with so many queues.
func (s *Set) OpenTap(name, network string, queues int) ([]*os.File, error) {
	i, ok := s.byName(network)
	if !ok {
		return nil, fmt.Errorf("open tap %s: there is no network %q", name, network)
	}
	return driver.OpenTap(name, s.networks[i].Bridge, queues)
}

// RemoveTap removes a tap, where its owner's end has not done so.
func (s *Set) RemoveTap(name string) error { return driver.RemoveLink(name) }

// Check validates the NICs of a guest to be started, in their JSON form.
func (s *Set) Check(nics []hostcall.NIC) error {
	invalid := func(field, format string, args ...any) error {
		return &hostcall.Error{Code: hostcall.InvalidArgument, Field: field, Message: fmt.Sprintf(format, args...)}
	}
	if len(nics) > maxNICs {
		return invalid("guest.nics", "A guest has at most %d NICs, not %d.", maxNICs, len(nics))
	}
	seen := make(map[string]bool)
	for i, n := range nics {
		if _, ok := s.byName(n.Network); !ok {
			return invalid(fmt.Sprintf("guest.nics[%d].network", i), "There is no network %q: the host has %v.", n.Network, s.Names())
		}
		mac, err := net.ParseMAC(n.MAC)
		if err != nil || len(mac) != 6 || mac.String() != n.MAC || mac[0]&1 != 0 || n.MAC == "00:00:00:00:00:00" {
			return invalid(fmt.Sprintf("guest.nics[%d].mac", i), "%q is not the address of one NIC, such as 02:00:00:aa:bb:cc.", n.MAC)
		}
		if seen[n.MAC] {
			return invalid(fmt.Sprintf("guest.nics[%d].mac", i), "Two NICs have the address %s.", n.MAC)
		}
		seen[n.MAC] = true
	}
	return nil
}
