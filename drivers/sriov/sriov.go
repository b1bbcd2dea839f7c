// Package sriov makes the virtual functions of PCI devices and sets up those of
// network cards: how many there are by sysfs (the kernel's Documentation/PCI/
// pci-iov-howto.rst and Documentation/ABI/testing/sysfs-bus-pci), what each may do by
// rtnetlink(7), through the network interface of the physical function (IFLA_VFINFO_LIST
// of linux/if_link.h).
package sriov

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// sysfs is where it is mounted.
const sysfs = "/sys"

// Create gives the physical function at a PCI address n virtual ones in place of those
// that it has; all of these go, also where it fails then. No driver of the host's takes the new ones.
func Create(address string, n int) error { return create(sysfs, address, n) }

func create(root, address string, n int) error {
	dir := device(root, address)
	have, err := Count(root, address)
	if err != nil {
		return err
	}
	if have == n {
		return nil
	}
	// The kernel changes the number to and from 0 alone.
	if have > 0 {
		if err := write(dir, "sriov_numvfs", 0); err != nil {
			return fmt.Errorf("remove virtual functions of %s: %w", address, why(err))
		}
	}
	if n == 0 {
		return nil
	}
	if err := write(dir, "sriov_drivers_autoprobe", 0); err != nil {
		return fmt.Errorf("keep drivers from virtual functions of %s: %w", address, err)
	}
	if err := write(dir, "sriov_numvfs", n); err != nil {
		return fmt.Errorf("make %d virtual functions of %s: %w", n, address, why(err))
	}
	return nil
}

// why says what errors of the kernel mean here.
func why(err error) error {
	for errno, text := range map[unix.Errno]string{
		unix.ENOMEM: "the firmware has left too few bus numbers or too little address space: switch SR-IOV on in its setup",
		unix.EBUSY:  "they are in use",
		unix.EPERM:  "the driver does not let go of them, or has been told to make them itself",
		unix.ENOENT: "the host's driver of the device cannot make virtual functions",
	} {
		if errors.Is(err, errno) {
			return fmt.Errorf("%w (%s)", err, text)
		}
	}
	return err
}

// Count is how many virtual functions the physical one at an address has. root is "/sys".
func Count(root, address string) (int, error) {
	b, err := os.ReadFile(filepath.Join(device(root, address), "sriov_numvfs"))
	if err != nil {
		return 0, fmt.Errorf("count virtual functions of %s: %w", address, err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || n < 0 {
		return 0, fmt.Errorf("count virtual functions of %s: it has %q", address, b)
	}
	return n, nil
}

// Functions are the addresses of the virtual functions of a physical one, in their order.
// root is "/sys".
func Functions(root, address string) ([]string, error) {
	n, err := Count(root, address)
	if err != nil {
		return nil, err
	}
	var out []string
	for i := range n {
		to, err := os.Readlink(filepath.Join(device(root, address), fmt.Sprintf("virtfn%d", i)))
		if err != nil {
			return nil, fmt.Errorf("find virtual function %d of %s: %w", i, address, err)
		}
		out = append(out, filepath.Base(to))
	}
	return out, nil
}

func device(root, address string) string { return filepath.Join(root, "bus/pci/devices", address) }

func write(dir, name string, n int) error {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strconv.Itoa(n))
	return errors.Join(err, f.Close())
}
