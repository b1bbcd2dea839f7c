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

import (
	"fmt"
	"time"
)

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
	// ResetMethod pulls the reset line: the guest ends with Reason Reset, after flushing
	// what its disks have written, also where it is paused. Whoever started it is to
	// start it again.
	ResetMethod Method = "reset"
	// NMI sends a non-maskable interrupt to every processor that takes it at its
	// second local interrupt pin, as a PC's NMI button does. The guest is running.
	NMI Method = "nmi"
	// SetBalloon asks the guest to give BalloonBytes of its memory back, or to take
	// back what it has given beyond that: now, or when it can.
	SetBalloon Method = "set-balloon"
	// BalloonMethod asks for the Balloon. The guest is asked for statistics, unless it was
	// within a second; where it does not answer at once, the last ones are told.
	BalloonMethod Method = "balloon"
	// SetDiskLimits brings Disk and Limits, which hold from now on instead of those of
	// the Spec: nil is none.
	SetDiskLimits Method = "set-disk-limits"
	// ResizeDisk brings Disk and Size: its file has that many bytes now, which is more than
	// the guest knows of, or just as many.
	ResizeDisk Method = "resize-disk"
	// SetLink brings NIC and LinkDown, which holds from now on instead of the Spec's: the guest
	// is told. No packet passes a link that is down, which is core's to see to.
	SetLink Method = "set-link"
	// Console asks for a connected stream socket to the serial console. The
	// Response brings it. It carries first the last output (up to
	// ConsoleReplay bytes), then what follows; bytes written to it are typed
	// at the console. A reader that is too slow loses output, not the guest time.
	Console Method = "console"
	// CountersMethod asks for Counters, at no cost to the guest: nothing is stopped.
	CountersMethod Method = "counters"
	// HistogramsMethod asks for Histograms in the same way.
	HistogramsMethod Method = "histograms"
)

// ConsoleReplay is how many bytes of console output a VMM remembers.
const ConsoleReplay = 64 << 10

// A Request is one call from core to the VMM.
type Request struct {
	ID     uint64 `json:"id"`
	Method Method `json:"method"`
	Spec   *Spec  `json:"spec,omitempty"` // Configure only
	// BalloonBytes is SetBalloon's: a multiple of 4096, at least BalloonLeaves below the
	// guest's memory.
	BalloonBytes uint64 `json:"balloonBytes,omitempty"`
	// Disk is the Number of one, for the methods of disks.
	Disk   int         `json:"disk,omitempty"`
	Limits *DiskLimits `json:"limits,omitempty"`
	Size   uint64      `json:"size,omitempty"` // bytes
	// NIC is the Number of one, for SetLink.
	NIC      int  `json:"nic,omitempty"`
	LinkDown bool `json:"linkDown,omitempty"`
	// NewDisk and NewNIC are what AttachDisk and AttachNIC bring; Device and Force are Detach's.
	NewDisk *Disk  `json:"newDisk,omitempty"`
	NewNIC  *NIC   `json:"newNic,omitempty"`
	Device  string `json:"device,omitempty"`
	Force   bool   `json:"force,omitempty"`
	// NewVFIO is what AttachVFIO brings.
	NewVFIO *NewVFIO `json:"newVfio,omitempty"`
	// VCPUs is SetVCPUs's.
	VCPUs int `json:"vcpus,omitempty"`
	// PluggedBytes is SetMemory's.
	PluggedBytes uint64 `json:"pluggedBytes,omitempty"`
	// PortName is ConnectPort's.
	PortName string `json:"portName,omitempty"`
}

// A Response answers the Request with the same ID.
type Response struct {
	ID       uint64    `json:"id"`
	Error    *Error    `json:"error,omitempty"`
	Status   *Status   `json:"status,omitempty"`   // all but CountersMethod and HistogramsMethod
	Counters *Counters `json:"counters,omitempty"` // CountersMethod
	Balloon  *Balloon  `json:"balloon,omitempty"`  // BalloonMethod
	// Histograms answers HistogramsMethod.
	Histograms Histograms `json:"histograms,omitempty"`
	Memory     *Memory    `json:"memory,omitempty"` // MemoryMethod
}

