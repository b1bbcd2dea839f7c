// Package pci tells what PCI devices the host has, and what of them matters to whoever
// wants to give one to a guest. It reads sysfs (the kernel's Documentation/ABI/testing/
// sysfs-bus-pci and Documentation/PCI/sysfs-pci.rst) and, through it, configuration space
// (PCI Express Base Specification, chapter 7).
//
// Everybody may read all of it but configuration space past its first 64 bytes: that
// takes CAP_SYS_ADMIN in the first user namespace. Without it a Device has neither
// NoACS nor SerialNumber, and says so by Extended.
package pci

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// sysfs is where it is mounted.
const sysfs = "/sys"

// devices is the folder with a link for each device, below sysfs.
const devices = "bus/pci/devices"

// A Device is a PCI function.
type Device struct {
	// Address is `0000:01:00.0`: domain, bus, device and function. Buses are numbered
	// anew when cards come or go.
	Address string
	// Path is where the device is plugged in, with no number of a bus but that of the
	// root: `0000:00-1c.0-00.0`, and the place among them for a virtual function:
	// `0000:00-1c.0-00.0-vf3`. It stays when other cards come or go.
	Path string
	// Parent is the bridge that it is behind; "" for one on a root bus.
	Parent string

	Vendor, Device, SubsystemVendor, SubsystemDevice int
	Class                                            int // 24 bits
	Revision                                         int

	Driver string // "" where it has none
	Node   int    // NUMA node, -1 where the firmware tells none
	Group  int    // IOMMU group, -1 where there is no IOMMU

	// ResetMethods are the ways to reset it alone, the best first; none where it
	// cannot be.
	ResetMethods []string
	SRIOV        *SRIOV    // nil where it has no virtual functions
	Physical     *Physical // of a virtual function
	BARs         []BAR     // those that there are
	Link         *Link     // nil where it has none

	// Extended is whether all of configuration space could be read.
	Extended bool
	// NoACS are the addresses of the functions on its way to the root, itself first,
	// that let others be reached around the IOMMU: bridges and functions of devices
	// with several that do not have ACS enabled (section 6.12). The kernel's groups
	// count too: it knows devices that isolate without telling.
	NoACS []string
	// SerialNumber is that of the capability Device Serial Number (section 7.9.3),
	// as 16 hexadecimal digits; functions of one device have the same.
	SerialNumber string

	Interfaces []Interface // by name, at most maxInterfaces
	NVMe       string      // serial number of the NVMe controller, while its driver has it
	Uses       []Use       // what the host does with it
}

// SRIOV is the capability Single Root I/O Virtualization (section 9.3.3).
type SRIOV struct{ Total, Enabled int }

// Physical is whose virtual function it is, and which of them, from 0 on.
type Physical struct {
	Address string
	Index   int
}

// A BAR is a window into the device. Size in bytes.
type BAR struct {
	Index            int
	Bytes            int64
	IO, Wide, Cached bool // in I/O space; 64-bit; prefetchable
}

// A Link is how the device is connected. Speeds are in million transfers a second and
// lane; 0 is unknown, as it is of a link that is down.
type Link struct{ Speed, Width, MaxSpeed, MaxWidth int }

// An Interface is a network interface of the host on the device.
type Interface struct {
	Name string
	MAC  string // its own, "" where it was given one
}

// A Use is what the host needs a device for.
type Use string

// Uses.
const (
	BootDisk      Use = "boot-disk"      // the host has booted from a disk behind it
	DataDisk      Use = "data-disk"      // the data disk is behind it
	ManagementNIC Use = "management-nic" // the API is reached through it
	// ManagementParent is a physical function with the management NIC among its
	// virtual ones.
	ManagementParent Use = "management-parent"
)

// A Host says what the host itself uses.
type Host struct {
	// BootLabel is the label of a partition that only disks to boot from have.
	BootLabel string
	DataDisk  string // device node, "" where there is none
	Interface string // of the host's management
}

// An Inventory is the devices that there are.
type Inventory struct {
	root      string
	addresses []string
	uses      map[string][]Use
	nets      map[string][]string // names of network interfaces by address
	nvmes     map[string]string   // names of NVMe controllers by address
}

// Find finds the devices of this machine.
func Find(h Host) (*Inventory, error) { return find(sysfs, h) }

func find(root string, h Host) (*Inventory, error) {
	inv := &Inventory{root: root, uses: map[string][]Use{}, nets: map[string][]string{}, nvmes: map[string]string{}}
	entries, err := os.ReadDir(filepath.Join(root, devices))
	if err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("find PCI devices: %w", err)
	}
	for _, e := range entries {
		if isAddress(e.Name()) {
			inv.addresses = append(inv.addresses, e.Name())
		}
	}
	slices.SortFunc(inv.addresses, compare)
	for _, name := range names(root, "class/net") {
		if at := owner(root, "class/net", name); at != "" {
			inv.nets[at] = append(inv.nets[at], name)
		}
	}
	for _, name := range names(root, "class/nvme") {
		if at := owner(root, "class/nvme", name); at != "" {
			inv.nvmes[at] = name
		}
	}
	inv.findUses(h)
	return inv, nil
}

// Addresses are those of all devices, in ascending order.
func (inv *Inventory) Addresses() []string { return inv.addresses }

// After are the addresses after one, in ascending order; all after "".
func (inv *Inventory) After(address string) []string {
	if address == "" {
		return inv.addresses
	}
	i, found := slices.BinarySearchFunc(inv.addresses, address, compare)
	if found {
		i++
	}
	return inv.addresses[i:]
}

var addressForm = regexp.MustCompile(`^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-1][0-9a-f]\.[0-7]$`)

func isAddress(s string) bool { return addressForm.MatchString(s) }

// compare orders addresses: domains may have more than four digits.
func compare(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

// names are what is in a folder below root; nothing where there is no such folder.
func names(root string, path ...string) []string {
	entries, err := os.ReadDir(filepath.Join(root, filepath.Join(path...)))
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// owner is the address of the device that something below root belongs to: the last on
// its path. "" where it belongs to none.
func owner(root string, path ...string) string {
	real, err := filepath.EvalSymlinks(filepath.Join(root, filepath.Join(path...)))
	if err != nil {
		return ""
	}
	parts := strings.Split(real, string(filepath.Separator))
	for _, p := range slices.Backward(parts) {
		if isAddress(p) {
			return p
		}
	}
	return ""
}
