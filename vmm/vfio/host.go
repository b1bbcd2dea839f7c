package vfio

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/ashlar-hv/ashlar/vmm/kvm"
	"github.com/ashlar-hv/ashlar/vmm/memory"
)

// A HostConfig is what all devices of a guest share.
type HostConfig struct {
	Memory *memory.Memory
	KVM    *kvm.VFIO
	// PeerToPeer has devices in a container reach each other's BARs.
	PeerToPeer bool
}

// A Host is the host's side of a guest's devices. Its methods may be called by several
// goroutines at once, except Close.
type Host struct {
	c HostConfig

	mu        sync.Mutex
	iommufd   *os.File // guarded by mu, as is all that follows
	space     *ioas    // of iommufd, from the first device on
	container *container
	groups    map[int]*group
	users     map[translation]int // devices of each
}

// A group is an IOMMU group whose devices go together.
type group struct {
	id    int
	f     *os.File
	users int
}

// NewHost makes a Host without any IOMMU.
func NewHost(c HostConfig) *Host {
	return &Host{c: c, groups: make(map[int]*group), users: make(map[translation]int)}
}

// UseIOMMUFD hands the Host /dev/iommu, of which it keeps the first and closes others.
func (h *Host) UseIOMMUFD(f *os.File) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.iommufd != nil {
		f.Close()
		return
	}
	h.iommufd = f
}

// UseContainer is UseIOMMUFD for /dev/vfio/vfio.
func (h *Host) UseContainer(f *os.File) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.container != nil {
		f.Close()
		return
	}
	h.container = &container{f: f}
}

// Has tells whether there is an iommufd, and a container.
func (h *Host) Has() (iommufd, container bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.iommufd != nil, h.container != nil
}

// Close closes what the devices shared, all of which are closed.
func (h *Host) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for _, g := range h.groups {
		errs = append(errs, g.f.Close())
	}
	if h.iommufd != nil {
		errs = append(errs, h.iommufd.Close())
	}
	if h.container != nil {
		errs = append(errs, h.container.f.Close())
	}
	return errors.Join(append(errs, h.c.KVM.Close())...)
}

// ErrNoIOMMU says that a device came without what it needs.
var ErrNoIOMMU = errors.New("no iommufd, or no container and group")

// bind makes a device file one of this guest's, which may be used from then on.
func (h *Host) bind(f *os.File) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.iommufd == nil {
		return ErrNoIOMMU
	}
	if err := h.c.KVM.Add(f); err != nil {
		return err
	}
	b := bindIOMMUFD{argsz: size[bindIOMMUFD](), iommufd: int32(h.iommufd.Fd())}
	if err := ioctlPtr(f, deviceBindIOMMUFD, &b); err != nil {
		return errors.Join(fmt.Errorf("VFIO_DEVICE_BIND_IOMMUFD: %w", err), h.c.KVM.Remove(f))
	}
	return nil
}

// join takes a group into the container. f is nil where the Host has it.
func (h *Host) join(id int, f *os.File) (*group, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	g := h.groups[id]
	switch {
	case g != nil && f != nil:
		return nil, fmt.Errorf("group %d is there already", id)
	case g == nil && f == nil, h.container == nil:
		return nil, ErrNoIOMMU
	case g != nil:
		g.users++
		return g, nil
	}
	status := groupStatus{argsz: size[groupStatus]()}
	if err := ioctlPtr(f, groupStatusIoctl, &status); err != nil {
		return nil, fmt.Errorf("VFIO_GROUP_GET_STATUS of group %d: %w", id, err)
	}
	if status.flags&groupViable == 0 {
		return nil, fmt.Errorf("group %d has devices that are not bound to vfio-pci: bind them all", id)
	}
	if err := h.c.KVM.Add(f); err != nil {
		return nil, err
	}
	err := setContainer(f, int32(h.container.f.Fd()))
	if err != nil {
		err = fmt.Errorf("VFIO_GROUP_SET_CONTAINER of group %d: %w", id, err)
	} else {
		err = h.container.setUp()
	}
	if err != nil {
		return nil, errors.Join(err, h.c.KVM.Remove(f))
	}
	g = &group{id: id, f: f, users: 1}
	h.groups[id] = g
	return g, nil
}

// part undoes join.
func (h *Host) part(g *group) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if g.users--; g.users > 0 {
		return nil
	}
	delete(h.groups, g.id)
	if len(h.groups) == 0 {
		h.container.set = false // the kernel forgets it with the last group
	}
	return errors.Join(h.c.KVM.Remove(g.f), g.f.Close())
}

// connect gives a device the guest's memory: f is nil for one that has it by its group.
func (h *Host) connect(f *os.File) (translation, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var t translation = h.container
	if f != nil {
		if h.space == nil {
			var err error
			if h.space, err = newIOAS(h.iommufd); err != nil {
				return nil, err
			}
		}
		a := attachIOAS{argsz: size[attachIOAS](), id: h.space.id}
		if err := ioctlPtr(f, deviceAttachIOAS, &a); err != nil {
			return nil, fmt.Errorf("VFIO_DEVICE_ATTACH_IOMMUFD_PT: %w", mapError(err))
		}
		t = h.space
	}
	if h.users[t] == 0 {
		if err := h.c.Memory.Follow(t); err != nil {
			return nil, err
		}
	}
	h.users[t]++
	return t, nil
}

// disconnect undoes connect, of a device that does no DMA.
func (h *Host) disconnect(t translation) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.users[t]--; h.users[t] > 0 {
		return nil
	}
	return h.c.Memory.Unfollow(t)
}