// BalloonLeaves is how many bytes of its memory a guest is never asked to give back.
const BalloonLeaves = 32 << 20

// A Balloon is memory that a guest gives back to the host for the time being.
type Balloon struct {
	// TargetBytes is what it was asked for, ActualBytes what it says it has given.
	TargetBytes uint64 `json:"targetBytes"`
	ActualBytes uint64 `json:"actualBytes"`
	// Statistics are what the guest says of its memory, by name, and StatisticsTime
	// when it said so, zero where it has not.
	Statistics     map[string]uint64 `json:"statistics,omitempty"`
	StatisticsTime time.Time         `json:"statisticsTime,omitzero"`
}

// Histograms are how long requests took since the guest was started, as DEVICE.KIND:
// disk0.read. The first count is of those that took less than 1 µs, the next of those
// that took less than 2 µs, 4 µs and so on; the last of HistogramBuckets has all others.
// Counts that are missing at the end are 0.
type Histograms map[string][]uint64

// HistogramBuckets is how many counts a histogram has at most.
const HistogramBuckets = 26

// Counters are what a guest has done since it was started. They only grow.
type Counters struct {
	// Devices has the counters of devices as DEVICE.NAME: disk0.read_bytes.
	Devices map[string]uint64 `json:"devices,omitempty"`
	// VCPUs has the counters of virtual processors by name, each with a value for
	// every vCPU up to the highest that is there, in the order of their numbers: so 128
	// of them fit a message.
	VCPUs map[string][]uint64 `json:"vcpus,omitempty"`
}

// ErrorCode says whose fault an Error is.
type ErrorCode string

// Error codes.
const (
	// InvalidArgument: the Spec, kernel image, disk or request is wrong.
	InvalidArgument ErrorCode = "invalid-argument"
	// FailedPrecondition: not in this state.
	FailedPrecondition ErrorCode = "failed-precondition"
	// Unavailable: the host lacks something (KVM, a feature of its kernel).
	Unavailable ErrorCode = "unavailable"
	// ResourceExhausted: the host has not enough memory left.
	ResourceExhausted ErrorCode = "resource-exhausted"
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
	// VCPUs is 1 to 128.
	VCPUs int `json:"vcpus"`
	// MaxVCPUs is how many there may come to be by SetVCPUs, VCPUs to 128; 0 is as many as
	// VCPUs, for ever.
	MaxVCPUs int `json:"maxVcpus,omitempty"`
	// CPU says what the vCPUs are like; without it they are cores of one socket,
	// with all features of the host's, and what the kernel does by default.
	CPU *CPU `json:"cpu,omitempty"`
	// MemoryBytes is a multiple of 2 MiB, from 32 MiB on; Memory is the memfd of
	// just that size, and that of Pluggable.
	MemoryBytes uint64     `json:"memoryBytes"`
	Memory      File       `json:"memory"`
	Pluggable   *Pluggable `json:"pluggable,omitempty"`
	// Backing says what the memory is made of; without it, of what the host gives.
	Backing *Backing `json:"backing,omitempty"`
	// NUMA are the nodes that vCPUs and memory are of, at most MaxNUMANodes; without any
	// the guest is told of none. NodeAccess is how fast the memory of each node is for each,
	// where anything is known of it.
	NUMA       []NUMANode `json:"numa,omitempty"`
	NodeAccess [][]Access `json:"nodeAccess,omitempty"`
	// Affinity is where vCPUs run, each in one of it at most: others run on any CPU. Their
	// threads join the control group whose cgroup.threads is VCPUGroup, where there is one.
	Affinity  []Affinity `json:"affinity,omitempty"`
	VCPUGroup *File      `json:"vcpuGroup,omitempty"`
	// BalloonBytes is what the guest is asked to give back of it, as SetBalloon takes it.
	BalloonBytes uint64 `json:"balloonBytes,omitempty"`
	// KVM is /dev/kvm.
	KVM  File `json:"kvm"`
	Boot Boot `json:"boot"`
	// Log receives all console output; bounded by the VMM to LogLimit bytes.
	Log   File   `json:"log"`
	Disks []Disk `json:"disks,omitempty"`
	NICs  []NIC  `json:"nics,omitempty"`
	// Vsock is how programs of the host reach the guest; nil for not at all.
	Vsock *Vsock `json:"vsock,omitempty"`
	// Ports are serial ports besides the console, up to MaxPorts, all of other names.
	Ports []Port `json:"ports,omitempty"`
	// HotplugSlots is how many slots there are for devices that come and go, 0 to MaxHotplugSlots.
	HotplugSlots int `json:"hotplugSlots,omitempty"`
	// VFIO are devices of the host's.
	VFIO *VFIO `json:"vfio,omitempty"`
	// Board says what the devices on board are to do. WatchdogExpired is whether the
	// watchdog ended the run before: its driver asks that.
	Board           *Board `json:"board,omitempty"`
	WatchdogExpired bool   `json:"watchdogExpired,omitempty"`
	// Entropy is a file to read randomness from (/dev/urandom).
	Entropy File `json:"entropy"`
	Jail    Jail `json:"jail"`
}

