package bios

// Keys of the serial line whose bytes differ, as scan code and character.
var keys = map[byte]uint16{
	'\n': 0x1c0d, '\r': 0x1c0d, 0x7f: 0x0e08, '\b': 0x0e08, '\t': 0x0f09, 0x1b: 0x011b,
}

// keyboard is INT 16h: what is typed at the console.
func keyboard(c *call) {
	switch c.ah() {
	case 0x00, 0x10: // get a key
		there := c.b.look()
		c.wait(!there)
		if !there {
			return
		}
		set16(&c.RAX, scan(c.b.key))
		c.b.hasKey = false
	case 0x01, 0x11: // is there one?
		there := c.b.look()
		if there {
			set16(&c.RAX, scan(c.b.key))
		}
		c.set(zero, !there)
	case 0x02, 0x12: // shift keys
		c.RAX &^= 0xffff
	}
}

// wait tells the code whether it is to halt for an interrupt and call again.
func (c *call) wait(on bool) {
	var b [1]byte
	if on {
		b[0] = 1
	}
	_ = c.b.c.Memory.WriteAt(segment<<4+romWaits, b[:]) // always memory
}

// look says whether a key is there, and keeps it.
func (b *BIOS) look() bool {
	if !b.hasKey {
		b.key, b.hasKey = b.c.Key()
	}
	return b.hasKey
}

// scan is what the keyboard makes of a byte.
func scan(v byte) uint16 {
	if k, ok := keys[v]; ok {
		return k
	}
	return uint16(v)
}
