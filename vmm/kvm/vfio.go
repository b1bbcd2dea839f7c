package kvm

import (
	"fmt"
	"os"
	"structs"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/jail"
)

// createDevice is struct kvm_create_device.
type createDevice struct {
	_     structs.HostLayout
	typ   uint32
	fd    uint32
	flags uint32
}

// deviceAttr is struct kvm_device_attr.
type deviceAttr struct {
	_     structs.HostLayout
	flags uint32
	group uint32
	attr  uint64
	addr  uint64 // user address
}

const (
	deviceVFIO = 4 // KVM_DEV_TYPE_VFIO

	vfioFile       = 1 // KVM_DEV_VFIO_FILE
	vfioFileAdd    = 1 // KVM_DEV_VFIO_FILE_ADD
	vfioFileRemove = 2 // KVM_DEV_VFIO_FILE_DEL
)

// A VFIO tells KVM which devices of the host's the VM has (Documentation/virt/kvm/devices/vfio.rst):
// KVM looks after what they do to caches, and some drivers want to know the VM.
// Its methods may be called by several goroutines at once, except Close.
type VFIO struct{ f *os.File }

// CreateVFIO makes the VM's VFIO, of which it has one (KVM_CREATE_DEVICE).
func (v *VM) CreateVFIO() (*VFIO, error) {
	c := createDevice{typ: deviceVFIO}
	if err := createKVMDevice(v.f, &c); err != nil {
		return nil, fmt.Errorf("KVM_CREATE_DEVICE of VFIO (CONFIG_KVM_VFIO): %w", err)
	}
	return &VFIO{os.NewFile(uintptr(c.fd), "kvm-vfio")}, nil
}

// Add tells KVM of f, a group or a device that is not bound yet. KVM holds it until Remove.
func (d *VFIO) Add(f *os.File) error { return d.set(vfioFileAdd, f) }

// Remove undoes Add.
func (d *VFIO) Remove(f *os.File) error { return d.set(vfioFileRemove, f) }

func (d *VFIO) set(attr uint64, f *os.File) error {
	if err := setDeviceFile(d.f, deviceAttr{group: vfioFile, attr: attr}, int32(f.Fd())); err != nil {
		return fmt.Errorf("KVM_SET_DEVICE_ATTR %d of VFIO with %s: %w", attr, f.Name(), err)
	}
	return nil
}

// Close closes the VFIO, with which KVM lets go of all files.
func (d *VFIO) Close() error { return d.f.Close() }

// LevelIRQFD makes a write to the eventfd trigger raise gsi, a pin of a controller, until
// the guest has handled it; then resample is signalled, and whoever still wants the interrupt
// writes to trigger again (KVM_IRQFD_FLAG_RESAMPLE). Several may share a pin.
// RemoveIRQFD of trigger undoes it.
func (v *VM) LevelIRQFD(trigger, resample *os.File, gsi uint32) error {
	a := irqfd{fd: uint32(trigger.Fd()), gsi: gsi, flags: irqfdResample, resamplefd: uint32(resample.Fd())}
	if err := setIRQFD(v.f, &a); err != nil {
		return fmt.Errorf("KVM_IRQFD with resampling of GSI %d: %w", gsi, err)
	}
	return nil
}

// VFIORules are the ioctls that a VM with devices of the host's needs besides Rules.
func VFIORules() []jail.Rule {
	return []jail.Rule{
		jail.Allow(unix.SYS_IOCTL, "a guest moves a BAR of a device of the host's; the kernel takes only memory of this process",
			jail.Equal(1, uint64(kvmSetUserMemoryRegion))),
		jail.Allow(unix.SYS_IOCTL, "KVM is told of a device that comes or goes", jail.Equal(1, uint64(kvmSetDeviceAttr))),
	}
}