// threadsBase is how many threads a VMM may have besides those of its vCPUs: one
// and two of the kernel's for each of 64 disk queues and of two in each hot-plug slot,
// one for each vhost device, some of the runtime's own.
const threadsBase = 256 + 6*MaxHotplugSlots

// Threads is how many threads the VMM of a guest may have (RLIMIT_NPROC,
// pids.max): for each vCPU its own and one that Go may have besides.
func Threads(vcpus int) int { return threadsBase + 2*vcpus }

// A CPU says what vCPUs are like.
type CPU struct {
	// Model is "host", also if empty, or a baseline: "x86-64-v1" to "x86-64-v4".
	Model string `json:"model,omitempty"`
	// Sockets of Cores of Threads: their product is the largest number of vCPUs. 0 is 1 of
	// Sockets and Threads, and as many Cores as that takes.
	Sockets int `json:"sockets,omitempty"`
	Cores   int `json:"cores,omitempty"`
	Threads int `json:"threads,omitempty"`
	// HyperV shows Hyper-V's interface besides KVM's, as Windows wants it.
	HyperV bool `json:"hyperv,omitempty"`
	// HaltPollNs is how long the host waits for a halted vCPU to be woken before its
	// own CPU sleeps, at most: 0 to HaltPollLimit nanoseconds. nil leaves it to
	// the kernel.
	HaltPollNs *uint64 `json:"haltPollNs,omitempty"`
	// NoPVEOI hides KVM's short cut for the end of an interrupt (KVM_FEATURE_PV_EOI): each is an
	// exit then.
	NoPVEOI bool `json:"noPVEOI,omitempty"`
	// TSCDeadline shows the TSC deadline timer on a host without an invariant TSC, too. Timers may come late there.
	TSCDeadline bool `json:"tscDeadline,omitempty"`
}

// HaltPollLimit bounds CPU.HaltPollNs.
const HaltPollLimit = 10_000_000

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
	// Number is what it is named by: `disk3`. No two disks share one; where all are 0 they are
	// numbered by their places.
	Number   int    `json:"number,omitempty"`
	File     File   `json:"file"`
	ReadOnly bool   `json:"readOnly,omitempty"`
	Serial   string `json:"serial,omitempty"` // at most 20 bytes
	// Limits bound what it does; nil is no limit.
	Limits *DiskLimits `json:"limits,omitempty"`
}

// DiskLimits bound what a disk does in a second, by a bucket of tokens each: for the
// bytes that are read or written, and for operations, which are all requests, flushes
// too. A request that is larger than the bucket goes when that is full. 0 is no limit.
type DiskLimits struct {
	BytesPerSecond uint64 `json:"bytesPerSecond,omitempty"`
	// BurstBytes and BurstOperations are what can be had at once after a rest: 0 is a
	// tenth of what a second brings.
	BurstBytes          uint64 `json:"burstBytes,omitempty"`
	OperationsPerSecond uint64 `json:"operationsPerSecond,omitempty"`
	BurstOperations     uint64 `json:"burstOperations,omitempty"`
}

