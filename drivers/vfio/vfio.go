// Package vfio hands PCI devices from the host's drivers to vfio-pci and back
// (Documentation/driver-api/vfio.rst and Documentation/ABI/testing/sysfs-bus-pci of the
// kernel), and tells by which files programs reach those that vfio-pci has.
//
// Every step can be done again: what is as it should be is left alone. So whoever was cut off
// anywhere begins anew.
package vfio

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Driver is the driver that hands devices on.
const Driver = "vfio-pci"

const (
	sysfs = "/sys"
	dev   = "/dev"
)

// ErrStuck says that a driver does not let go of a device, or does not come back from taking
// one: the kernel may be at it still.
var ErrStuck = errors.New("the kernel is at it for too long")

// Patience is how long the kernel may take to change a driver: NVMe waits for what the
// disk has been asked to do.
const Patience = 30 * time.Second

// DriverOf is the driver that a device has, "" where it has none. A device that is not there
// is an error that wraps fs.ErrNotExist.
func DriverOf(address string) (string, error) { return driverOf(sysfs, address) }

func driverOf(root, address string) (string, error) {
	dir := device(root, address)
	if _, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("look up driver of %s: %w", address, err)
	}
	to, err := os.Readlink(filepath.Join(dir, "driver"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("look up driver of %s: %w", address, err)
	}
	return filepath.Base(to), nil
}

// Take has vfio-pci take the device at an address from the driver that it has.
func Take(address string) error {
	return within(Patience, func() error { return take(sysfs, address) })
}

func take(root, address string) error {
	now, err := driverOf(root, address)
	if err != nil || now == Driver {
		return err
	}
	// From here on no other driver takes it.
	if err := write(root, Driver, "devices", address, "driver_override"); err != nil {
		return fmt.Errorf("keep other drivers from %s: %w", address, err)
	}
	if now != "" {
		if err := write(root, address, "devices", address, "driver/unbind"); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errNoDevice) {
			return fmt.Errorf("take %s from %s: %w", address, now, err)
		}
	}
	if err := write(root, address, "drivers_probe"); err != nil {
		return fmt.Errorf("give %s to %s: %w", address, Driver, err)
	}
	now, err = driverOf(root, address)
	if err == nil && now != Driver {
		err = fmt.Errorf("give %s to %s: it has %s", address, Driver, orNone(now))
	}
	return err
}

// GiveBack takes the device at an address from vfio-pci and gives it back to the driver that
// it had, "" for none. Nobody may have it open: the kernel waits for them. A
// device that is not there any more is none to give back.
func GiveBack(address, driver string) error {
	return within(Patience, func() error { return giveBack(sysfs, address, driver) })
}

func giveBack(root, address, driver string) error {
	now, err := driverOf(root, address)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	// A line's end alone takes the override away.
	if err := write(root, "\n", "devices", address, "driver_override"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("let other drivers have %s: %w", address, err)
	}
	if now == Driver {
		if err := write(root, address, "devices", address, "driver/unbind"); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errNoDevice) {
			return fmt.Errorf("take %s from %s: %w", address, Driver, err)
		}
		now = ""
	}
	switch {
	case driver == "" || now == driver:
		return nil
	case driver == Driver: // it had no other one that is known
		err = write(root, address, "drivers_probe")
	default:
		err = write(root, address, "drivers", driver, "bind")
	}
	if now, err := driverOf(root, address); errors.Is(err, fs.ErrNotExist) || now != "" {
		return nil // another one may have been faster
	}
	if err != nil {
		return fmt.Errorf("give %s back to %s: %w", address, driver, err)
	}
	return nil
}

func orNone(driver string) string {
	if driver == "" {
		return "no driver"
	}
	return driver
}

func device(root, address string) string { return filepath.Join(root, "bus/pci/devices", address) }

// within does f, which may hang in the kernel, and waits no longer than so long.
func within(most time.Duration, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return ErrStuck
	}
}

// Node is the file of a device that vfio-pci has, below /dev: `vfio/devices/vfio0`. It is ""
// where the kernel has none.
func Node(address string) string { return node(sysfs, dev, address) }

func node(root, dev, address string) string {
	entries, err := os.ReadDir(filepath.Join(device(root, address), "vfio-dev"))
	if err != nil {
		return ""
	}
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), "vfio")
		if _, err := strconv.Atoi(number); !ok || err != nil {
			continue
		}
		path := filepath.Join(dev, "vfio/devices", e.Name())
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

// GroupNode is the file of an IOMMU group, all of which vfio-pci has, or nobody.
func GroupNode(group int) string { return filepath.Join(dev, "vfio", strconv.Itoa(group)) }

// Files that stand for a guest's memory as devices reach it: of iommufd for devices by Node,
// of a container for those by GroupNode.
const (
	IOMMUFD   = dev + "/iommu"
	Container = dev + "/vfio/vfio"
)
