// Package hostcall is what control may ask of core, and all of it.
//
// Messages travel in a vmm/seqpacket connection to layout.CoreSocket. Every
// Call has one Reply with the same ID; Events come unasked on a connection that
// has called Subscribe. control names things by identifiers only (ValidID):
// paths, descriptors of devices and users are core's business. core checks every
// call by itself, whatever control has checked before.
package hostcall

import (
	"time"

	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// A Method names what a Call asks for.
type Method string

// Methods, with the fields of Call they read and of Reply they fill.
const (
	// Host fills Host.
	Host Method = "host"
	// HostTopology fills Topology.
	HostTopology Method = "host-topology"
	// Subscribe: from now on this connection receives Events.
	Subscribe Method = "subscribe"

	// ImageCreate reads ID and Size, makes the unsealed image and brings its
	// descriptor, open for reading and writing. The file has Size bytes, all holes.
	ImageCreate Method = "image-create"
	// ImageOpen reads ID and brings the descriptor: read-write where the image is
	// unsealed, read-only where it is sealed.
	ImageOpen Method = "image-open"
	// ImageSeal reads ID: syncs, and from now on nobody can write it.
	ImageSeal Method = "image-seal"
	// ImageDelete reads ID.
	ImageDelete Method = "image-delete"
	// ImageList fills Images.
	ImageList Method = "image-list"

	// GuestCreate reads ID and Disks: makes the guest's folder and its disks, whole
	// or not at all.
	GuestCreate Method = "guest-create"
	// GuestStart reads ID and Guest: starts a VMM; answers when the guest runs or
	// could not be started.
	GuestStart Method = "guest-start"
	// GuestPowerButton reads ID. A paused guest cannot hear it: it is refused.
	GuestPowerButton Method = "guest-power-button"
	// GuestPause reads ID: halts processors and devices of a guest that runs; answers
	// when nothing moves any more. That one is paused already is no error.
	GuestPause Method = "guest-pause"
	// GuestResume reads ID: undoes GuestPause. That one is not paused is no error.
	GuestResume Method = "guest-resume"
	// GuestReset reads ID: ends the VMM with the reason "reset", also of a paused
	// guest; answers when it is gone and cleaned up. Starting it again is up to control.
	GuestReset Method = "guest-reset"
	// GuestSetDiskLimits reads ID, Disk and Limits: changes those of a disk of a guest
	// that runs or is paused, until it ends.
	GuestSetDiskLimits Method = "guest-set-disk-limits"
	// GuestResizeDisk reads ID, Disk and Size: makes a disk larger, and tells the guest
	// where it runs. That it has the size already is no error.
	GuestResizeDisk Method = "guest-resize-disk"
	// GuestSetNICLimits reads ID, NIC and NICLimits: changes those of a NIC of a guest that
	// runs or is paused, until it ends.
	GuestSetNICLimits Method = "guest-set-nic-limits"
	// GuestSetNICLink reads ID, NIC and LinkDown: disconnects a NIC of a guest that runs or
	// is paused, or connects it. That it is so already is no error.
	GuestSetNICLink Method = "guest-set-nic-link"
	// GuestAttachDisk reads ID, Disk (a number that no disk has), Disks (one) and Limits: makes
	// the disk, and gives it to the guest where that runs or is paused. That it is there
	// already is no error. Refused, it leaves nothing behind; where the VMM did
	// not answer, GuestDetach and GuestDrop do away with it.
	GuestAttachDisk Method = "guest-attach-disk"
	// GuestAttachNIC reads ID and NewNIC: the same for a NIC of a guest that runs or is paused.
	GuestAttachNIC Method = "guest-attach-nic"
	// GuestAttachDevice reads ID and NewDevice: the same for a device of the host's.
	GuestAttachDevice Method = "guest-attach-device"
	// GuestCheckDevices reads ID, which may be of no guest yet, and HostDevices: it fails as GuestStart would
	// for these devices, but for those that other guests have only as long as they run.
	GuestCheckDevices Method = "guest-check-devices"
	// GuestDetach reads ID, Device and Force: asks a guest that runs or is paused to give a
	// device up, or takes it away. It answers before the guest does.
	GuestDetach Method = "guest-detach"
	// GuestDevices reads ID and fills Devices, of a guest that runs or is paused.
	GuestDevices Method = "guest-devices"
	// GuestDrop reads ID and Device: removes what belongs to a device that the guest does
	// not have, or not any more: the file of a disk, the tap and address of a NIC; a device of the host's goes
	// back to the host. That
	// there is nothing is no error.
	GuestDrop Method = "guest-drop"
	// GuestNMI reads ID: sends an NMI to a guest that runs and is not paused.
	GuestNMI Method = "guest-nmi"
	// GuestCounters reads ID and fills Counters, of a guest that runs or is paused.
	GuestCounters Method = "guest-counters"
	// GuestSetBalloon reads ID and Size: asks a guest that runs or is paused to give back
	// so many bytes of its memory. It answers before the guest does.
	GuestSetBalloon Method = "guest-set-balloon"
	// GuestBalloon reads ID and fills Balloon, of a guest that runs or is paused.
	GuestBalloon Method = "guest-balloon"
	// GuestSetVCPUs reads ID and VCPUs: asks a guest that runs or is paused to have so many
	// processors, and fills VCPUs. It answers before the guest has given any up.
	GuestSetVCPUs Method = "guest-set-vcpus"
	// GuestVCPUs reads ID and fills VCPUs, of a guest that runs or is paused.
	GuestVCPUs Method = "guest-vcpus"
	// GuestSetMemory reads ID and Size: asks a guest that runs or is paused to have so many
	// bytes of Guest.Pluggable plugged in. It answers before the guest does.
	GuestSetMemory Method = "guest-set-memory"
	// GuestMemory reads ID and fills Memory, of a guest that runs or is paused.
	GuestMemory Method = "guest-memory"
	// GuestHistograms reads ID and fills Histograms, in the same way.
	GuestHistograms Method = "guest-histograms"
	// GuestKill reads ID: ends the VMM; answers when it is gone and cleaned up.
	GuestKill Method = "guest-kill"
	// GuestDelete reads ID: removes folder and disks of a guest that does not run.
	GuestDelete Method = "guest-delete"
	// GuestList fills Guests.
	GuestList Method = "guest-list"
	// GuestConsole reads ID and brings a connected stream socket
	// (vmm/protocol.Console).
	GuestConsole Method = "guest-console"
	// GuestConnect reads ID and SerialPort, or else Port, and brings a stream socket that is connected to that
	// port of a guest that runs (vmm/protocol.Vsock). It fails with FailedPrecondition and
	// the field `port` where nobody listens there, `vsock` where the guest has no socket
	// device, and with DeadlineExceeded where the guest does not answer. For a serial port
	// (vmm/protocol.ConnectPort) the field is `serialPort` where there is none of that name,
	// `port` where no program in the guest has it open, `busy` where there is a connection
	// already.
	GuestConnect Method = "guest-connect"
	// GuestLog reads ID and brings the console log, open for reading.
	GuestLog Method = "guest-log"
)

// A Call is one request from control.
type Call struct {
	Seq    uint64 `json:"seq"`
	Method Method `json:"method"`
	ID     string `json:"id,omitempty"`
	Size   int64  `json:"size,omitempty"`
	Disks  []Disk `json:"disks,omitempty"`
	Guest  *Guest `json:"guest,omitempty"`
	// Disk is the number of one of the guest's.
	Disk   int                  `json:"disk,omitempty"`
	Limits *protocol.DiskLimits `json:"limits,omitempty"`
	// Port is one of the guest's.
	Port       uint32 `json:"port,omitempty"`
	SerialPort string `json:"serialPort,omitempty"`
	// NIC is the place of one among the guest's, from 0 on.
	NIC       int        `json:"nic,omitempty"`
	NICLimits *NICLimits `json:"nicLimits,omitempty"`
	LinkDown  bool       `json:"linkDown,omitempty"`
	// VCPUs is how many processors a guest is to have.
	VCPUs  int  `json:"vcpus,omitempty"`
	NewNIC *NIC `json:"newNic,omitempty"`
	// NewDevice is what GuestAttachDevice attaches, HostDevices what GuestCheckDevices checks.
	NewDevice   *HostDevice  `json:"newDevice,omitempty"`
	HostDevices []HostDevice `json:"hostDevices,omitempty"`
	// Device is the name of one (DeviceName); Force takes it away from a guest that is not asked.
	Device string `json:"device,omitempty"`
	Force  bool   `json:"force,omitempty"`
	// After is of PCIList, HugepageSize of HugepagesSet.
	After        string        `json:"after,omitempty"`
	HugepageSize *HugepageSize `json:"hugepageSize,omitempty"`
	// VFs is of VFsSet.
	VFs *VFs `json:"vfs,omitempty"`
}

// A Message is what core sends: a Reply to the Call with the same Seq, or
// (Seq 0) an Event.
type Message struct {
	Seq    uint64        `json:"seq,omitempty"`
	Error  *Error        `json:"error,omitempty"`
	Host   *HostStatus   `json:"host,omitempty"`
	Images []ImageStatus `json:"images,omitempty"`
	// Topology answers HostTopology.
	Topology *Topology     `json:"topology,omitempty"`
	Guests   []GuestStatus `json:"guests,omitempty"`
	Size     int64         `json:"size,omitempty"`
	Event    *Event        `json:"event,omitempty"`
	// Counters answers GuestCounters.
	Counters *Counters `json:"counters,omitempty"`
	// Balloon answers GuestBalloon.
	Balloon *protocol.Balloon `json:"balloon,omitempty"`
	// Histograms answers GuestHistograms.
	Histograms protocol.Histograms `json:"histograms,omitempty"`
	// VCPUs answers GuestSetVCPUs and GuestVCPUs.
	VCPUs *protocol.VCPUs `json:"vcpus,omitempty"`
	// Memory answers GuestMemory.
	Memory *protocol.Memory `json:"memory,omitempty"`
	// Devices answers GuestDevices.
	Devices []protocol.PluggedDevice `json:"devices,omitempty"`
	// Check answers HostCheck.
	Check *HostCheckResult `json:"check,omitempty"`
	// PCI answers PCIList, Hugepages HugepagesList and HugepagesSet.
	PCI       *PCIPage       `json:"pci,omitempty"`
	Hugepages []HugepagePool `json:"hugepages,omitempty"`
	// Links answers LinkList.
	Links *LinkPage `json:"links,omitempty"`
	// Placed answers GuestPlacement.
	Placed *Placed `json:"placed,omitempty"`
}

// A Code says what kind of Error it is; the names are gRPC's.
type Code string

// Codes.
const (
	InvalidArgument    Code = "invalid-argument"
	NotFound           Code = "not-found"
	AlreadyExists      Code = "already-exists"
	FailedPrecondition Code = "failed-precondition"
	ResourceExhausted  Code = "resource-exhausted"
	Unavailable        Code = "unavailable"
	Internal           Code = "internal"
	DeadlineExceeded   Code = "deadline-exceeded"
)

// An Error is a refusal: a sentence that says what to do, and the field at
// fault where there is one (JSON path in the Call: `guest.kernel`).
type Error struct {
	Code    Code   `json:"code"`
	Field   string `json:"field,omitempty"`
	Message string `json:"message"`
	// Violations are, of FailedPrecondition about devices, what stands in the way.
	Violations []Violation `json:"violations,omitempty"`
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// A Disk of a new guest: a clone of a sealed image, or empty where Image is "".
type Disk struct {
	Image string `json:"image,omitempty"`
	// Size in bytes, a multiple of 512; 0 means the image's. Not smaller than the image.
	Size int64 `json:"size,omitempty"`
}

// A Guest is how to start one. Its disks are those of GuestCreate and GuestAttachDisk.
type Guest struct {
	Name  string `json:"name"`
	VCPUs int    `json:"vcpus"`
	// MaxVCPUs is how many it may come to have while it runs; 0: VCPUs, which stay.
	MaxVCPUs int `json:"maxVcpus,omitempty"`
	// CPU says what they are like; optional.
	CPU         *protocol.CPU `json:"cpu,omitempty"`
	MemoryBytes uint64        `json:"memoryBytes"`
	// Backing says what the memory is made of; optional.
	Backing *protocol.Backing `json:"backing,omitempty"`
	// NUMA are the nodes that processors and memory are of; optional.
	NUMA []protocol.NUMANode `json:"numa,omitempty"`
	// Pluggable is memory that comes and goes while it runs; optional.
	Pluggable *protocol.Pluggable `json:"pluggable,omitempty"`
	// BalloonBytes is what it is asked to give back of that: a multiple of 4096, at
	// least protocol.BalloonLeaves less.
	BalloonBytes uint64 `json:"balloonBytes,omitempty"`
	Kernel       string `json:"kernel"`              // image
	Initramfs    string `json:"initramfs,omitempty"` // image
	Cmdline      string `json:"cmdline,omitempty"`
	// Disks is how many bytes each disk has at least: a guest with fewer, more or smaller
	// ones is not started.
	Disks []int64 `json:"disks,omitempty"`
	// DiskNumbers has the number of each of Disks: without, it is their places, as
	// GuestCreate numbers them.
	DiskNumbers []int `json:"diskNumbers,omitempty"`
	// DiskLimits has an entry, which may be nil, for each of Disks, or none at all.
	DiskLimits []*protocol.DiskLimits `json:"diskLimits,omitempty"`
	NICs       []NIC                  `json:"nics,omitempty"`
	// Vsock makes it have a socket device.
	Vsock bool `json:"vsock,omitempty"`
	// SerialPorts are the names of serial ports (protocol.CheckPorts).
	SerialPorts []string `json:"serialPorts,omitempty"`
	// Board says what the devices on board are to do; optional.
	Board *protocol.Board `json:"board,omitempty"`
	// HotplugSlots is how many slots there are for devices that come and go.
	HotplugSlots int `json:"hotplugSlots,omitempty"`
	// Devices are those of the host's that it gets.
	Devices []HostDevice `json:"devices,omitempty"`
	// Placement is where it is to be on the host; optional.
	Placement *Placement `json:"placement,omitempty"`
}

// A NIC of a guest.
type NIC struct {
	// Number is what it is named by. Where those of all are 0, it is their places.
	Number  int    `json:"number,omitempty"`
	Network string `json:"network"`
	MAC     string `json:"mac"`
	// Limits bound what it receives and sends; nil is no limit.
	Limits *NICLimits `json:"limits,omitempty"`
	// LinkDown has it begin disconnected from its network.
	LinkDown bool `json:"linkDown,omitempty"`
}

// HostStatus answers Host. Sizes in bytes.
type HostStatus struct {
	Hostname      string        `json:"hostname"`
	Version       string        `json:"version"`
	KernelVersion string        `json:"kernelVersion"`
	Uptime        time.Duration `json:"uptime"`
	// BootToAPI is the time from kernel entry to the start of core.
	BootToCore      time.Duration `json:"bootToCore"`
	CPUModel        string        `json:"cpuModel"`
	CPUs            int           `json:"cpus"`
	MemoryTotal     int64         `json:"memoryTotal"`
	MemoryAvailable int64         `json:"memoryAvailable"`
	PoolDevice      string        `json:"poolDevice,omitempty"`
	PoolTotal       int64         `json:"poolTotal"`
	PoolFree        int64         `json:"poolFree"`
	Addresses       []string      `json:"addresses,omitempty"`
	KVM             bool          `json:"kvm"`
	IOMMU           bool          `json:"iommu"`
	SecureBoot      bool          `json:"secureBoot"`
	Problems        []string      `json:"problems,omitempty"`
	Networks        []string      `json:"networks,omitempty"`
}

// ImageStatus is an image as it lies on disk.
type ImageStatus struct {
	ID     string `json:"id"`
	Size   int64  `json:"size"`
	Sealed bool   `json:"sealed"`
}

// A GuestState is where a guest's VMM is.
type GuestState string

// Guest states.
const (
	Starting GuestState = "starting"
	Running  GuestState = "running"
	Paused   GuestState = "paused"
	Stopped  GuestState = "stopped"
)

// GuestStatus is a guest as core sees it. Reason and Message are
// vmm/protocol's of the last end, Reason "lost" where the VMM died without a
// word and "" where it has not run since the host's boot.
type GuestStatus struct {
	ID      string     `json:"id"`
	State   GuestState `json:"state"`
	Reason  string     `json:"reason,omitempty"`
	Message string     `json:"message,omitempty"`
	PID     int        `json:"pid,omitempty"`
	// Addresses are what DHCP gave to its NICs, in order of NICs ("" for none yet).
	Addresses []string `json:"addresses,omitempty"`
	// NICs are the numbers of the NICs of Addresses.
	NICs    []int     `json:"nics,omitempty"`
	Started time.Time `json:"started,omitzero"`
	// CID is that of its socket device while it runs; 0 where it has none.
	CID uint32 `json:"cid,omitempty"`
	// Of one that runs: Panicked is when its kernel panicked and was left alone, Before the
	// Reason of the run before.
	Panicked time.Time `json:"panicked,omitzero"`
	Before   string    `json:"before,omitempty"`
	// VCPUs are how many processors it had when its VMM was asked last.
	VCPUs int `json:"vcpus,omitempty"`
	// Devices are those of the host's that it has.
	Devices []HeldDevice `json:"devices,omitempty"`
	// Of one that runs: DisksFull and DisksFailed are what its VMM tells of its disks,
	// TapsGone the numbers of NICs whose tap is not there any more.
	DisksFull   protocol.DiskSet `json:"disksFull,omitempty"`
	DisksFailed protocol.DiskSet `json:"disksFailed,omitempty"`
	TapsGone    []int            `json:"tapsGone,omitempty"`
}

// Counters are what a guest has done since it was started. They only grow.
type Counters struct {
	// Started is when they were 0, Read when they were read.
	Started time.Time `json:"started,omitzero"`
	Read    time.Time `json:"read,omitzero"`
	// Devices has those of devices, as DEVICE.NAME.
	Devices map[string]uint64 `json:"devices,omitempty"`
	// VCPUs has those of virtual processors by name, each with a value for every one.
	VCPUs map[string][]uint64 `json:"vcpus,omitempty"`
}

// Lost is the Reason of a guest whose VMM died without a Result.
const Lost = "lost"

// An Event tells that a guest's status has changed, or that PCI devices or links have.
type Event struct {
	Guest *GuestStatus `json:"guest,omitempty"`
	PCI   bool         `json:"pci,omitempty"`
	Links bool         `json:"links,omitempty"`
}

// ValidID reports whether s is an identifier: 32 lower-case hexadecimal digits.
func ValidID(s string) bool {
	if len(s) != 32 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
