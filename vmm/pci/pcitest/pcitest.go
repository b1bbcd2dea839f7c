// Package pcitest stands in for the hypervisor in unit tests of PCI functions:
// vectors that raise nothing but their eventfd, and a table of ioeventfds.
package pcitest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/pci"
)

// ErrMessage is what Vector.Set answers for an address that is no MSI address.
var ErrMessage = errors.New("no MSI address")

// A Router makes Vectors and remembers them in order.
type Router struct {
	mu      sync.Mutex
	Vectors []*Vector
}

// NewVector makes a masked vector.
func (r *Router) NewVector() (pci.Vector, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	v := &Vector{f: os.NewFile(uintptr(fd), "vector"), masked: true}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Vectors = append(r.Vectors, v)
	return v, nil
}

// A Vector keeps its message and its signals.
type Vector struct {
	f *os.File

	mu      sync.Mutex
	address uint64
	data    uint32
	masked  bool
}

// EventFD is the file to signal.
func (v *Vector) EventFD() *os.File { return v.f }

// Set keeps the message, if it is one of x86 (0xfeexxxxx).
func (v *Vector) Set(address uint64, data uint32) error {
	if address>>20 != 0xfee {
		return fmt.Errorf("%#x: %w", address, ErrMessage)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.address, v.data = address, data
	return nil
}

// Mask masks.
func (v *Vector) Mask() error { return v.set(true) }

// Unmask unmasks.
func (v *Vector) Unmask() error { return v.set(false) }

func (v *Vector) set(masked bool) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.masked = masked
	return nil
}

// Message returns what Set was given and whether the vector is masked.
func (v *Vector) Message() (address uint64, data uint32, masked bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.address, v.data, v.masked
}

// Pending tells whether a signal waits.
func (v *Vector) Pending() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.masked && v.readable(0)
}

func (v *Vector) readable(d time.Duration) bool {
	p := []unix.PollFd{{Fd: int32(v.f.Fd()), Events: unix.POLLIN}}
	for end := time.Now().Add(d); ; {
		n, err := unix.Poll(p, int(max(time.Until(end), 0).Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return err == nil && n == 1
	}
}

// Take waits up to d for a signal of a vector that is not masked, and clears it.
func (v *Vector) Take(d time.Duration) bool {
	if _, _, masked := v.Message(); masked || !v.readable(d) {
		return false
	}
	var b [8]byte
	_, err := v.f.Read(b[:])
	return err == nil
}

// Close closes the eventfd.
func (v *Vector) Close() error { return v.f.Close() }

// A Notifier keeps ioeventfds by address.
type Notifier struct {
	mu    sync.Mutex
	files map[uint64]*os.File
	// Full makes IOEventFD fail, as KVM does when it has no room.
	Full bool
}

// IOEventFD remembers fd at gpa.
func (n *Notifier) IOEventFD(gpa uint64, _ int, fd *os.File) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.Full {
		return unix.ENOSPC
	}
	if n.files[gpa] != nil {
		return unix.EEXIST
	}
	if n.files == nil {
		n.files = make(map[uint64]*os.File)
	}
	n.files[gpa] = fd
	return nil
}

// RemoveIOEventFD forgets what is at gpa.
func (n *Notifier) RemoveIOEventFD(gpa uint64, _ int, fd *os.File) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.files[gpa] != fd {
		return unix.ENOENT
	}
	delete(n.files, gpa)
	return nil
}

// Len is how many ioeventfds there are.
func (n *Notifier) Len() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.files)
}

// Write is a guest's write to gpa: it tells whether an ioeventfd took it.
func (n *Notifier) Write(gpa uint64) bool {
	n.mu.Lock()
	f := n.files[gpa]
	n.mu.Unlock()
	if f == nil {
		return false
	}
	_, err := f.Write(binary.NativeEndian.AppendUint64(nil, 1))
	return err == nil
}
