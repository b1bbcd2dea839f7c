package pci

import "sync/atomic"

// A Space is the configuration space of a device that is not made here: one of the host's.
// Accesses are of 1, 2 or 4 bytes at a multiple of that, and come one at a time.
type Space interface {
	ReadConfig(off int, b []byte)
	WriteConfig(off int, b []byte)
}

// passed says which bytes of a Config are those of a Space.
type passed struct {
	space   Space
	reads   [ConfigSize]bool
	writes  [ConfigSize]bool
	refused func()
	known   [ConfigSize]bool // writing what is not has an effect nowhere, and is counted
	gone    atomic.Bool
}

// NewPassedConfig makes the configuration space of a function that is a device of the host's.
// All of it is zeros, and what the guest writes is lost, but for what is set up by Fixed, Masked and Pass, and by
// AddBAR. refused is called for each write that touches bytes which none of them has made
// known.
func NewPassedConfig(s Space, refused func()) *Config {
	return &Config{nextCap: headerSpace, data: new([ConfigSize]byte), passed: &passed{space: s, refused: refused}}
}

// Fixed sets the bytes at off, which the guest can only read.
func (c *Config) Fixed(off int, b ...byte) {
	copy(c.data[off:], b)
	c.know(off, len(b))
}

// Masked lets the guest write the bits of mask at off.
func (c *Config) Masked(off int, mask ...byte) {
	copy(c.mask[off:], mask)
	c.know(off, len(mask))
}

// Pass has the guest read the n bytes at off from the Space and, with write, write them there.
func (c *Config) Pass(off, n int, write bool) {
	for i := off; i < off+n; i++ {
		c.passed.reads[i], c.passed.writes[i] = true, write
		c.mask[i] = 0
	}
	c.know(off, n)
}

// Show has the guest read the byte at off from the Space; writing it is refused.
func (c *Config) Show(off int) { c.passed.reads[off] = true }

// Unpass undoes Pass and Masked for n bytes at off, which are zeros from then on.
func (c *Config) Unpass(off, n int) {
	for i := off; i < off+n; i++ {
		c.passed.reads[i], c.passed.writes[i] = false, false
		c.data[i], c.mask[i] = 0, 0
	}
}

// Vanish has all bytes read as ones, and writes lost, as if the device had been pulled out.
func (c *Config) Vanish() { c.passed.gone.Store(true) }

func (c *Config) know(off, n int) {
	for i := off; i < off+n; i++ {
		c.passed.known[i] = true
	}
}

// read fills in what of b is the Space's.
func (p *passed) read(off int, b []byte) {
	if p == nil {
		return
	}
	if p.gone.Load() {
		Ones(b)
		return
	}
	pieces(off, b, &p.reads, p.space.ReadConfig)
}

// write hands the Space what of b is for it.
func (p *passed) write(off int, b []byte) {
	if p == nil || p.gone.Load() {
		return
	}
	pieces(off, b, &p.writes, p.space.WriteConfig)
	for i := range b {
		if !p.known[off+i] {
			p.refused()
			return
		}
	}
}

// pieces calls access for the bytes of b that are set in bits, in the largest pieces that
// are aligned.
func pieces(off int, b []byte, bits *[ConfigSize]bool, access func(int, []byte)) {
	for len(b) > 0 {
		n := 4
		for n > 1 && (off%n != 0 || n > len(b) || !all(bits[off:off+n])) {
			n /= 2
		}
		if bits[off] {
			access(off, b[:n])
		}
		off, b = off+n, b[n:]
	}
}

func all(bits []bool) bool {
	for _, b := range bits {
		if !b {
			return false
		}
	}
	return true
}
