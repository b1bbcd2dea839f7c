package nic

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/drivers/sriov"
)

// A Port is an Interface with all that there is to tell of it.
type Port struct {
	Interface
	Up bool // switched on
	// PermanentMAC is what the card was made with; nil where the driver does not tell.
	PermanentMAC net.HardwareAddr
	MTU          int // bytes
	// SpeedMbps and FullDuplex are what both ends have agreed on: 0 and false without a
	// carrier, or where the driver does not tell.
	SpeedMbps  int
	FullDuplex bool
	Driver     string
	Device     string // PCI address; "" where it is none
	Node       int    // NUMA node, -1 where the firmware tells none
	// TotalVFs is how many virtual functions there may be; VFs are the settings of those
	// that there are.
	TotalVFs int
	VFs      []sriov.Settings
}

// Ports returns the physical Ethernet interfaces with all that there is to tell of them, as
// List has them.
func Ports(sysfs string) ([]Port, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	var out []Port
	for _, l := range links {
		if a := l.Attrs(); physical(sysfs, a.Name) {
			out = append(out, portOf(sysfs, a))
		}
	}
	slices.SortFunc(out, func(a, b Port) int { return a.Index - b.Index })
	return out, nil
}

func portOf(sysfs string, a *netlink.LinkAttrs) Port {
	p := Port{
		Interface: Interface{Name: a.Name, Index: a.Index, MAC: a.HardwareAddr, Carrier: a.RawFlags&unix.IFF_LOWER_UP != 0,
			Functions: number(sysfs, a.Name, "device/sriov_numvfs", 0)},
		Up: a.RawFlags&unix.IFF_UP != 0, PermanentMAC: a.PermHWAddr, MTU: a.MTU,
		Node: number(sysfs, a.Name, "device/numa_node", -1), TotalVFs: number(sysfs, a.Name, "device/sriov_totalvfs", 0),
		Driver: target(sysfs, a.Name, "device/driver"), VFs: sriov.Of(a),
	}
	if a.ParentDevBus == "pci" || target(sysfs, a.Name, "device/subsystem") == "pci" {
		p.Device = target(sysfs, a.Name, "device")
	}
	if p.Carrier {
		p.SpeedMbps = max(number(sysfs, a.Name, "speed", 0), 0)
		p.FullDuplex = attribute(sysfs, a.Name, "duplex") == "full"
	}
	return p
}

// number is that in a file of an interface, otherwise where there is none.
func number(sysfs, name, file string, otherwise int) int {
	n, err := strconv.ParseInt(attribute(sysfs, name, file), 10, 32)
	if err != nil {
		return otherwise
	}
	return int(n)
}

// target is the name of what a link of an interface leads to; "" where there is none.
func target(sysfs, name, file string) string {
	to, err := os.Readlink(filepath.Join(sysfs, "class/net", name, file))
	if err != nil {
		return ""
	}
	return filepath.Base(to)
}
