package vfio

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/memory"
)

var (
	// ErrLocked says that the kernel does not let the process lock so much memory
	// (RLIMIT_MEMLOCK).
	ErrLocked = errors.New("more memory than may be locked")
	// ErrReach says that the IOMMU, or what else the host has between it and the device, cannot
	// map an address of the guest's.
	ErrReach = errors.New("the IOMMU cannot reach it")
)

// A translation is an IOMMU's page tables: what devices see at an address is what the guest has there.
// It implements memory.Follower.
type translation interface {
	memory.Follower
	// mapBAR and unmapBAR show a BAR of one device, which KVM shows the guest there, to
	// the others.
	mapBAR(gpa, size uint64, host uintptr) error
	unmapBAR(gpa, size uint64) error
}

// mapError says what an error of mapping means.
func mapError(err error) error {
	switch {
	case errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("%w: %w", ErrLocked, err)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EADDRINUSE), errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: %w", ErrReach, err)
	}
	return err
}

// errNoBARs says that an iommufd maps memory alone (Linux 6.12).
var errNoBARs = errors.New("an iommufd maps no BARs")

// An ioas is an address space of an iommufd (Documentation/userspace-api/iommufd.rst).
type ioas struct {
	f  *os.File
	id uint32
}

func newIOAS(f *os.File) (*ioas, error) {
	a := allocIOAS{size: size[allocIOAS]()}
	if err := ioctlPtr(f, iommufdAllocIOAS, &a); err != nil {
		return nil, fmt.Errorf("IOMMU_IOAS_ALLOC: %w", err)
	}
	return &ioas{f, a.id}, nil
}

// Map maps r in one piece: the kernel takes the largest pages that addresses and memory allow.
func (a *ioas) Map(r memory.Region) error {
	m := ioasMap{size: size[ioasMap](), flags: iommuFixedReadable, ioas: a.id, vaddr: uint64(r.HostAddr), length: r.Size, iova: r.GPA}
	if err := ioctlPtr(a.f, iommufdMap, &m); err != nil {
		return fmt.Errorf("IOMMU_IOAS_MAP: %w", mapError(err))
	}
	return nil
}

func (a *ioas) Unmap(r memory.Region) error {
	u := ioasUnmap{size: size[ioasUnmap](), ioas: a.id, iova: r.GPA, length: r.Size}
	if err := ioctlPtr(a.f, iommufdUnmap, &u); err != nil {
		return fmt.Errorf("IOMMU_IOAS_UNMAP at %#x: %w", r.GPA, err)
	}
	return nil
}

func (a *ioas) mapBAR(uint64, uint64, uintptr) error { return errNoBARs }
func (a *ioas) unmapBAR(uint64, uint64) error        { return errNoBARs }

// A container is the older interface (Documentation/driver-api/vfio.rst).
type container struct {
	f   *os.File
	set bool // has its IOMMU, which it takes a group for
}

// setUp gives the container its IOMMU. It has a group.
func (c *container) setUp() error {
	if c.set {
		return nil
	}
	if err := ioctl(c.f, setIOMMU, type1v2); err != nil {
		return fmt.Errorf("VFIO_SET_IOMMU: %w", err)
	}
	c.set = true
	return nil
}

func (c *container) Map(r memory.Region) error   { return c.mapBAR(r.GPA, r.Size, r.HostAddr) }
func (c *container) Unmap(r memory.Region) error { return c.unmapBAR(r.GPA, r.Size) }

func (c *container) mapBAR(gpa, length uint64, host uintptr) error {
	m := dmaMap{argsz: size[dmaMap](), flags: dmaReadWrite, vaddr: uint64(host), iova: gpa, size: length}
	if err := ioctlPtr(c.f, mapDMA, &m); err != nil {
		return fmt.Errorf("VFIO_IOMMU_MAP_DMA: %w", mapError(err))
	}
	return nil
}

func (c *container) unmapBAR(gpa, length uint64) error {
	u := dmaUnmap{argsz: size[dmaUnmap](), iova: gpa, size: length}
	if err := ioctlPtr(c.f, unmapDMA, &u); err != nil {
		return fmt.Errorf("VFIO_IOMMU_UNMAP_DMA at %#x: %w", gpa, err)
	}
	return nil
}