// Bounds of DiskLimits. Slower, a guest's kernel would take the disk for dead.
const (
	MinBytesPerSecond      = 64 << 10
	MaxBytesPerSecond      = 1 << 40
	MinOperationsPerSecond = 10
	MaxOperationsPerSecond = 10_000_000
)

// Check says what is wrong with l, by its field.
func (l *DiskLimits) Check() (field, wrong string) {
	if l == nil {
		return "", ""
	}
	field, wrong = checkRate("bytesPerSecond", l.BytesPerSecond, MinBytesPerSecond, MaxBytesPerSecond, "burstBytes", l.BurstBytes)
	if wrong == "" {
		field, wrong = checkRate("operationsPerSecond", l.OperationsPerSecond, MinOperationsPerSecond, MaxOperationsPerSecond,
			"burstOperations", l.BurstOperations)
	}
	return field, wrong
}

func checkRate(rateField string, rate, least, most uint64, burstField string, burst uint64) (field, wrong string) {
	switch {
	case rate != 0 && (rate < least || rate > most):
		return rateField, fmt.Sprintf("is %d: %d to %d, or 0 for no limit", rate, least, most)
	case burst > most:
		return burstField, fmt.Sprintf("is %d: at most %d", burst, most)
	case burst != 0 && rate == 0:
		return burstField, fmt.Sprintf("is %d without a limit: say that, too", burst)
	}
	return "", ""
}

// A NIC is a virtio-net device on a tap.
type NIC struct {
	// Number is what it is named by, as that of a Disk.
	Number int `json:"number,omitempty"`
	// Pairs are the queues of the tap, 1 to 16: the guest has a pair of queues for each.
	Pairs []Pair `json:"pairs"`
	MAC   string `json:"mac"`
	MTU   uint16 `json:"mtu,omitempty"`
	// LinkDown is as SetLink takes it.
	LinkDown bool `json:"linkDown,omitempty"`
}

// A Pair is a queue of a tap (opened with IFF_VNET_HDR, and with IFF_MULTI_QUEUE
// where there are several) and a vhost-net descriptor, which a NIC with one pair
// can do without. The tap does not block (O_NONBLOCK); the VMM has it block where there is
// vhost-net.
type Pair struct {
	Tap   File  `json:"tap"`
	Vhost *File `json:"vhost,omitempty"`
}

// Pairs is how many pairs of queues each of the nics network devices of a guest has
// where nothing else is asked for: one per vCPU, unless those of many devices would be
// too many threads and descriptors.
func Pairs(vcpus, nics int) int { return max(1, min(vcpus, 8, 16/max(1, nics))) }

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
	Reset       Reason = "reset"        // the guest asked for a reset, or ResetMethod
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
	// Panicked is when the guest's kernel panicked and was left alone, zero where it has not.
	Panicked time.Time `json:"panicked,omitzero"`
	// Devices are the disks, network devices and devices of the host's of a guest that has
	// not stopped.
	Devices []PluggedDevice `json:"devices,omitempty"`
	// DeviceEvents are the last MaxDeviceEvents of devices of the host's, oldest first.
	DeviceEvents []DeviceEvent `json:"deviceEvents,omitempty"`
	// VCPUs says how many there are, of a guest that has been configured.
	VCPUs *VCPUs `json:"vcpus,omitempty"`
	// DisksFull are the disks that had no room on the host for what was written to them,
	// DisksFailed those whose file gave other errors, since the guest has them.
	DisksFull   DiskSet `json:"disksFull,omitempty"`
	DisksFailed DiskSet `json:"disksFailed,omitempty"`
}

// A Result is what a VMM writes to ResultFD as JSON before it exits.
type Result struct {
	Reason  Reason `json:"reason"`
	Message string `json:"message,omitempty"`
}
