package pci

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// ErrConfigSpace says that a capability or BAR does not fit where it was asked for.
var ErrConfigSpace = errors.New("does not fit in configuration space")

// An Identity is what a function says it is.
type Identity struct {
	Vendor, Device       uint16
	SubVendor, SubDevice uint16
	Revision             uint8
	Class                Class
}

// A Config is the configuration space of one function: bytes, and for
// each bit whether the guest may write it. Its methods may be called by several
// goroutines at once; what adds capabilities and BARs is for the maker of
// the function, before the Bus has it.
type Config struct {
	mu   sync.Mutex
	data *[ConfigSize]byte // guarded by mu; see Bus.Show
	mask [ConfigSize]byte  // bits the guest may write; fixed once the Bus has it
	bar  [bars]barInfo     // fixed once the Bus has it
	// ones has the bits that the guest clears by writing a one; nil is none.
	ones *[headerSpace]byte

	lastCap uint8 // offset of the last capability's next pointer, 0 with none
	nextCap int   // where the next capability goes
	hooks   []hook
	express int // offset of the PCI Express capability, 0 with none
	passed  *passed
	moved   atomic.Bool // reset, and the Bus has not looked since
	shown   bool        // the guest reads by itself; fixed once it runs
}

// A hook is code behind some bytes of configuration space. It is called
// without Config.mu, after a write and before a read that touches them.
type hook struct {
	off, n  int
	written func()
	reading func()
	// ahead has reading called after writes that touch the aheadN bytes at aheadAt, too, where the guest reads by itself.
	ahead           bool
	aheadAt, aheadN int
}

// NewConfig makes the configuration space of a function without BARs or
// capabilities.
func NewConfig(id Identity) *Config {
	c := newHeader(id)
	c.put16(regSubVendor, id.SubVendor)
	c.put16(regSubDevice, id.SubDevice)
	return c
}

// newHeader makes what headers of all types have in common.
func newHeader(id Identity) *Config {
	c := &Config{nextCap: firstCap, data: new([ConfigSize]byte)}
	c.put16(regVendor, id.Vendor)
	c.put16(regDevice, id.Device)
	c.data[regRevision] = id.Revision
	c.data[regClass] = byte(id.Class)
	c.data[regClass+1] = byte(id.Class >> 8)
	c.data[regClass+2] = byte(id.Class >> 16)
	binary.LittleEndian.PutUint16(c.mask[regCommand:],
		cmdMemory|cmdBusMaster|cmdParity|cmdSERR|cmdINTxDisable)
	c.mask[regCacheLine] = 0xff
	c.mask[regIntLine] = 0xff
	return c
}

func (c *Config) put16(off int, v uint16) { binary.LittleEndian.PutUint16(c.data[off:], v) }

// AddCapability appends a capability: id, the pointer to the next, then body.
// writable says which bits of body the guest may write; it may be shorter than
// body. It returns the capability's offset.
func (c *Config) AddCapability(id uint8, body, writable []byte) (int, error) {
	off := c.nextCap
	end := off + 2 + len(body)
	if end > headerSpace || len(writable) > len(body) {
		return 0, fmt.Errorf("capability %#x of %d bytes at %#x: %w", id, len(body)+2, off, ErrConfigSpace)
	}
	c.data[off] = id
	copy(c.data[off+2:], body)
	copy(c.mask[off+2:], writable)
	if c.lastCap == 0 {
		c.data[regCapPointer] = byte(off)
		c.data[regStatus] |= statusCapList
	} else {
		c.data[c.lastCap] = byte(off)
	}
	c.lastCap = uint8(off + 1)
	c.nextCap = (end + 3) &^ 3
	return off, nil
}

// Hook has written called after each guest write that touches the n bytes at
// off, and reading before each guest read of them. Either may be nil. They may
// use Bytes and SetBytes.
func (c *Config) Hook(off, n int, written, reading func()) {
	c.hooks = append(c.hooks, hook{off: off, n: n, written: written, reading: reading})
}

