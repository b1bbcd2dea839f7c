// Package rtc is the clock and CMOS memory of a PC (Motorola MC146818A), at
// ports 0x70 and 0x71. It tells the time of the host, in UTC, and raises no
// interrupt. What the guest sets lasts until it ends.
package rtc

import (
	"sync"
	"time"
)

// Registers (data sheet, figure 12; the century is where ACPI and PCs have it).
const (
	regSeconds   = 0x00
	regMinutes   = 0x02
	regHours     = 0x04
	regWeekday   = 0x06
	regDay       = 0x07
	regMonth     = 0x08
	regYear      = 0x09
	regA         = 0x0a
	regB         = 0x0b
	regC         = 0x0c
	regD         = 0x0d
	regCentury   = 0x32
	size         = 128
	divider      = 0x26 // register A: 32768 Hz, never "update in progress"
	b24Hours     = 1 << 1
	bBinary      = 1 << 2
	validRAM     = 1 << 7
	pm           = 1 << 7
	indexPort    = 0
	writableBits = bBinary | b24Hours
)

// Ports is how many I/O ports the clock takes.
const Ports = 2

// A Clock is an RTC. It implements device.Ports.
type Clock struct {
	now func() time.Time

	mu     sync.Mutex
	index  byte          // guarded by mu, as all below
	b      byte          // register B
	offset time.Duration // what the guest has set the time forward by
	ram    [size]byte
}

// New makes a clock that follows now.
func New(now func() time.Time) *Clock { return &Clock{now: now, b: b24Hours} }

// In implements device.Ports.
func (c *Clock) In(port uint16, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range b {
		b[i] = 0xff // the index cannot be read
		if port+uint16(i) != indexPort {
			b[i] = c.read(c.index)
		}
	}
}

// Out implements device.Ports.
func (c *Clock) Out(port uint16, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, v := range b {
		if port+uint16(i) == indexPort {
			c.index = v % size // bit 7 masks NMI, which never comes
		} else {
			c.write(c.index, v)
		}
	}
}

func (c *Clock) read(reg byte) byte {
	t := c.now().UTC().Add(c.offset)
	switch reg {
	case regSeconds:
		return c.encode(t.Second())
	case regMinutes:
		return c.encode(t.Minute())
	case regHours:
		return c.hours(t.Hour())
	case regWeekday:
		return c.encode(int(t.Weekday()) + 1)
	case regDay:
		return c.encode(t.Day())
	case regMonth:
		return c.encode(int(t.Month()))
	case regYear:
		return c.encode(t.Year() % 100)
	case regCentury:
		return c.encode(t.Year() / 100)
	case regA:
		return divider
	case regB:
		return c.b
	case regC:
		return 0
	case regD:
		return validRAM
	}
	return c.ram[reg]
}

// write sets a register; one of the time moves the clock.
func (c *Clock) write(reg, v byte) {
	t := c.now().UTC().Add(c.offset)
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	switch reg {
	case regSeconds:
		second = c.decode(v)
	case regMinutes:
		minute = c.decode(v)
	case regHours:
		hour = c.decodeHours(v)
	case regDay:
		day = c.decode(v)
	case regMonth:
		month = time.Month(c.decode(v))
	case regYear:
		year = year/100*100 + c.decode(v)
	case regCentury:
		year = c.decode(v)*100 + year%100
	case regB:
		c.b = v & writableBits
		return
	case regA, regC, regD, regWeekday:
		return
	default:
		c.ram[reg] = v
		return
	}
	// Each field is set alone, on its way through dates that do not exist:
	// time.Date makes the best of them.
	c.offset = time.Date(year, month, day, hour, minute, second, t.Nanosecond(), time.UTC).Sub(c.now())
}

func (c *Clock) encode(v int) byte {
	if c.b&bBinary != 0 {
		return byte(v)
	}
	return byte(v/10<<4 | v%10)
}

func (c *Clock) decode(v byte) int {
	if c.b&bBinary != 0 {
		return int(v)
	}
	return int(v>>4)*10 + int(v&0xf)
}

func (c *Clock) hours(h int) byte {
	if c.b&b24Hours != 0 {
		return c.encode(h)
	}
	v := c.encode((h+11)%12 + 1)
	if h >= 12 {
		v |= pm
	}
	return v
}

func (c *Clock) decodeHours(v byte) int {
	if c.b&b24Hours != 0 {
		return c.decode(v)
	}
	h := c.decode(v&^pm) % 12
	if v&pm != 0 {
		h += 12
	}
	return h
}
