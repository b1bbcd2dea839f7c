package vfio

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// errNoDevice is what the kernel says of a device that the driver does not have.
var errNoDevice = unix.ENODEV

// write writes text to a file of sysfs below bus/pci. Nothing is made there that is not.
func write(root, text string, path ...string) error {
	name := filepath.Join(root, "bus/pci", filepath.Join(path...))
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