// HookAhead is Hook for bytes that the guest is to find right, too, where it reads by itself (Bus.Show): there reading
// is called after each write that touches the aheadN bytes at aheadAt, in advance.
func (c *Config) HookAhead(off, n, aheadAt, aheadN int, written, reading func()) {
	c.hooks = append(c.hooks, hook{off: off, n: n, written: written, reading: reading, ahead: true, aheadAt: aheadAt, aheadN: aheadN})
}

// Bytes copies what is at off into b.
func (c *Config) Bytes(off int, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	copy(b, c.data[off:])
}

// SetBytes changes the bytes at off, whether the guest may write them or not.
func (c *Config) SetBytes(off int, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	copy(c.data[off:], b)
}

// read is the guest reading len(b) bytes at off.
func (c *Config) read(off int, b []byte) {
	for _, h := range c.hooks {
		if h.reading != nil && overlap(off, len(b), h.off, h.n) {
			h.reading()
		}
	}
	c.Bytes(off, b)
	c.passed.read(off, b)
}

// write is the guest writing b at off.
func (c *Config) write(off int, b []byte) {
	c.mu.Lock()
	for i, v := range b {
		m := c.mask[off+i]
		c.data[off+i] = c.data[off+i]&^m | v&m
		if c.ones != nil && off+i < headerSpace {
			c.data[off+i] &^= v & c.ones[off+i]
		}
	}
	c.mu.Unlock()
	c.passed.write(off, b)
	for _, h := range c.hooks {
		if h.written != nil && overlap(off, len(b), h.off, h.n) {
			h.written()
		}
		if c.shown && h.ahead && overlap(off, len(b), h.aheadAt, h.aheadN) {
			h.reading()
		}
	}
}

// Reset clears all that the guest has written, on a guest's access that resets its function.
func (c *Config) Reset() {
	c.reset()
	c.moved.Store(true)
}

// reset clears all that the guest has written.
func (c *Config) reset() {
	c.mu.Lock()
	for i, m := range c.mask {
		c.data[i] &^= m
	}
	c.mu.Unlock()
	for _, h := range c.hooks {
		if h.written != nil {
			h.written()
		}
	}
}

func (c *Config) word(off int) uint16 {
	var b [2]byte
	c.Bytes(off, b[:])
	return binary.LittleEndian.Uint16(b[:])
}

func (c *Config) setWord(off int, v uint16) {
	c.SetBytes(off, binary.LittleEndian.AppendUint16(nil, v))
}

func overlap(a, an, b, bn int) bool { return a < b+bn && b < a+an }

// AddExpress sets room aside for a PCI Express capability (section 7.5.3), which the function
// gets behind a root port. On the root bus it is a conventional one: a kernel looks for more in
// functions with the capability, in the extended space behind it too, and each look is an exit.
func (c *Config) AddExpress() error {
	if c.nextCap+expressEnd > headerSpace {
		return fmt.Errorf("PCI Express capability at %#x: %w", c.nextCap, ErrConfigSpace)
	}
	c.express = c.nextCap
	c.nextCap += expressEnd
	return nil
}

// behindPort makes the function an endpoint of PCI Express with a link to a root port. The
// capability is the first one then.
func (c *Config) behindPort() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.express == 0 || c.data[c.express] == CapExpress {
		return
	}
	at := c.data[c.express : c.express+expressEnd]
	at[0], at[1] = CapExpress, c.data[regCapPointer]
	c.data[regCapPointer] = byte(c.express)
	c.data[regStatus] |= statusCapList
	le := binary.LittleEndian
	le.PutUint16(at[expressFlags:], 2) // version 2, an endpoint
	const roleBasedErrors = 1 << 15
	le.PutUint32(at[expressDeviceCap:], roleBasedErrors)
	le.PutUint32(at[expressLinkCap:], linkSpeed|linkWidth)
	le.PutUint16(at[expressLinkStatus:], linkSpeed|linkWidth)
	le.PutUint32(at[expressLinkCap2:], linkSpeeds)
	le.PutUint16(at[expressLinkControl2:], linkSpeed)
	// Error reporting, relaxed ordering, payload, no snoop, request size.
	le.PutUint16(c.mask[c.express+expressDeviceControl:], 0x78ff)
}
