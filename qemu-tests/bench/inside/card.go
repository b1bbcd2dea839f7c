package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	cards "github.com/ashlar-hv/ashlar/drivers/nic"
	"github.com/ashlar-hv/ashlar/drivers/sriov"
	"github.com/ashlar-hv/ashlar/drivers/vfio"
)

// The ways to a card or a disk of the host's that are compared: the guest has it, or a virtual function
// of it; the guest has a virtio device and the host the card or disk; the host uses it itself.
var (
	byVirtio = side{"virtio", startAshlar}
	byHost   = side{name: "host"}
	ways     = []side{ashlar, byVirtio, byHost}
)

// Addresses in the network of the card, one for each way.
const (
	cardHostAddress   = "10.0.3.40/24"
	cardVirtioAddress = "10.0.3.41/24"
	cardVFAddress     = "10.0.3.42/24"
	// cardVFMAC is another one than guestMAC: the card knows by it what is for the function.
	cardVFMAC = "52:54:00:be:0c:02"
)

// A card is a network card with SR-IOV: its name, and the PCI address of its physical function.
type card struct{ name, address string }

// String is the card as setCard takes it.
func (c card) String() string { return c.name + "=" + c.address }

// setCard is for the option -card.
func (c *card) setCard(text string) error {
	var ok bool
	if c.name, c.address, ok = strings.Cut(text, "="); !ok {
		return errors.New("want NAME=ADDRESS")
	}
	return nil
}

// findCard finds the first network card with SR-IOV, in the network namespace of the host.
func findCard() (card, error) {
	ports, err := cards.Ports("/sys")
	if err != nil {
		return card{}, err
	}
	for _, p := range ports {
		if p.TotalVFs > 0 && p.Device != "" {
			return card{p.Name, p.Device}, nil
		}
	}
	return card{}, errors.New("the host has no network card with SR-IOV")
}

// lend gives the card to the network namespace of a process. It comes back when the namespace ends.
func (c card) lend(pid int) error {
	l, err := netlink.LinkByName(c.name)
	if err == nil {
		err = netlink.LinkSetNsPid(l, pid)
	}
	if err != nil {
		return fmt.Errorf("lend %s: %w", c.name, err)
	}
	return nil
}

// lendLimit is far more than the card takes to come and to have a carrier.
const lendLimit = 30 * time.Second

// withFunction waits for the card, and makes a virtual function with an address of its own: its
// PCI address.
func (c card) withFunction() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), lendLimit)
	defer cancel()
	for {
		if _, err := netlink.LinkByName(c.name); err == nil {
			break
		} else if ctx.Err() != nil {
			return "", fmt.Errorf("the card %s has not come: %w", c.name, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	carrier, err := sriov.Ready(ctx, c.name)
	if err != nil {
		return "", err
	}
	if !carrier {
		return "", fmt.Errorf("%s has no carrier", c.name)
	}
	if err := sriov.Create(c.address, 1); err != nil {
		return "", err
	}
	vfs, err := sriov.Functions("/sys", c.address)
	if err != nil {
		return "", err
	}
	mac, err := net.ParseMAC(cardVFMAC)
	if err == nil {
		err = sriov.Apply(c.name, 0, sriov.Settings{MAC: mac, SpoofCheck: true})
	}
	if err == nil {
		err = vfio.Take(vfs[0])
	}
	return vfs[0], err
}

// route has the host forward packets between the card, which it uses, and a guest with an address: each
// side takes the host for the other (proxy_arp in Documentation/networking/ip-sysctl.rst). A bridge would
// not do: QEMU's igb receives nothing for other addresses once it has virtual functions.
func (c card) route(n *nic, address string) error {
	for _, name := range []string{"ip_forward", "conf/" + c.name + "/proxy_arp", "conf/" + tapName + "/proxy_arp"} {
		if err := os.WriteFile(filepath.Join("/proc/sys/net/ipv4", name), []byte("1"), 0); err != nil {
			return fmt.Errorf("forward packets: %w", err)
		}
	}
	ip, _, err := net.ParseCIDR(address)
	if err != nil {
		return err
	}
	to := &net.IPNet{IP: ip, Mask: net.CIDRMask(32, 32)}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: n.link.Attrs().Index, Dst: to, Scope: netlink.SCOPE_LINK}); err != nil {
		return fmt.Errorf("route to the guest: %w", err)
	}
	return nil
}

// use gives the card an address of the host's, until the function that it returns is called.
func (c card) use(address string) (func(), error) {
	l, err := netlink.LinkByName(c.name)
	if err != nil {
		return nil, err
	}
	addr, err := netlink.ParseAddr(address)
	if err != nil {
		return nil, err
	}
	if err := netlink.AddrAdd(l, addr); err != nil {
		return nil, fmt.Errorf("give %s its address: %w", c.name, err)
	}
	return func() { _ = netlink.AddrDel(l, addr) }, nil
}

// cardLoads are those of a network, with a server behind the card's wire.
func cardLoads(to string) []load {
	rename := strings.NewReplacer("guest to host", "to the wire", "host to guest", "from the wire", "exits", "exits of a card's guest")
	loads := networkLoads(to)
	for i := range loads {
		loads[i].name = "card: " + rename.Replace(loads[i].name)
		loads[i].perExit = rename.Replace(loads[i].perExit)
		loads[i].mayFail = true // emulated cards have faults
	}
	slices.Reverse(loads) // a stream that stands does not keep the others from being measured
	return loads
}

// throughCard measures a network card: a virtual function of it in a guest, virtio-net behind
// it, and the host itself, against a server behind its wire.
func (b *bench) throughCard() error {
	vf, err := b.card.withFunction()
	if err != nil {
		return err
	}
	defer func() { _ = sriov.Create(b.card.address, 0) }()
	loads := cardLoads(b.outside)
	return b.inOrder("a network card's load", b.rounds, ways, func(s side, round int) error {
		sp := spec{cpus: 1, memoryMiB: 256, initramfs: "load.cpio"}
		switch s.name {
		case byHost.name:
			stop, err := b.card.use(cardHostAddress)
			if err != nil {
				return err
			}
			defer stop()
			return b.onHost(s, "", round, loads)
		case byVirtio.name:
			stop, err := b.card.use(cardHostAddress)
			if err != nil {
				return err
			}
			defer stop()
			if sp.nic, err = newNIC(""); err != nil {
				return err
			}
			defer sp.nic.close()
			if err := b.card.route(sp.nic, cardVirtioAddress); err != nil {
				return err
			}
			sp.cmdline = "bench.ip=" + cardVirtioAddress
		default:
			sp.device, sp.cmdline = vf, "bench.ip="+cardVFAddress
		}
		return b.underLoad(s, sp, round, loads)
	})
}
