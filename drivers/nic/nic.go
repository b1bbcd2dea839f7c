// Package nic finds the host's network interfaces and sets one up for the
// management of the host: links, addresses and routes by rtnetlink(7), what
// they are by sysfs (Documentation/ABI/testing/sysfs-class-net).
package nic

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// arphrdEther is ARPHRD_ETHER, the hardware type of Ethernet (RFC 826).
const arphrdEther = "1"

// An Interface is a physical Ethernet port of the host.
type Interface struct {
	// Name is the kernel's, "eth0".
	Name  string
	Index int
	MAC   net.HardwareAddr
	// Carrier: something is at the other end of the cable. It is only known of
	// an interface that is up.
	Carrier bool
	// Functions is how many virtual functions it has: they work while it is switched on.
	Functions int
}

// List returns the physical Ethernet interfaces, in the order in which the
// kernel found them. sysfs is "/sys". Virtual functions are left out: they are
// for guests.
func List(sysfs string) ([]Interface, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	var list []Interface
	for _, l := range links {
		a := l.Attrs()
		if !physical(sysfs, a.Name) {
			continue
		}
		list = append(list, Interface{
			Name: a.Name, Index: a.Index, MAC: a.HardwareAddr,
			Carrier: attribute(sysfs, a.Name, "carrier") == "1", Functions: number(sysfs, a.Name, "device/sriov_numvfs", 0),
		})
	}
	slices.SortFunc(list, func(a, b Interface) int { return a.Index - b.Index })
	return list, nil
}

// physical reports whether an interface is a port of Ethernet hardware.
func physical(sysfs, name string) bool {
	device := filepath.Join(sysfs, "class/net", name, "device")
	if _, err := os.Stat(device); err != nil {
		return false
	}
	if _, err := os.Stat(filepath.Join(device, "physfn")); err == nil {
		return false
	}
	return attribute(sysfs, name, "type") == arphrdEther
}

func attribute(sysfs, name, file string) string {
	b, err := os.ReadFile(filepath.Join(sysfs, "class/net", name, file))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// Choose returns the interface that want names: "auto" (the first with a
// carrier), a name, or a MAC address.
func Choose(list []Interface, want string) (Interface, bool) {
	mac, err := net.ParseMAC(want)
	for _, i := range list {
		switch {
		case want == "auto":
			if i.Carrier {
				return i, true
			}
		case i.Name == want, err == nil && slices.Equal(mac, i.MAC):
			return i, true
		}
	}
	return Interface{}, false
}

// Up switches the interface called name on; Down off.
func Up(name string) error   { return with(name, "switch on", netlink.LinkSetUp) }
func Down(name string) error { return with(name, "switch off", netlink.LinkSetDown) }

func with(name, what string, do func(netlink.Link) error) error {
	l, err := netlink.LinkByName(name)
	if err == nil {
		err = do(l)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", what, name, err)
	}
	return nil
}
