package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/ashlar-hv/ashlar/initramfs/layout"
)

var (
	hostnameLabel = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)
	vulnerability = regexp.MustCompile(`^[a-z0-9_]{1,64}$`)
	networkName   = regexp.MustCompile(`^[a-z][a-z0-9-]{0,10}$`)
)

// checkHostname follows RFC 1123 section 2.1 within the kernel's 64 bytes.
func checkHostname(s string) error {
	if len(s) > 63 {
		return fmt.Errorf("is %d bytes long, want 63 at most", len(s))
	}
	for label := range strings.SplitSeq(s, ".") {
		if !hostnameLabel.MatchString(label) {
			return fmt.Errorf("%q is no host name: want letters, digits and \"-\", in parts divided by \".\"", clip(s))
		}
	}
	return nil
}

func checkInterface(s string) error {
	if s == "auto" {
		return nil
	}
	if strings.Contains(s, ":") {
		if m, err := net.ParseMAC(s); err != nil || len(m) != 6 {
			return fmt.Errorf("%q is no MAC address: want aa:bb:cc:dd:ee:ff", clip(s))
		}
		return nil
	}
	if len(s) == 0 || len(s) > 15 || s == "." || s == ".." || strings.ContainsFunc(s, notInName) {
		return fmt.Errorf("%q is no interface: want \"auto\", a name of 1 to 15 bytes or a MAC address", clip(s))
	}
	return nil
}

func notInName(r rune) bool { return r <= ' ' || r == '/' || r >= 0x7f }

func checkAddress(s string) error {
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return fmt.Errorf("%q is no address with a prefix: want one like 192.0.2.10/24", clip(s))
	case !usable(p.Addr()):
		return fmt.Errorf("%q is not an address that a host can have", s)
	case p.Addr().Is4() && p.Bits() < 31 && (p.Addr() == p.Masked().Addr() || p.Addr() == lastAddress(p)):
		return fmt.Errorf("%q is the network's or the broadcast address, not a host's", s)
	}
	return nil
}

// usable reports whether a is an address that one host can have and be reached at.
func usable(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && !a.Is4In6() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// lastAddress is the last address of an IPv4 prefix.
func lastAddress(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		a[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(a)
}

func checkIP(s string) error {
	if a, err := netip.ParseAddr(s); err != nil || !usable(a) || a.Zone() != "" {
		return fmt.Errorf("%q is no address of a host: want one like 192.0.2.1 or 2001:db8::1", clip(s))
	}
	return nil
}

// checkGateway wants a router that can be reached from address, which may be
// wrong itself: that has been reported then.
func checkGateway(s, address string) error {
	if err := checkIP(s); err != nil {
		return err
	}
	p, err := netip.ParsePrefix(address)
	if err != nil {
		return nil
	}
	a, _ := netip.ParseAddr(s)
	if a == p.Addr() {
		return fmt.Errorf("%s is the host's own address", s)
	}
	if !p.Contains(a) && !(a.Is6() && p.Addr().Is6() && a.IsLinkLocalUnicast()) {
		return fmt.Errorf("%s is not within %s", s, p.Masked())
	}
	return nil
}

// checkServer takes an address or a host name.
func checkServer(s string) error {
	if checkIP(s) == nil {
		return nil
	}
	if err := checkHostname(s); err != nil || strings.Trim(s, "0123456789.") == "" {
		return fmt.Errorf("%q is neither a host name nor an address", clip(s))
	}
	return nil
}

// checkWord takes what disks give as serial number and model: printable, one line.
func checkWord(s string) error {
	switch {
	case s == "" || strings.TrimSpace(s) != s:
		return errors.New("is empty or has blanks at its ends")
	case len(s) > 128:
		return fmt.Errorf("is %d bytes long, want 128 at most", len(s))
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("%q has characters that cannot be printed", clip(s))
	}
	return nil
}

// checkRequired takes the name of a check, or of one of the processor's vulnerabilities.
func checkRequired(s string) error {
	kind, part, one := strings.Cut(s, "/")
	if !slices.Contains(layout.Checks(), kind) || one && (kind != layout.CheckVulnerabilities || !vulnerability.MatchString(part)) {
		return fmt.Errorf("%q is no check of the host: want one of %s, or %s/NAME", clip(s), strings.Join(layout.Checks(), ", "), layout.CheckVulnerabilities)
	}
	return nil
}

func checkDevice(s string) error {
	if !strings.HasPrefix(s, "/dev/") || path.Clean(s) != s || len(s) > 255 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return fmt.Errorf("%q is no device node: want one like /dev/nvme0n1", clip(s))
	}
	return nil
}

func checkSubnet(s string) error {
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil || !p.Addr().Is4():
		return fmt.Errorf("%q is no IPv4 network: want one like 10.88.0.0/24", clip(s))
	case p.Bits() < 8 || p.Bits() > 29:
		return fmt.Errorf("%q has a prefix of %d bits, want 8 to 29", s, p.Bits())
	case p.Masked() != p:
		return fmt.Errorf("%q has bits behind its prefix: write %s", s, p.Masked())
	case !usable(p.Addr()) || p.Addr().IsLinkLocalUnicast() || p.Addr().As4()[0] == 0 || p.Addr().As4()[0] >= 240:
		return fmt.Errorf("%q is not a network that guests can have", s)
	}
	return nil
}

// apart checks a fixed address against the guest networks that there are when
// the document names none.
func (r *reader) apart(n *yaml.Node, s *Static, networks []GuestNetwork) {
	p, err := netip.ParsePrefix(s.Address)
	if err != nil {
		return // reported already
	}
	for _, g := range networks {
		if q, err := netip.ParsePrefix(g.Subnet); err == nil && q.Overlaps(p) {
			r.fail(n, "network.static.address", "%s overlaps with %s, the network that guests have when guestNetworks is left out: write guestNetworks with another", p.Masked(), q)
		}
	}
}

func (r *reader) guestNetworks(n *yaml.Node, static *Static) []GuestNetwork {
	out := []GuestNetwork{}
	names := map[string]bool{}
	taken := map[netip.Prefix]string{}
	if static != nil {
		if p, err := netip.ParsePrefix(static.Address); err == nil {
			taken[p.Masked()] = "network.static.address"
		}
	}
	for i, entry := range r.list(n, "guestNetworks", MaxGuestNetworks) {
		path := index("guestNetworks", i)
		o := r.object(entry, path, "name", "subnet", "mtu")
		g := GuestNetwork{Name: r.text(o.require("name", "guests name the network by it"), path+".name", func(s string) error {
			if !networkName.MatchString(s) {
				return fmt.Errorf("%q is no name: want 1 to 11 lower-case letters, digits and \"-\", a letter first", clip(s))
			}
			if names[s] {
				return fmt.Errorf("%q is the name of another network above", s)
			}
			names[s] = true
			return nil
		})}
		g.Subnet = r.text(o.require("subnet", "write one like 10.88.0.0/24"), path+".subnet", func(s string) error {
			if err := checkSubnet(s); err != nil {
				return err
			}
			p := netip.MustParsePrefix(s)
			for q, whose := range taken {
				if p.Overlaps(q) {
					return fmt.Errorf("%s overlaps with %s of %s", p, q, whose)
				}
			}
			taken[p] = path
			return nil
		})
		if m := o.fields["mtu"]; m != nil {
			g.MTU = r.integer(m, path+".mtu", MinMTU, MaxMTU)
		}
		out = append(out, g)
	}
	return out
}
