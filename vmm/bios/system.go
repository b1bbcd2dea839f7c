package bios

import (
	"encoding/binary"

	"github.com/ashlar-hv/ashlar/vmm/boot"
)

const (
	smap     = 0x534d4150 // "SMAP"
	mapEntry = 20
	kib      = 10
	page64K  = 16
	unknown  = 0x86 // function not supported
)

// system is INT 15h: the memory map, and the A20 gate, which is always open.
func system(c *call) {
	switch c.ax() {
	case 0xe820:
		c.memoryMap()
	case 0xe801:
		low, high := c.b.extended()
		set16(&c.RAX, low)
		set16(&c.RBX, high)
		set16(&c.RCX, low)
		set16(&c.RDX, high)
		c.set(carry, false)
	case 0x2401: // open the gate
		c.setAH(0)
		c.set(carry, false)
	case 0x2402: // is it open?
		set16(&c.RAX, 1)
		c.set(carry, false)
	default:
		if c.ah() == 0x88 { // memory above 1 MiB in KiB
			low, high := c.b.extended()
			set16(&c.RAX, uint16(min(uint32(low)+uint32(high)<<(page64K-kib), 0xffff)))
			c.set(carry, false)
			return
		}
		c.setAH(unknown)
		c.set(carry, true)
	}
}

// memoryMap is one entry of the memory map; EBX counts them.
func (c *call) memoryMap() {
	i := uint64(uint32(c.RBX))
	m := c.b.c.Map
	if uint32(c.RDX) != smap || uint32(c.RCX) < mapEntry || i >= uint64(len(m)) {
		c.setAH(unknown)
		c.set(carry, true)
		return
	}
	var e [mapEntry]byte
	binary.LittleEndian.PutUint64(e[:], m[i].Base)
	binary.LittleEndian.PutUint64(e[8:], m[i].Size)
	binary.LittleEndian.PutUint32(e[16:], uint32(m[i].Type))
	if c.b.c.Memory.WriteAt(c.s.ES.Base+uint64(uint16(c.RDI)), e[:]) != nil {
		c.setAH(unknown)
		c.set(carry, true)
		return
	}
	set32(&c.RAX, smap)
	set32(&c.RCX, mapEntry)
	if i++; i == uint64(len(m)) {
		i = 0
	}
	set32(&c.RBX, uint32(i))
	c.set(carry, false)
}

// extended is the memory from 1 MiB on, in KiB up to 16 MiB, and from there on
// in units of 64 KiB.
func (b *BIOS) extended() (low, high uint16) {
	const start, middle = 1 << 20, 16 << 20
	for _, r := range b.c.Map {
		if r.Type == boot.RAM && r.Base == start {
			low = uint16(min(r.Size, middle-start) >> kib)
			high = uint16((max(r.Size, middle-start) - (middle - start)) >> page64K)
		}
	}
	return low, high
}
