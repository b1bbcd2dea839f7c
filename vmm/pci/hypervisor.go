package pci

import "os"

// An MSIRouter makes interrupt vectors. Under KVM it owns the GSI routing
// table; it is safe for use by several goroutines.
type MSIRouter interface {
	// NewVector makes a vector: an eventfd and, under KVM, a GSI of its own.
	// It starts masked, with no message. All vectors of a machine are made
	// before it enters its jail.
	NewVector() (Vector, error)
}

// A Vector is one message signalled interrupt. Its methods may be called by
// several goroutines at once, except that Set, Mask, Unmask and Close are
// called by one at a time (the MSI-X table's lock).
type Vector interface {
	// EventFD raises the interrupt when 8 bytes holding a native-endian number
	// other than 0 are written to it. It is handed to vhost as it is, so it
	// stays the same file for the life of the vector. Its owner is the
	// Vector; nobody but the Vector reads from it.
	EventFD() *os.File
	// Set changes the message. It is called with the vector masked, or while
	// it is live (a change of the CPU it goes to): no signal may be lost.
	// An address that is no valid MSI address is an error and leaves the
	// vector as it was.
	Set(address uint64, data uint32) error
	// Mask keeps signals from the guest from now on: they gather in the
	// eventfd (under KVM: the irqfd is taken off). Masking twice is nothing.
	Mask() error
	// Unmask lets signals through again. What gathered since Mask is
	// delivered as one interrupt (under KVM: drain the eventfd, assign the
	// irqfd, and write 1 if there had been something).
	Unmask() error
	// Pending tells whether a signal waits in a masked vector (poll the
	// eventfd for POLLIN; do not read it). It is false for one that is not
	// masked.
	Pending() bool
	// Close takes the vector off the routing table and closes its eventfd.
	Close() error
}

// A Notifier makes guest writes signal an eventfd without leaving the
// kernel: KVM_IOEVENTFD on the MMIO bus.
type Notifier interface {
	// IOEventFD makes guest writes of size bytes at gpa signal fd. Size 0
	// means a write of any size (it needs no length match, which is faster).
	IOEventFD(gpa uint64, size int, fd *os.File) error
	// RemoveIOEventFD undoes the IOEventFD of just these arguments.
	RemoveIOEventFD(gpa uint64, size int, fd *os.File) error
}
