package machine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/arch"
	"github.com/ashlar-hv/ashlar/vmm/kvm"
	"github.com/ashlar-hv/ashlar/vmm/pci"
)

// routes is the VM's table of interrupt routes: those of the controllers, which
// are fixed, and the messages of vectors. It implements pci.MSIRouter.
type routes struct {
	vm *kvm.VM

	mu    sync.Mutex
	fixed int         // guarded by mu, as is table
	table []kvm.Route // fixed ones, then one a vector that has a message
	used  map[uint32]bool
}

// newRoutes makes the fixed routes: GSI 0 to 15 lead to the PICs and the
// IOAPIC, the timer to its pin 2, and the rest to the IOAPIC alone.
func newRoutes(vm *kvm.VM) *routes {
	r := &routes{vm: vm, used: make(map[uint32]bool)}
	add := func(gsi, chip, pin uint32) {
		r.table = append(r.table, kvm.Route{GSI: gsi, Chip: chip, Pin: pin})
	}
	for gsi := range uint32(arch.GSIPins) {
		switch {
		case gsi < 8:
			add(gsi, kvm.IRQChipPICMaster, gsi)
		case gsi < 16:
			add(gsi, kvm.IRQChipPICSlave, gsi-8)
		}
		switch gsi {
		case 0:
			add(gsi, kvm.IRQChipIOAPIC, 2)
		case 2: // the PICs' cascade
		default:
			add(gsi, kvm.IRQChipIOAPIC, gsi)
		}
	}
	r.fixed = len(r.table)
	return r
}

// update hands the table to KVM.
func (r *routes) update() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.vm.SetRoutes(r.table)
}

// set gives gsi a message.
func (r *routes) set(gsi uint32, address uint64, data uint32) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	want := kvm.Route{GSI: gsi, MSI: true, Address: address, Data: data}
	for i := r.fixed; i < len(r.table); i++ {
		if e := &r.table[i]; e.GSI == gsi {
			if *e == want {
				return nil
			}
			old := *e
			*e = want
			if err := r.vm.SetRoutes(r.table); err != nil {
				*e = old
				return err
			}
			return nil
		}
	}
	r.table = append(r.table, want)
	if err := r.vm.SetRoutes(r.table); err != nil {
		r.table = r.table[:len(r.table)-1]
		return err
	}
	return nil
}

// drop takes gsi off the table and frees it.
func (r *routes) drop(gsi uint32) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.used, gsi)
	for i := r.fixed; i < len(r.table); i++ {
		if r.table[i].GSI == gsi {
			r.table = append(r.table[:i], r.table[i+1:]...)
			return r.vm.SetRoutes(r.table)
		}
	}
	return nil
}

// NewVector implements pci.MSIRouter.
func (r *routes) NewVector() (pci.Vector, error) {
	f, err := newEventFD("msi")
	if err != nil {
		return nil, err
	}
	// Reads are made past the runtime's poller, which would wake this process
	// at every interrupt of a device.
	if err := unix.SetNonblock(int(f.Fd()), true); err != nil {
		f.Close()
		return nil, fmt.Errorf("make interrupt vector: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for gsi := uint32(arch.GSIPins); gsi < kvm.MaxRoutes-arch.GSIPins; gsi++ {
		if !r.used[gsi] {
			r.used[gsi] = true
			return &vector{r: r, f: f, fd: int(f.Fd()), gsi: gsi, masked: true}, nil
		}
	}
	f.Close()
	return nil, errors.New("make interrupt vector: all are in use")
}

// A vector is one message signalled interrupt: an eventfd that is an irqfd
// while the vector is not masked. It implements pci.Vector.
type vector struct {
	r   *routes
	f   *os.File
	fd  int
	gsi uint32

	mu      sync.Mutex
	masked  bool // guarded by mu, as is waiting
	waiting bool // a signal was read off the eventfd and is yet to be delivered
}

// errAddress says that a message is no interrupt message.
var errAddress = errors.New("no interrupt message address")

func (v *vector) EventFD() *os.File { return v.f }

// Set implements pci.Vector. Messages go to addresses 0xFEExxxxx (Intel SDM
// volume 3, section 11.11.1).
func (v *vector) Set(address uint64, data uint32) error {
	if address>>20 != arch.LAPICBase>>20 {
		return fmt.Errorf("address %#x: %w", address, errAddress)
	}
	return v.r.set(v.gsi, address, data)
}

func (v *vector) Mask() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.masked {
		return nil
	}
	if err := v.r.vm.RemoveIRQFD(v.f, v.gsi); err != nil {
		return err
	}
	v.masked = true
	return nil
}

func (v *vector) Unmask() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.masked {
		return nil
	}
	v.drain()
	if err := v.r.vm.IRQFD(v.f, v.gsi); err != nil {
		return err
	}
	v.masked = false
	if v.waiting {
		v.waiting = false
		signal(v.f)
	}
	return nil
}

func (v *vector) Pending() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.masked {
		return false
	}
	v.drain()
	return v.waiting
}

// drain takes signals off the eventfd; mu is held and the vector masked, so
// that nobody else reads it.
func (v *vector) drain() {
	var b [8]byte
	if n, err := unix.Read(v.fd, b[:]); err == nil && n == len(b) {
		v.waiting = true
	}
}

func (v *vector) Close() error {
	return errors.Join(v.Mask(), v.r.drop(v.gsi), v.f.Close())
}

// notifier implements pci.Notifier.
type notifier struct{ vm *kvm.VM }

func (n notifier) IOEventFD(gpa uint64, size int, fd *os.File) error {
	return n.vm.IOEventFD(kvm.IOEvent{Address: gpa, Length: size}, fd)
}

func (n notifier) RemoveIOEventFD(gpa uint64, size int, fd *os.File) error {
	return n.vm.RemoveIOEventFD(kvm.IOEvent{Address: gpa, Length: size}, fd)
}

// newEventFD makes an eventfd that the runtime's poller does not watch.
func newEventFD(name string) (*os.File, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make eventfd %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

var one = binary.NativeEndian.AppendUint64(nil, 1)

// signal adds one to an eventfd. It fails only on a counter that is full, which
// is signalled as much as can be, or a closed file, which nobody waits for.
func signal(f *os.File) { _, _ = f.Write(one) }
