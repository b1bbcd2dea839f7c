package memory

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A DeviceMapping is memory of a device, mapped so that KVM can show it to the guest.
type DeviceMapping struct {
	p    hostPointer
	size uint64
}

// MapDevice maps size bytes at off of f, at an address that is the same as base modulo align, a power of
// two up to 1 GiB: so large entries of page tables fit where the device has base at such
// a multiple, too.
func MapDevice(f *os.File, off, size, base, align uint64) (*DeviceMapping, error) {
	if size == 0 || (size|off|base)%PageSize != 0 || align < PageSize || align > maxPageSize || align&(align-1) != 0 {
		return nil, fmt.Errorf("map %d bytes of %s at %#x: %w", size, f.Name(), off, ErrSize)
	}
	p, err := mapFileAt(f, off, size, align, base%align, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes of %s at %#x: %w", size, f.Name(), off, err)
	}
	return &DeviceMapping{p, size}, nil
}

// HostAddr is where the mapping is in this process: for the kernel only.
func (d *DeviceMapping) HostAddr() uintptr { return uintptr(d.p) }

// Close unmaps it: KVM and IOMMU know of it no longer.
func (d *DeviceMapping) Close() error {
	if d.p == nil {
		return nil
	}
	err := unmap(d.p, d.size)
	d.p = nil
	return err
}
