package store

import (
	"slices"
	"time"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// The tables. Keys: UIDs of machines and images, IDs of operations, Key of requests.
var (
	VMs        = Table[VM]{[]byte("vms"), func(v VM) string { return v.UID }}
	Images     = Table[Image]{[]byte("images"), func(v Image) string { return v.UID }}
	Operations = Table[Operation]{[]byte("operations"), func(v Operation) string { return v.ID }}
	Requests   = Table[Request]{[]byte("requests"), func(v Request) string { return v.Key }}
)

var buckets = [][]byte{VMs.bucket, Images.bucket, Operations.bucket, Requests.bucket, Hugepages.bucket, VFs.bucket}

// A Phase is where a record is between intent and fact.
type Phase string

// Phases. Ready is the zero value.
const (
	Ready Phase = ""
	// Creating: core has been or will be asked to make it; nobody has been told
	// that it exists.
	Creating Phase = "creating"
	// Deleting: core has been or will be asked to remove it.
	Deleting Phase = "deleting"
)

// A VM is a virtual machine. Images are named by their public ID.
type VM struct {
	ID    string `json:"id"`
	UID   string `json:"uid"`
	Phase Phase  `json:"phase,omitempty"`
	CPUs  int32  `json:"cpus"`
	// MaxCPUs is how many it may come to have; 0: CPUs, which stay.
	MaxCPUs int32 `json:"maxCpus,omitempty"`
	// CPU says what they are like; nil where nothing was asked for.
	CPU         *protocol.CPU `json:"cpu,omitempty"`
	MemoryBytes int64         `json:"memoryBytes"`
	// Backing says what the memory is made of; nil where nothing was asked for.
	Backing *protocol.Backing `json:"backing,omitempty"`
	// NUMA are the nodes that processors and memory are of.
	NUMA []protocol.NUMANode `json:"numa,omitempty"`
	// Placement is where it is to be on the host; nil where nothing was asked for.
	Placement *hostcall.Placement `json:"placement,omitempty"`
	// Pluggable is what comes and goes besides; nil where the memory is fixed.
	Pluggable *protocol.Pluggable `json:"pluggable,omitempty"`
	// BalloonBytes is how much of that it is asked to give back.
	BalloonBytes int64  `json:"balloonBytes,omitempty"`
	Kernel       string `json:"kernel"`
	Initramfs    string `json:"initramfs,omitempty"`
	Cmdline      string `json:"cmdline,omitempty"`
	Disks        []Disk `json:"disks,omitempty"`
	NICs         []NIC  `json:"nics,omitempty"`
	// Devices are those of the host's that it has.
	Devices    []HostDevice `json:"devices,omitempty"`
	CreateTime time.Time    `json:"createTime"`
	// Vsock is whether it has a socket device.
	Vsock bool `json:"vsock,omitempty"`
	// SerialPorts are the names of its serial ports besides the console.
	SerialPorts []string `json:"serialPorts,omitempty"`
	// Board is what the devices on board are to do; nil where nothing was asked for.
	Board *protocol.Board `json:"board,omitempty"`
	// HotplugSlots is how many slots it has for devices that come and go.
	HotplugSlots int `json:"hotplugSlots,omitempty"`
	// DesiredRunning is whether the host is to keep it running.
	DesiredRunning bool `json:"desiredRunning,omitempty"`
	// StopNote is what control has to say about why it does not run, where core
	// has nothing to say.
	StopNote string `json:"stopNote,omitempty"`
}

// A Disk of a VM. Size in bytes.
type Disk struct {
	Image string `json:"image,omitempty"`
	Size  int64  `json:"size"`
	// Limits are what it may do; nil where it has none.
	Limits *protocol.DiskLimits `json:"limits,omitempty"`
	// Number is what it is named by (hostcall.Numbers).
	Number int `json:"number,omitempty"`
	// Phase is Creating while it is being attached, Deleting while what is left of it is
	// being removed: then the VM does not have it.
	Phase Phase `json:"phase,omitempty"`
}

// A NIC of a VM. Number and Phase are as those of a Disk.
type NIC struct {
	Network string `json:"network"`
	MAC     string `json:"mac"`
	// Limits are what it may receive and send; nil where it has none.
	Limits *hostcall.NICLimits `json:"limits,omitempty"`
	// LinkDown is whether its cable is not plugged in.
	LinkDown bool  `json:"linkDown,omitempty"`
	Number   int   `json:"number,omitempty"`
	Phase    Phase `json:"phase,omitempty"`
}

// A HostDevice is a PCI device of the host that a VM has. Its Number is that of the call, and Phase
// as that of a Disk.
type HostDevice struct {
	hostcall.HostDevice
	Phase Phase `json:"phase,omitempty"`
}

// NIC finds a network interface by its number, nil where there is none.
func (vm *VM) NIC(number int) *NIC {
	if i := slices.IndexFunc(vm.NICs, func(n NIC) bool { return n.Number == number && n.Phase == Ready }); i >= 0 {
		return &vm.NICs[i]
	}
	return nil
}

// An Image is an image, whole or being uploaded. Sizes in bytes.
type Image struct {
	ID         string    `json:"id"`
	UID        string    `json:"uid"`
	Phase      Phase     `json:"phase,omitempty"`
	Size       int64     `json:"size"`
	SHA256     string    `json:"sha256"`
	Complete   bool      `json:"complete,omitempty"` // digest checked, sealed
	Uploaded   int64     `json:"uploaded,omitempty"` // of these the disk has said that it has them
	CreateTime time.Time `json:"createTime"`
}

// An Operation is work under way, or ended within the last day.
type Operation struct {
	ID     string `json:"id"`
	Kind   string `json:"kind"`
	Target string `json:"target"` // resource name
	// TargetUID is the machine worked on, which may have gone since.
	TargetUID string `json:"targetUID"`
	Done      bool   `json:"done,omitempty"`
	Percent   int32  `json:"percent,omitempty"`
	Message   string `json:"message,omitempty"`
	ErrorCode string `json:"errorCode,omitempty"`
	Error     string `json:"error,omitempty"`
	// Violations are, of an Error about devices, what stands in the way.
	Violations []hostcall.Violation `json:"violations,omitempty"`
	CreateTime time.Time            `json:"createTime"`
	EndTime    time.Time            `json:"endTime,omitzero"`
	// Force and Deadline are of stop and delete: whether to end the guest at
	// once, else when. Of set-cpus Deadline is when the guest has had its time.
	Force    bool          `json:"force,omitempty"`
	Grace    time.Duration `json:"grace,omitempty"`
	Deadline time.Time     `json:"deadline,omitzero"`
	// Run is of reset: when the run began that it ends, once it has begun to.
	Run time.Time `json:"run,omitzero"`
	// Disk is the number of the disk that is changed, Limits or Size (in bytes) what it
	// is to have.
	Disk   int                  `json:"disk,omitempty"`
	Limits *protocol.DiskLimits `json:"limits,omitempty"`
	Size   int64                `json:"size,omitempty"`
	// NIC is the place of the network interface that is changed, NICLimits or LinkDown what
	// it is to have.
	NIC       int                 `json:"nic,omitempty"`
	NICLimits *hostcall.NICLimits `json:"nicLimits,omitempty"`
	LinkDown  bool                `json:"linkDown,omitempty"`
	// CPUs is how many there are to be, of set-cpus.
	CPUs int32 `json:"cpus,omitempty"`
	// NewDisk, NewNIC and NewDevice are what is attached; Device is the name of what is detached.
	NewDisk   *Disk       `json:"newDisk,omitempty"`
	NewNIC    *NIC        `json:"newNic,omitempty"`
	NewDevice *HostDevice `json:"newDevice,omitempty"`
	Device    string      `json:"device,omitempty"`
	// Cancelled is whether it was asked to end early.
	Cancelled bool `json:"cancelled,omitempty"`
	// Booted is how long the host had been up at CreateTime: an operation from
	// before a reboot is recognised by it.
	Booted time.Duration `json:"booted,omitempty"`
}

// A Request remembers what a request_id has made, so that the same request again
// makes nothing new.
type Request struct {
	Key string `json:"key"`
	// Digest is of the request: another request with the same request_id is refused.
	Digest string `json:"digest"`
	// Result is the UID of the machine, or the ID of the operation.
	Result string    `json:"result"`
	Time   time.Time `json:"time"`
}
