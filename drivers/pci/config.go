package pci

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Registers of configuration space (PCI Express Base Specification, chapter 7.5.1), and
// how large it is: without PCI Express, with it.
const (
	regStatus     = 0x06
	regHeaderType = 0x0e
	regCaps       = 0x34

	statusCaps    = 1 << 4
	multifunction = 1 << 7

	standardSize = 0x100
	extendedSize = 0x1000
)

// Capabilities (sections 7.5.3, 7.7.11, 7.9.3).
const (
	capExpress      = 0x10
	capSerialNumber = 0x0003
	capACS          = 0x000d
)

// Kinds of PCI Express functions, in the register at 2 of that capability.
const (
	kindRootPort       = 4
	kindDownstreamPort = 6
	kindToPCI          = 7 // bridge to PCI
	kindFromPCI        = 8 // and back
)

// isolation is what of ACS a port needs for that the devices behind it reach nothing
// around the IOMMU: source validation, redirection of requests and of completions,
// upstream forwarding. The kernel asks for the same before it gives a device a group of
// its own.
const isolation = 1<<0 | 1<<2 | 1<<3 | 1<<4

// A config is what could be read of configuration space.
type config []byte

// readConfigSpace reads all that the kernel lets through.
func readConfigSpace(dir string) config {
	f, err := os.Open(filepath.Join(dir, "config"))
	if err != nil {
		return nil
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, extendedSize)) // what has been read is there
	return b
}

func (c config) u8(at int) int {
	if at < 0 || at >= len(c) {
		return 0
	}
	return int(c[at])
}

func (c config) u16(at int) int {
	if at < 0 || at+2 > len(c) {
		return 0
	}
	return int(binary.LittleEndian.Uint16(c[at:]))
}

func (c config) u32(at int) uint32 {
	if at < 0 || at+4 > len(c) {
		return 0
	}
	return binary.LittleEndian.Uint32(c[at:])
}

// capability is where the capability with that ID is; 0 where there is none.
func (c config) capability(id int) int {
	if c.u16(regStatus)&statusCaps == 0 {
		return 0
	}
	at := c.u8(regCaps) &^ 3
	for range standardSize / 4 { // a list that bites its own tail has an end, too
		if at < 0x40 || at+2 > len(c) {
			return 0
		}
		if c.u8(at) == id {
			return at
		}
		at = c.u8(at+1) &^ 3
	}
	return 0
}

// extended is where the extended capability with that ID is; 0 where there is none.
func (c config) extended(id int) int {
	at := standardSize
	for range (extendedSize - standardSize) / 4 {
		header := c.u32(at)
		if header == 0 || header == 0xffffffff {
			return 0
		}
		if int(header&0xffff) == id {
			return at
		}
		at = int(header>>20) &^ 3
		if at < standardSize {
			return 0
		}
	}
	return 0
}

// complete reports whether all of it could be read: without the right, 64 bytes are all.
func (c config) complete() bool { return len(c) >= standardSize }

// serialNumber is that of the device.
func (c config) serialNumber() string {
	at := c.extended(capSerialNumber)
	if at == 0 {
		return ""
	}
	n := uint64(c.u32(at+8))<<32 | uint64(c.u32(at+4))
	if n == 0 || n == 1<<64-1 {
		return ""
	}
	return fmt.Sprintf("%016x", n)
}

// isolates reports whether the function keeps what is behind it, or beside it in the same
// device, from reaching others around the IOMMU. bridge is whether something is behind it.
func (c config) isolates(bridge bool) bool {
	express := c.capability(capExpress)
	kind := c.u16(express+2) >> 4 & 15
	switch {
	case express == 0 && bridge:
		return false // a bus that all its devices share
	case express != 0 && (kind == kindToPCI || kind == kindFromPCI):
		return false
	case express != 0 && (kind == kindRootPort || kind == kindDownstreamPort):
	case c.u8(regHeaderType)&multifunction == 0:
		return true // nobody is beside it
	}
	at := c.extended(capACS)
	if express == 0 || at == 0 {
		return false
	}
	// What it does not have, it need not have (section 7.7.11.2): it is as if enabled.
	needed := c.u16(at+4) & isolation
	return c.u16(at+6)&needed == needed
}

// readConfig reads what configuration space says of a device and of those on its way.
func (inv *Inventory) readConfig(d *Device, chain []string) {
	c := readConfigSpace(filepath.Join(inv.root, devices, d.Address))
	d.Extended = c.complete()
	if !d.Extended {
		return
	}
	d.SerialNumber = c.serialNumber()
	if !c.isolates(d.Class>>16 == classBridge && c.u8(regHeaderType)&^multifunction == headerBridge) {
		d.NoACS = append(d.NoACS, d.Address)
	}
	for i := len(chain) - 2; i > 0; i-- {
		if !readConfigSpace(filepath.Join(inv.root, devices, chain[i])).isolates(true) {
			d.NoACS = append(d.NoACS, chain[i])
		}
	}
}

// What makes a function a bridge to another bus.
const (
	classBridge  = 0x06
	headerBridge = 1
)
