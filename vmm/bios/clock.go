package bios

import "encoding/binary"

// clock is INT 1Ah: time of day, and PCI.
func clock(c *call) {
	switch c.ah() {
	case 0x00: // ticks
		var b [dataMidnight + 1 - dataTicks]byte
		_ = c.b.c.Memory.ReadAt(dataTicks, b[:]) // always memory
		t := binary.LittleEndian.Uint32(b[:])
		set16(&c.RCX, uint16(t>>16))
		set16(&c.RDX, uint16(t))
		c.setAL(b[len(b)-1])
		_ = c.b.c.Memory.WriteAt(dataMidnight, []byte{0})
		c.set(carry, false)
	case 0x02: // time
		t := c.b.c.Now()
		set16(&c.RCX, uint16(bcd(t.Hour()))<<8|uint16(bcd(t.Minute())))
		set16(&c.RDX, uint16(bcd(t.Second()))<<8)
		c.set(carry, false)
	case 0x04: // date
		t := c.b.c.Now()
		set16(&c.RCX, uint16(bcd(t.Year()/100))<<8|uint16(bcd(t.Year()%100)))
		set16(&c.RDX, uint16(bcd(int(t.Month())))<<8|uint16(bcd(t.Day())))
		c.set(carry, false)
	case 0xb1:
		c.pci()
	default:
		c.set(carry, true)
	}
}

func bcd(n int) byte { return byte(n/10%10<<4 | n%10) }
