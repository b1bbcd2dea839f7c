package bios

import (
	"fmt"
	"strings"
)

// video is INT 10h: a screen of text, which is the console. Attributes are not
// shown; positions become escape sequences.
func video(c *call) {
	b := c.b
	switch c.ah() {
	case 0x00: // set mode
		b.clear()
	case 0x02: // set cursor position
		b.move(int(c.dh()), int(c.dl()))
	case 0x03: // read cursor position
		set16(&c.RCX, 0x0607) // its shape
		set16(&c.RDX, uint16(b.row<<8|b.col))
	case 0x06, 0x07: // scroll
		if c.al() == 0 && uint16(c.RCX) == 0 {
			b.clear()
		}
	case 0x08: // read character and attribute
		set16(&c.RAX, normal<<8|' ')
	case 0x0e: // teletype output
		b.print(string(rune(c.al())))
	case 0x0f: // get mode
		set16(&c.RAX, columns<<8|videoMode)
		c.RBX &^= 0xff00 // page 0
	case 0x13: // write string
		c.writeString()
	}
}

// clear clears the screen.
func (b *BIOS) clear() {
	b.send("\x1b[H\x1b[2J")
	b.row, b.col = 0, 0
}

// move moves the cursor.
func (b *BIOS) move(row, col int) {
	row, col = min(row, rows-1), min(col, columns-1)
	if row == b.row && col == b.col {
		return
	}
	b.row, b.col = row, col
	b.send(fmt.Sprintf("\x1b[%d;%dH", row+1, col+1))
}

// print prints characters of code page 437, of which those of ASCII are shown.
func (b *BIOS) print(s string) {
	var out strings.Builder
	for _, r := range s {
		switch {
		case r == '\r':
			b.col = 0
		case r == '\n':
			b.row = min(b.row+1, rows-1)
		case r == '\b':
			b.col = max(b.col-1, 0)
		case r == '\a':
		case r < ' ' || r > '~':
			r = '?'
			fallthrough
		default:
			if b.col++; b.col == columns {
				b.row, b.col = min(b.row+1, rows-1), 0
			}
		}
		out.WriteRune(r)
	}
	b.send(out.String())
}

func (b *BIOS) send(s string) {
	_, _ = b.c.Console.Write([]byte(s)) // as on a cable that leads nowhere
}

// writeString prints the CX characters, at most a screen of them, at ES:BP.
func (c *call) writeString() {
	const attributes = 1 << 1 // each character is followed by one
	size := 1
	if c.al()&attributes != 0 {
		size = 2
	}
	p := make([]byte, min(int(uint16(c.RCX)), rows*columns)*size)
	if c.b.c.Memory.ReadAt(c.s.ES.Base+uint64(uint16(c.RBP)), p) != nil {
		return
	}
	var s strings.Builder
	for i := 0; i < len(p); i += size {
		s.WriteRune(rune(p[i]))
	}
	c.b.move(int(c.dh()), int(c.dl()))
	c.b.print(s.String())
}
