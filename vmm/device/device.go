// Package device is the I/O port space of a PC: which device answers at which
// ports. The devices themselves are in the packages below.
package device

import "fmt"

// A Ports is a device in port space. Its methods are called by many vCPU
// threads at once. port counts from the device's first; the access ends
// within its ports and is 1, 2 or 4 bytes.
type Ports interface {
	// In fills b with what the guest reads.
	In(port uint16, b []byte)
	// Out takes what the guest writes.
	Out(port uint16, b []byte)
}

// A Bus is a port space. Add is for the maker of the machine, before any access.
type Bus struct {
	ranges []portRange
}

type portRange struct {
	base, n uint16
	dev     Ports
}

// Add lets dev answer at n ports from base on.
func (b *Bus) Add(base, n uint16, dev Ports) error {
	if n == 0 || int(base)+int(n) > 1<<16 {
		return fmt.Errorf("add %d ports at %#x: out of range", n, base)
	}
	for _, r := range b.ranges {
		if base < r.base+r.n && r.base < base+n {
			return fmt.Errorf("add %d ports at %#x: %#x is taken", n, base, r.base)
		}
	}
	b.ranges = append(b.ranges, portRange{base, n, dev})
	return nil
}

// find returns the device at port, and how far into its ports that is.
func (b *Bus) find(port uint16) (portRange, uint16, bool) {
	for _, r := range b.ranges {
		if port >= r.base && port-r.base < r.n {
			return r, port - r.base, true
		}
	}
	return portRange{}, 0, false
}

// In fills p with what the guest reads at port: all ones where nothing answers.
func (b *Bus) In(port uint16, p []byte) {
	r, off, ok := b.find(port)
	switch {
	case ok && int(off)+len(p) <= int(r.n):
		r.dev.In(off, p)
	case len(p) > 1:
		// As on the bus of a PC, a wide access is one of each byte.
		for i := range p {
			b.In(port+uint16(i), p[i:i+1])
		}
	default:
		for i := range p {
			p[i] = 0xff
		}
	}
}

// Out takes what the guest writes at port.
func (b *Bus) Out(port uint16, p []byte) {
	r, off, ok := b.find(port)
	switch {
	case ok && int(off)+len(p) <= int(r.n):
		r.dev.Out(off, p)
	case len(p) > 1:
		for i := range p {
			b.Out(port+uint16(i), p[i:i+1])
		}
	}
}
