package pci

import (
	"encoding/binary"
	"sync"
)

// PortCount is how many I/O ports Ports has, from 0xCF8 on.
const PortCount = 8

// Offsets of the registers of Ports.
const (
	portAddress = 0 // CONFIG_ADDRESS, 32 bits
	portReset   = 1 // the chip set's reset register, 8 bits, lies within it
	portData    = 4 // CONFIG_DATA
)

// configEnable is the bit of CONFIG_ADDRESS that turns CONFIG_DATA on.
const configEnable = 1 << 31

// An ioDevice is a device in port space.
type ioDevice interface {
	In(port uint16, b []byte)
	Out(port uint16, b []byte)
}

// Ports is configuration mechanism #1 (PCI Local Bus Specification 3.0 section
// 3.2.2.3.2): the first 256 bytes of each function through two I/O ports, as
// kernels use them before they know of ECAM. Where no function is all
// reads as all ones. It implements device.Ports.
type Ports struct {
	bus   *Bus
	reset ioDevice

	mu      sync.Mutex
	address uint32 // guarded by mu, as is hidden
	hidden  bool
}

// NewPorts returns the ports of b. An access of one byte at the second port goes
// to reset: on a PC the reset register 0xCF9 lies there.
func NewPorts(b *Bus, reset ioDevice) *Ports { return &Ports{bus: b, reset: reset} }

// Hide has CONFIG_ADDRESS read as ones. By that a kernel takes it that there is no mechanism #1, if it looks, and
// uses ECAM, where most reads are no exits (Bus.Show), while here each access is two. One that
// does not look finds the mechanism working.
func (p *Ports) Hide() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hidden = true
}

// In fills b with what the guest reads.
func (p *Ports) In(port uint16, b []byte) {
	switch {
	case port == portAddress && len(b) == 4:
		if a, ok := p.shown(); ok {
			binary.LittleEndian.PutUint32(b, a)
			return
		}
	case port == portReset && len(b) == 1:
		p.reset.In(0, b)
		return
	case port >= portData:
		if off, ok := p.target(port); ok {
			p.bus.Read(off, b)
			return
		}
	}
	for i := range b {
		b[i] = 0xff
	}
}

// shown is CONFIG_ADDRESS, where it can be read.
func (p *Ports) shown() (a uint32, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.address, !p.hidden
}

// Out takes what the guest writes.
func (p *Ports) Out(port uint16, b []byte) {
	switch {
	case port == portAddress && len(b) == 4:
		p.mu.Lock()
		p.address = binary.LittleEndian.Uint32(b) &^ 0x7f000003 // reserved bits read as zero
		p.mu.Unlock()
	case port == portReset && len(b) == 1:
		p.reset.Out(0, b)
	case port >= portData:
		if off, ok := p.target(port); ok {
			p.bus.Write(off, b)
		}
	}
}

// target is where in ECAM an access to CONFIG_DATA goes: bus, device and function
// and register stand in CONFIG_ADDRESS.
func (p *Ports) target(port uint16) (off uint64, ok bool) {
	p.mu.Lock()
	a := p.address
	p.mu.Unlock()
	if a&configEnable == 0 {
		return 0, false
	}
	return uint64(a>>8&0xffff)<<12 | uint64(a&0xfc) | uint64(port-portData), true
}
