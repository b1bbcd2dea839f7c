package pci

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A Member is a device of an IOMMU group, as far as it matters to the others of it.
type Member struct {
	Address string
	Bridge  bool // of any kind: no driver of its has it access memory by itself
	Driver  string
	Uses    []Use
}

// Group are the devices of an IOMMU group, by address.
func (inv *Inventory) Group(n int) []Member {
	var out []Member
	for _, address := range inv.addresses {
		dir := filepath.Join(inv.root, devices, address)
		if link(dir, "iommu_group") == strconv.Itoa(n) {
			out = append(out, Member{address, number(dir, "class", 0)>>16 == classBridge, link(dir, "driver"), inv.uses[address]})
		}
	}
	return out
}

// Resolve is the address of the device with a name by its path or serial number (Names). It
// fails where there is none, with an error that wraps fs.ErrNotExist, and where there are several.
func (inv *Inventory) Resolve(name string) (string, error) {
	found := ""
	for _, address := range inv.addresses {
		if !inv.isCalled(address, name) {
			continue
		}
		if found != "" {
			return "", fmt.Errorf("find PCI device %s: it is the name of %s and of %s", name, found, address)
		}
		found = address
	}
	if found == "" {
		return "", fmt.Errorf("find PCI device %s: %w", name, fs.ErrNotExist)
	}
	return found, nil
}

func (inv *Inventory) isCalled(address, name string) bool {
	if where, ok := strings.CutPrefix(name, "path-"); ok {
		chain, err := inv.chain(address)
		return err == nil && path(inv.root, chain) == where
	}
	d, err := inv.Read(address)
	return err == nil && slices.Contains(d.Names(), name)
}
