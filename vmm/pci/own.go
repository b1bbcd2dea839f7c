package pci

import "fmt"

// SetWritable lets the guest write the bits of mask at off: registers of the function's own,
// in the part of configuration space that capabilities would be in, for a function that has
// none there.
func (c *Config) SetWritable(off int, mask ...byte) error {
	if off < c.nextCap || off+len(mask) > headerSpace {
		return fmt.Errorf("%d registers at %#x: %w", len(mask), off, ErrConfigSpace)
	}
	copy(c.mask[off:], mask)
	return nil
}
