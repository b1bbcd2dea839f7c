package pci

import (
	"fmt"
	"io/fs"
)

// Uses are what the host does with the device at an address.
func (inv *Inventory) Uses(address string) []Use { return inv.uses[address] }

// Path is Device.Path of the one at an address, without reading its configuration space.
func (inv *Inventory) Path(address string) (string, error) {
	chain, err := inv.chain(address)
	if err != nil {
		return "", err
	}
	return path(inv.root, chain), nil
}

// Locate is the address of the device with that Path. That there is none is an error that
// wraps fs.ErrNotExist.
func (inv *Inventory) Locate(where string) (address string, err error) {
	for _, a := range inv.addresses {
		if p, err := inv.Path(a); err == nil && p == where {
			return a, nil
		}
	}
	return "", fmt.Errorf("find PCI device at %s: %w", where, fs.ErrNotExist)
}
