package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Places in configuration space.
const (
	ecamBase   = 0xe0000000
	ecamSize   = 1 << 20
	configSize = 4096

	regCommand  = 0x04
	regBAR      = 0x10
	regCaps     = 0x34
	capVendor   = 0x09
	capMSIX     = 0x11
	memoryOn    = 2
	busMasterOn = 4
)

// A function is a PCI function that its driver was taken from.
type function struct {
	name   string // such as 0000:00:03.0
	config []byte // in ECAM
	bar    []byte
	barAt  uint64
	msix   int // offset of the capability
	caps   map[int]place
}

// A place is what a vendor capability points at (VIRTIO 1.2 section 4.1.4).
type place struct {
	cap, off, n int
	multiplier  int
}

// ecam maps configuration space.
func ecam() ([]byte, error) {
	f, err := os.OpenFile("/dev/mem", os.O_RDWR|unix.O_SYNC, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := unix.Mmap(int(f.Fd()), ecamBase, ecamSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map ECAM: %w", err)
	}
	return b, nil
}

// take takes a function from its driver, and maps its registers.
func take(dir string, space []byte) (*function, error) {
	f := &function{name: filepath.Base(dir), caps: make(map[int]place)}
	var dev, fn int
	if _, err := fmt.Sscanf(f.name, "0000:00:%x.%x", &dev, &fn); err != nil {
		return nil, fmt.Errorf("function %s: %w", f.name, err)
	}
	f.config = space[dev<<15|fn<<12:][:configSize]
	if err := os.WriteFile(filepath.Join(dir, "driver/unbind"), []byte(f.name), 0o200); err != nil {
		return nil, err
	}
	f.command(memoryOn | busMasterOn)
	b, err := os.ReadFile(filepath.Join(dir, "resource"))
	if err != nil {
		return nil, err
	}
	if f.barAt, err = strconv.ParseUint(strings.Fields(string(b))[0], 0, 64); err != nil {
		return nil, err
	}
	r, err := os.OpenFile(filepath.Join(dir, "resource0"), os.O_RDWR|unix.O_SYNC, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if f.bar, err = unix.Mmap(int(r.Fd()), 0, barSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("map %s: %w", r.Name(), err)
	}
	return f, f.findCaps()
}

func (f *function) findCaps() error {
	at := int(peek(f.config, regCaps, 1))
	for range 48 {
		if at < 0x40 {
			break
		}
		switch peek(f.config, at, 1) {
		case capMSIX:
			f.msix = at
		case capVendor:
			f.caps[int(peek(f.config, at+3, 1))] = place{
				at, int(peek(f.config, at+8, 4)), int(peek(f.config, at+12, 4)), int(peek(f.config, at+16, 4)),
			}
		}
		at = int(peek(f.config, at+1, 1))
	}
	for _, c := range []int{capCommon, capNotify, capISR, capDevice, capWindow} {
		if _, ok := f.caps[c]; !ok {
			return fmt.Errorf("%s has no capability %d", f.name, c)
		}
	}
	if f.msix == 0 {
		return fmt.Errorf("%s has no MSI-X", f.name)
	}
	return nil
}

func (f *function) command(v uint64) { poke(f.config, regCommand, 2, v) }

// move puts the registers somewhere.
func (f *function) move(gpa uint64) {
	poke(f.config, regBAR, 4, gpa&0xffffffff)
	poke(f.config, regBAR+4, 4, gpa>>32)
}

// restore undoes what was done to configuration space.
func (f *function) restore() {
	poke(f.config, f.msix+2, 2, 0)
	f.command(0)
	f.move(f.barAt)
	f.command(memoryOn | busMasterOn)
}
