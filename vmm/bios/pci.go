package bios

import "encoding/binary"

// Results of the PCI BIOS (section 3).
const (
	pciOK          = 0x00
	pciUnsupported = 0x81
	pciNotFound    = 0x86
	pciBadRegister = 0x87
	pciSignature   = 0x20494350 // "PCI "
	pciVersion     = 0x0210
	pciMechanism1  = 1 << 0
	pciFunctions   = 256 // of bus 0, which is the only one
	pciRegisters   = 256
)

// pci is the PCI BIOS.
func (c *call) pci() {
	switch fn := c.al(); fn {
	case 0x01: // is it there?
		set32(&c.RDX, pciSignature)
		set16(&c.RBX, pciVersion)
		c.RCX &^= 0xff // the last bus
		c.setAL(pciMechanism1)
		c.pciDone(pciOK)
	case 0x02: // find a device
		want := c.RDX&0xffff | c.RCX&0xffff<<16
		c.pciFind(func(f int) bool { return uint64(c.b.pciRead(f, 0, 4)) == want })
	case 0x03: // find a class
		want := uint32(c.RCX) & 0xffffff
		c.pciFind(func(f int) bool { return c.b.pciRead(f, 0, 4) != 0xffffffff && c.b.pciRead(f, 8, 4)>>8 == want })
	case 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d: // read, and write, 1, 2 or 4 bytes
		c.pciAccess(fn >= 0x0b, 1<<((fn-0x08)%3))
	default:
		c.pciDone(pciUnsupported)
	}
}

// pciDone gives the result.
func (c *call) pciDone(result byte) {
	c.setAH(result)
	c.set(carry, result != pciOK)
}

// pciFind finds the SI-th function that fits.
func (c *call) pciFind(fits func(int) bool) {
	n := uint16(c.RSI)
	for f := range pciFunctions {
		if !fits(f) {
			continue
		}
		if n == 0 {
			set16(&c.RBX, uint16(f))
			c.pciDone(pciOK)
			return
		}
		n--
	}
	c.pciDone(pciNotFound)
}

// pciAccess reads to or writes from ECX the n bytes of register DI of function BX.
func (c *call) pciAccess(write bool, n int) {
	f, reg := uint64(uint16(c.RBX)), uint64(uint16(c.RDI))
	if reg+uint64(n) > pciRegisters || reg%uint64(n) != 0 {
		c.pciDone(pciBadRegister)
		return
	}
	var b [4]byte
	off := f<<12 | reg
	switch {
	case write:
		binary.LittleEndian.PutUint32(b[:], uint32(c.RCX))
		c.b.c.PCI.Write(off, b[:n])
	default:
		binary.LittleEndian.PutUint32(b[:], uint32(c.RCX))
		c.b.c.PCI.Read(off, b[:n])
		set32(&c.RCX, binary.LittleEndian.Uint32(b[:]))
	}
	c.pciDone(pciOK)
}

// pciRead reads n bytes of a function.
func (b *BIOS) pciRead(f, reg, n int) uint32 {
	var p [4]byte
	b.c.PCI.Read(uint64(f)<<12|uint64(reg), p[:n])
	return binary.LittleEndian.Uint32(p[:])
}
