// Package vhost lets the kernel serve virtio queues: linux/vhost.h and the
// vhost drivers (vhost-net and vhost-vsock here). The driver reads and writes guest memory
// through this process's mappings, takes kicks from one eventfd and raises
// interrupts by another; no packet passes through this process. A Device is the open
// driver, Queues what a virtio device does with it.
package vhost

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/jail"
	"github.com/ashlar-hv/ashlar/vmm/memory"
	"github.com/ashlar-hv/ashlar/vmm/virtio/queue"
)

// Rules are the system calls that a Device needs after New: guests start and
// reset their devices at any time.
func Rules() []jail.Rule {
	var rules []jail.Rule
	for _, n := range []uint64{
		setFeatures, setMemTable, setVringNum, setVringAddr, setVringBase, getVringBase,
		setVringKick, setVringCall, setVringErr, netSetBackend, vsockSetRunning,
	} {
		rules = append(rules, jail.Allow(unix.SYS_IOCTL, "queues in the kernel (vhost)", jail.Masked(1, 1<<32-1, n)))
	}
	return rules
}

// A Device is one open vhost device. Its methods are called by one goroutine at a
// time.
type Device struct {
	f        *os.File
	features uint64
}

// New takes f, /dev/vhost-net or /dev/vhost-vsock newly opened, which the Device owns on success, and
// makes this process its owner: the kernel's worker uses this process's memory.
func New(f *os.File) (*Device, error) {
	d := &Device{f: f}
	if err := own(f); err != nil {
		return nil, fmt.Errorf("VHOST_SET_OWNER: %w", err)
	}
	if err := ioctl(f, getFeatures, &d.features); err != nil {
		return nil, fmt.Errorf("VHOST_GET_FEATURES: %w", err)
	}
	return d, nil
}

// own makes this process the owner of f. A signal that waits for the thread
// keeps the kernel from making its worker, which it then calls ENOMEM
// (vhost_dev_set_owner). Go's scheduler sends such signals: they have to wait.
func own(f *os.File) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &old); err != nil {
		return fmt.Errorf("hold back signals: %w", err)
	}
	err := ioctl[byte](f, setOwner, nil)
	return errors.Join(err, unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil))
}

// Close closes the device, which ends what it serves.
func (d *Device) Close() error { return d.f.Close() }

// Features are the feature bits that the kernel's driver knows.
func (d *Device) Features() uint64 { return d.features }

// SetFeatures chooses of Features.
func (d *Device) SetFeatures(f uint64) error {
	if err := ioctl(d.f, setFeatures, &f); err != nil {
		return fmt.Errorf("VHOST_SET_FEATURES %#x: %w", f, err)
	}
	return nil
}

// SetMemory shows the driver the guest's memory.
func (d *Device) SetMemory(m *memory.Memory) error {
	var t memoryTable
	for _, r := range m.HostRegions() {
		if t.nregions == maxRegions {
			return fmt.Errorf("VHOST_SET_MEM_TABLE: over %d regions", maxRegions)
		}
		t.regions[t.nregions] = memoryRegion{gpa: r.GPA, size: r.Size, userAddr: uint64(r.HostAddr)}
		t.nregions++
	}
	if err := ioctl(d.f, setMemTable, &t); err != nil {
		return fmt.Errorf("VHOST_SET_MEM_TABLE: %w", err)
	}
	return nil
}

// SetQueue tells where queue index lies and where it begins. kick is read by
// the driver; errs is signalled when it finds the queue malformed.
func (d *Device) SetQueue(index uint32, m *memory.Memory, c queue.Config, kick, errs *os.File) error {
	a, err := addresses(index, m, c)
	if err != nil {
		return err
	}
	if err := ioctl(d.f, setVringNum, &vringState{index: index, num: uint32(c.Size)}); err != nil {
		return fmt.Errorf("VHOST_SET_VRING_NUM %d of queue %d: %w", c.Size, index, err)
	}
	if err := ioctl(d.f, setVringBase, &vringState{index: index, num: uint32(c.Start.Avail)}); err != nil {
		return fmt.Errorf("VHOST_SET_VRING_BASE of queue %d: %w", index, err)
	}
	if err := ioctl(d.f, setVringAddr, &a); err != nil {
		return fmt.Errorf("VHOST_SET_VRING_ADDR of queue %d: %w", index, err)
	}
	if err := d.file(setVringKick, index, kick); err != nil {
		return fmt.Errorf("VHOST_SET_VRING_KICK of queue %d: %w", index, err)
	}
	if err := d.file(setVringErr, index, errs); err != nil {
		return fmt.Errorf("VHOST_SET_VRING_ERR of queue %d: %w", index, err)
	}
	return nil
}

// addresses is where the parts of the queue are in this process.
func addresses(index uint32, m *memory.Memory, c queue.Config) (vringAddr, error) {
	a := vringAddr{index: index}
	n := uint64(c.Size)
	for _, p := range []struct {
		to     *uint64
		gpa, n uint64
	}{
		{&a.desc, c.Desc, 16 * n}, {&a.avail, c.Driver, 6 + 2*n}, {&a.used, c.Device, 6 + 8*n},
	} {
		host, err := m.HostSpan(p.gpa, p.n)
		if err != nil {
			return vringAddr{}, fmt.Errorf("queue %d: %w", index, err)
		}
		*p.to = uint64(host)
	}
	return a, nil
}

// SetCall makes f the file that raises the interrupt of queue index; nil is no
// interrupt. It may be called while the queue is served.
func (d *Device) SetCall(index uint32, f *os.File) error {
	if err := d.file(setVringCall, index, f); err != nil {
		return fmt.Errorf("VHOST_SET_VRING_CALL of queue %d: %w", index, err)
	}
	return nil
}

// SetBackend starts queue index on the tap, or, with nil, stops it: when that
// returns nothing of the queue is under way.
func (d *Device) SetBackend(index uint32, tap *os.File) error {
	if err := d.file(netSetBackend, index, tap); err != nil {
		return fmt.Errorf("VHOST_NET_SET_BACKEND of queue %d: %w", index, err)
	}
	return nil
}

// Base is how far a stopped queue came in the Available Ring.
func (d *Device) Base(index uint32) (uint16, error) {
	s := vringState{index: index}
	if err := ioctl(d.f, getVringBase, &s); err != nil {
		return 0, fmt.Errorf("VHOST_GET_VRING_BASE of queue %d: %w", index, err)
	}
	return uint16(s.num), nil
}

// file binds f, or with nil unbinds.
func (d *Device) file(number uintptr, index uint32, f *os.File) error {
	a := vringFile{index: index, fd: -1}
	if f != nil {
		a.fd = int32(f.Fd())
	}
	return ioctl(d.f, number, &a)
}
