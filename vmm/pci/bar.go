package pci

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// A BAR is a memory BAR that a function asks for.
type BAR struct {
	Size     uint64 // a power of two, at least 4 KiB
	Is64     bool   // takes two BAR registers
	Prefetch bool
}

// barInfo is one BAR register as the Config knows it.
type barInfo struct {
	BAR
	used bool
	high bool // the upper half of the one before
}

// barRegister is where BAR i is in configuration space.
func barRegister(i int) int {
	if i == ROM {
		return regROM
	}
	return regBAR + 4*i
}

// AddBAR gives the function BAR number i (0 to 5, or ROM, which has 32 bits).
func (c *Config) AddBAR(i int, b BAR) error {
	last := i
	if b.Is64 {
		last++
	}
	ok := i >= 0 && (last < ROM || i == ROM && last == ROM && !b.Prefetch) && b.Size >= 4096 && bits.OnesCount64(b.Size) == 1 &&
		(b.Is64 || b.Size <= 1<<31)
	if !ok || c.bar[i].used || c.bar[last].used {
		return fmt.Errorf("BAR %d of %#x bytes: %w", i, b.Size, ErrConfigSpace)
	}
	c.bar[i] = barInfo{BAR: b, used: true}
	off := barRegister(i)
	mask := ^(b.Size - 1)
	binary.LittleEndian.PutUint32(c.mask[off:], uint32(mask))
	if i == ROM {
		c.mask[off] |= romEnable
	}
	if b.Prefetch {
		c.data[off] |= barPrefetch
	}
	if b.Is64 {
		c.bar[last] = barInfo{used: true, high: true}
		c.data[off] |= barMem64
		binary.LittleEndian.PutUint32(c.mask[off+4:], uint32(mask>>32))
	}
	return nil
}

// barAddress returns the address in BAR i and whether memory decoding is on.
func (c *Config) barAddress(i int) (uint64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	off := barRegister(i)
	gpa := uint64(binary.LittleEndian.Uint32(c.data[off:]) &^ 0xf)
	if c.bar[i].Is64 {
		gpa |= uint64(binary.LittleEndian.Uint32(c.data[off+4:])) << 32
	}
	return gpa, c.data[regCommand]&cmdMemory != 0 && (i != ROM || c.data[off]&romEnable != 0)
}

// setBARAddress puts gpa into BAR i.
func (c *Config) setBARAddress(i int, gpa uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	off := barRegister(i)
	flags := uint32(c.data[off] & 0xf)
	binary.LittleEndian.PutUint32(c.data[off:], uint32(gpa)|flags)
	if c.bar[i].Is64 {
		binary.LittleEndian.PutUint32(c.data[off+4:], uint32(gpa>>32))
	}
}
