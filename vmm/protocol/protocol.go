// Package protocol is what core and a VMM process say to each other.
//
// core starts a VMM with two descriptors: ListenFD, a listening
// SOCK_SEQPACKET socket on which the VMM takes one connection at a time for
// the rest of its life (so that a restarted core can adopt it), and ResultFD,
// an empty file into which the VMM writes its Result before it exits. The
// first connection brings the first message, a Request with Method Configure:
// its Spec names descriptors by their place among those that came beside the
// message. Everything the VMM will ever open is in that message.
//
// After Configure the VMM enters its jail, checks and loads everything, answers,
// and runs the guest. Every Request has one Response with the same ID.
package protocol

// Descriptors that a VMM process finds open when it starts, besides 0 to 2.
const (
	ListenFD = 3
	ResultFD = 4
)

// A Method names what a Request asks for.
type Method string

// Methods.
const (
	// Configure brings the Spec and starts the guest. Once, first.
	Configure Method = "configure"
	// Query asks for the Status.
	Query Method = "query"
	// PowerButton presses the ACPI power button.
	PowerButton Method = "power-button"
	// Stop ends the guest at once, after flushing what its disks have written.
	Stop Method = "stop"
	// Pause stops all vCPUs and devices; Resume lets them go on.
	Pause  Method = "pause"
	Resume Method = "resume"
	// Console asks for a connected stream socket to the serial console. The
	// Response brings it. It carries first the last output (up to
	// ConsoleReplay bytes), then what follows; bytes written to it are typed
	// at the console. A reader that is too slow loses output, not the guest time.
	Console Method = "console"
	// Counters asks for Counters.
	CountersMethod Method = "counters"
)

// ConsoleReplay is how many bytes of console output a VMM remembers.
const ConsoleReplay = 64 << 10

// A Request is one call from core to the VMM.
type Request struct {
	ID     uint64 `json:"id"`
	Method Method `json:"method"`
	Spec   *Spec  `json:"spec,omitempty"` // Configure only
}

// A Response answers the Request with the same ID.
type Response struct {
	ID       uint64            `json:"id"`
	Error    *Error            `json:"error,omitempty"`
	Status   *Status           `json:"status,omitempty"`   // Query, Configure
	Counters map[string]uint64 `json:"counters,omitempty"` // CountersMethod
}

// ErrorCode says whose fault an Error is.
type ErrorCode string

// Error codes.
const (
	// InvalidArgument: the Spec, kernel image, disk or request is wrong.
	InvalidArgument ErrorCode = "invalid-argument"
	// FailedPrecondition: not in this state.
	FailedPrecondition ErrorCode = "failed-precondition"
	// Unavailable: the host lacks something (KVM, memory).
	Unavailable ErrorCode = "unavailable"
	// Internal: a bug.
	Internal ErrorCode = "internal"
)

// An Error is why a Request was refused. Field names the part of the Spec at
// fault in JSON path form (`disks[0].file`), where there is one.
type Error struct {
	Code    ErrorCode `json:"code"`
	Field   string    `json:"field,omitempty"`
	Message string    `json:"message"`
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// A File is the place (from 0) of a descriptor among those beside Configure.
type File int

// A Spec is all that a guest is made of.
type Spec struct {
	// Name is the guest's name, for logs only; UUID goes to its SMBIOS.
	Name string `json:"name"`
	UUID string `json:"uuid"`
	// VCPUs is 1 to 16.
	VCPUs int `json:"vcpus"`
	// MemoryBytes is a multiple of 2 MiB, from 32 MiB on; Memory is the memfd of
	// just that size.
	MemoryBytes uint64 `json:"memoryBytes"`
	Memory      File   `json:"memory"`
	// KVM is /dev/kvm.
	KVM  File `json:"kvm"`
	Boot Boot `json:"boot"`
	// Log receives all console output; bounded by the VMM to LogLimit bytes.
	Log   File   `json:"log"`
	Disks []Disk `json:"disks,omitempty"`
	NICs  []NIC  `json:"nics,omitempty"`
	// Entropy is a file to read randomness from (/dev/urandom).
	Entropy File `json:"entropy"`
	Jail    Jail `json:"jail"`
}

// LogLimit bounds a console log in bytes; the older half is dropped when it is
// reached.
const LogLimit = 1 << 20

// Boot is a Linux bzImage and what it is given.
type Boot struct {
	Kernel    File   `json:"kernel"`
	Initramfs *File  `json:"initramfs,omitempty"`
	Cmdline   string `json:"cmdline"`
}

// A Disk is a raw file or block device shown as virtio-blk.
type Disk struct {
	File     File   `json:"file"`
	ReadOnly bool   `json:"readOnly,omitempty"`
	Serial   string `json:"serial,omitempty"` // at most 20 bytes
}

// A NIC is a virtio-net device on a tap (opened with IFF_VNET_HDR) and, where
// there is one, a vhost-net descriptor.
type NIC struct {
	Tap   File   `json:"tap"`
	Vhost *File  `json:"vhost,omitempty"`
	MAC   string `json:"mac"`
	MTU   uint16 `json:"mtu,omitempty"`
}

// Jail says what the VMM becomes before it reads anything of the guest's.
type Jail struct {
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
}

// A State is where a guest is in its life.
type State string

// States of a VMM's guest.
const (
	Waiting State = "waiting" // before Configure
	Running State = "running"
	Paused  State = "paused"
	Stopped State = "stopped"
)

// A Reason says why a guest stopped.
type Reason string

// Reasons.
const (
	PoweredOff  Reason = "powered-off"  // the guest's own ACPI S5
	Reset       Reason = "reset"        // the guest asked for a reset
	Halted      Reason = "halted"       // every vCPU halted with interrupts off
	TripleFault Reason = "triple-fault" // KVM_EXIT_SHUTDOWN
	Killed      Reason = "killed"       // Stop
	Failed      Reason = "failed"       // the VMM could not go on; Message says why
)

// Status answers Query.
type Status struct {
	State   State  `json:"state"`
	PID     int    `json:"pid,omitempty"`
	Reason  Reason `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
}

// A Result is what a VMM writes to ResultFD as JSON before it exits.
type Result struct {
	Reason  Reason `json:"reason"`
	Message string `json:"message,omitempty"`
}
