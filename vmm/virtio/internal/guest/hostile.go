package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Places in the entropy device's BAR.
const (
	barSize      = 0x8000
	deviceStatus = 0x14
)

// hostile takes the entropy device from its driver and breaks every rule: it
// has to ask for a reset, and serve the driver again afterwards.
func hostile() error {
	devices, err := filepath.Glob("/sys/bus/virtio/drivers/virtio_rng/virtio*")
	if err != nil {
		return err
	}
	if len(devices) != 1 {
		return fmt.Errorf("%d entropy devices, want 1", len(devices))
	}
	virtio, err := filepath.EvalSymlinks(devices[0])
	if err != nil {
		return err
	}
	device := filepath.Dir(virtio) // the PCI function
	address := []byte(filepath.Base(device))
	const driver = "/sys/bus/pci/drivers/virtio-pci/"
	if err := os.WriteFile(driver+"unbind", address, 0o200); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(device, "enable"), []byte("1"), 0o600); err != nil {
		return err
	}
	if err := abuse(filepath.Join(device, "resource0")); err != nil {
		return err
	}
	return os.WriteFile(driver+"bind", address, 0o200)
}

// abuse writes to the registers in resource what no driver would.
func abuse(resource string) error {
	f, err := os.OpenFile(resource, os.O_RDWR|unix.O_SYNC, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	bar, err := unix.Mmap(int(f.Fd()), 0, barSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map %s: %w", resource, err)
	}
	return errors.Join(abuseRegisters(bar), unix.Munmap(bar))
}

// abuseRegisters is abuse on the mapped registers.
func abuseRegisters(bar []byte) error {
	const driverOK, needsReset = 4, 64
	for range 5 {
		poke(bar, deviceStatus, 0)
		poke(bar, deviceStatus, driverOK) // without FEATURES_OK
		if s := peek(bar, deviceStatus); s&needsReset == 0 {
			return fmt.Errorf("status %#x after DRIVER_OK out of order", s)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		// Mostly the common configuration; kicks, table and the rest as well.
		at := r.IntN(0x38)
		if r.IntN(4) == 0 {
			at = r.IntN(barSize)
		}
		poke(bar, at, byte(r.Uint32()))
	}
	poke(bar, deviceStatus, 0)
	if s := peek(bar, deviceStatus); s != 0 {
		return fmt.Errorf("status %#x after a reset", s)
	}
	return nil
}

// peek and poke are calls, so that the compiler does not take a register for
// memory that keeps what was written.
//
//go:noinline
func peek(bar []byte, at int) byte { return bar[at] }

//go:noinline
func poke(bar []byte, at int, v byte) { bar[at] = v }
