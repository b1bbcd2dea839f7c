package pci

import (
	"path/filepath"
	"slices"
	"strings"
)

// maxLayers bounds how far use is followed from what lies on top, such as an encrypted
// disk or a VLAN, to what is below.
const maxLayers = 8

// findUses finds what the host uses.
func (inv *Inventory) findUses(h Host) {
	if h.DataDisk != "" {
		inv.useDisk(filepath.Base(h.DataDisk), DataDisk, maxLayers)
	}
	for _, name := range names(inv.root, "class/block") {
		if h.BootLabel != "" && partitionName(inv.root, name) == h.BootLabel {
			inv.useDisk(name, BootDisk, maxLayers)
		}
	}
	if h.Interface != "" {
		inv.useInterface(h.Interface, maxLayers)
	}
}

// Uses are what the host does with the device at an address.
func (inv *Inventory) Uses(address string) []Use { return inv.uses[address] }

func (inv *Inventory) use(address string, u Use) {
	if !slices.Contains(inv.uses[address], u) {
		inv.uses[address] = append(inv.uses[address], u)
	}
}

// useDisk notes the use of a disk, or of those that it is made of.
func (inv *Inventory) useDisk(name string, u Use, layers int) {
	if at := owner(inv.root, "class/block", name); at != "" {
		inv.use(at, u)
		return
	}
	for _, below := range names(inv.root, "class/block", name, "slaves") {
		if layers > 0 {
			inv.useDisk(below, u, layers-1)
		}
	}
}

// partitionName is the label of a partition.
func partitionName(root, name string) string {
	for line := range strings.Lines(text(root, "class/block", name, "uevent")) {
		if label, ok := strings.CutPrefix(strings.TrimSpace(line), "PARTNAME="); ok {
			return label
		}
	}
	return ""
}

// useInterface notes the use of a network interface, or of those that it is made of.
func (inv *Inventory) useInterface(name string, layers int) {
	if at := owner(inv.root, "class/net", name); at != "" {
		inv.use(at, ManagementNIC)
		if p := physical(inv.root, at); p != nil {
			inv.use(p.Address, ManagementParent)
		}
		return
	}
	for _, entry := range names(inv.root, "class/net", name) {
		if below, ok := strings.CutPrefix(entry, "lower_"); ok && layers > 0 {
			inv.useInterface(below, layers-1)
		}
	}
}
