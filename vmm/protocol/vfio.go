package protocol

import (
	"fmt"
	"strings"
	"time"
)

// AttachVFIO brings NewVFIO, with its descriptors beside the message, to a guest whose Spec
// has a VFIO. The device is in a hot-plug slot when the response comes, and reset, and all memory of
// the guest is mapped for it. FailedPrecondition where all slots are taken or the device
// cannot be reset; ResourceExhausted where the kernel does not let so much memory be locked
// (Spec.LockedMemory). Detach takes it away, by its name (`vfio0`), as any other device.
const AttachVFIO Method = "attach-vfio"

const (
	// MaxVFIODevices bounds the devices of the host's that a guest has at a time.
	MaxVFIODevices = 16
	// MaxDeviceEvents is how many DeviceEvents a Status has at most: the last ones.
	MaxDeviceEvents = 32

	lockedSpare = 64 << 20 // rings of io_uring, which the kernel counts for the same user
)

// VFIO says what a guest has of the host's devices. A guest without one never gets any,
// and its jail has none of the calls that it takes. Devices may be empty: then some may
// be attached later, where there are hot-plug slots.
type VFIO struct {
	// IOMMUFD is /dev/iommu, opened for this guest alone. It is what all devices with a
	// File need, those that are attached later too. nil: only devices by Group.
	IOMMUFD *File `json:"iommufd,omitempty"`
	// Container is /dev/vfio/vfio, opened for this guest alone: what devices by Group
	// need. The two go together only where there is no other way: each maps all memory.
	Container *File        `json:"container,omitempty"`
	Devices   []VFIODevice `json:"devices,omitempty"`
	// PeerToPeer: devices of the guest reach each other's memory BARs, where the platform
	// lets them. Only with Container alone: the iommufd of Linux 6.12 maps no BARs.
	PeerToPeer bool `json:"peerToPeer,omitempty"`
}

// A VFIODevice is a PCI function that is bound to vfio-pci: by File or by Group.
type VFIODevice struct {
	// Number is what it is named by: `vfio0`. No two devices share one; where all are 0
	// they are numbered by their places.
	Number int `json:"number,omitempty"`
	// Address is where it is on the host, for messages and Group: `0000:3b:00.1`.
	Address string `json:"address"`
	// File is /dev/vfio/devices/vfioN, not bound to an iommufd yet.
	File *File `json:"file,omitempty"`
	// GroupID is the number of the IOMMU group, and Group /dev/vfio/GroupID, without a container
	// yet. The kernel opens a group once, so that the second device of a group has
	// GroupID alone: the VMM keeps a group as long as it has a device of it.
	GroupID int   `json:"groupId,omitempty"`
	Group   *File `json:"group,omitempty"`
	// ROM shows the expansion ROM to the guest.
	ROM bool `json:"rom,omitempty"`
	// Slot puts a device that is there at the start into the next free hot-plug slot, so that it can be
	// taken away while the guest runs. Without it the device stays, on bus 0. What is
	// attached is in a slot anyway.
	Slot bool `json:"slot,omitempty"`
	// NoReset takes a device that cannot be reset, too, as it is: nobody else ever gets it, until the
	// host is restarted. Without it such a device is refused.
	NoReset bool `json:"noReset,omitempty"`
}

// NewVFIO is what AttachVFIO brings: a device and, where the guest has none yet, the IOMMUFD or
// Container that it needs. Where the guest has one the second is closed, and that is no
// error: whoever does not know whether there is one sends one.
type NewVFIO struct {
	Device    VFIODevice `json:"device"`
	IOMMUFD   *File      `json:"iommufd,omitempty"`
	Container *File      `json:"container,omitempty"`
}

// A DeviceEventKind says what has come of a device of the host's.
type DeviceEventKind string

// Kinds of events.
const (
	// DeviceError: the host's PCI Express port reports an uncorrected error of the device
	// (AER). What the guest makes of it is its driver's matter.
	DeviceError DeviceEventKind = "device-error"
	// DeviceRequested: the host wants the device back: it was pulled out of the machine, or
	// its driver is to be unbound. The guest is asked for it, and after ReturnTime it is
	// taken away.
	DeviceRequested DeviceEventKind = "device-requested"
	// DeviceGone: the guest has it no longer, after DeviceRequested.
	DeviceGone DeviceEventKind = "device-gone"
)

// ReturnTime is how long a guest has to give back a device that the host wants.
const ReturnTime = 10 * time.Second

// A DeviceEvent is something that has come of a device of the host's.
type DeviceEvent struct {
	// Seq is 1 for the first of a VMM's events, and one more for each that follows.
	Seq     uint64          `json:"seq"`
	Time    time.Time       `json:"time"`
	Device  string          `json:"device"` // `vfio0`
	Address string          `json:"address"`
	Kind    DeviceEventKind `json:"kind"`
	Message string          `json:"message,omitempty"`
}

// VFIOCounters are the names of a device's counters, behind `vfio0.`: interrupts that the VMM has
// set up, resets, errors that were reported, accesses to configuration space and BARs
// that it has handled, and writes to configuration space that were refused.
func VFIOCounters() []string {
	return []string{"vectors", "resets", "errors", "config_reads", "config_writes", "config_refused", "bar_reads", "bar_writes"}
}

// Check says what is wrong with v, by its field, for a guest with so many hot-plug slots.
// Without a VFIO nothing is.
func (v *VFIO) Check(slots int) (field, wrong string) {
	if v == nil {
		return "", ""
	}
	if len(v.Devices) > MaxVFIODevices {
		return "devices", fmt.Sprintf("has %d: at most %d", len(v.Devices), MaxVFIODevices)
	}
	if v.PeerToPeer && (v.IOMMUFD != nil || v.Container == nil) {
		return "peerToPeer", "works with the group interface alone: hand in a container, groups and no iommufd"
	}
	groups := make(map[int]bool)
	for i := range v.Devices {
		d := &v.Devices[i]
		place := fmt.Sprintf("devices[%d].", i)
		if field, wrong := d.Check(v.IOMMUFD != nil, v.Container != nil); wrong != "" {
			return place + field, wrong
		}
		if d.Slot {
			slots--
		}
		switch {
		case d.Slot && slots < 0:
			return place + "slot", "is asked for, and there are too few hot-plug slots: give the guest more"
		case d.File == nil && d.Group == nil && !groups[d.GroupID]:
			return place + "group", "is missing, and no device before has it"
		case d.Group != nil && groups[d.GroupID]:
			return place + "group", "came with a device before: the kernel opens a group once"
		}
		if d.File == nil {
			groups[d.GroupID] = true
		}
	}
	return "", ""
}

// OnBus is how many of the devices are on bus 0, beside disks and network devices.
func (v *VFIO) OnBus() int {
	n := 0
	if v != nil {
		for _, d := range v.Devices {
			if !d.Slot {
				n++
			}
		}
	}
	return n
}

// Check says what is wrong with d by itself, in a guest that has an iommufd or a container.
func (d *VFIODevice) Check(iommufd, container bool) (field, wrong string) {
	switch {
	case !ValidPCIAddress(d.Address):
		return "address", fmt.Sprintf("is %.40q: write DOMAIN:BUS:DEVICE.FUNCTION, as 0000:3b:00.1", d.Address)
	case d.Number < 0:
		return "number", fmt.Sprintf("is %d: from 0 on", d.Number)
	case d.File != nil && d.Group != nil:
		return "group", "is there with a file: a device comes by one of them"
	case d.GroupID < 0:
		return "groupId", fmt.Sprintf("is %d: from 0 on", d.GroupID)
	case d.File != nil && !iommufd:
		return "file", "is a device file, which needs an iommufd"
	case d.File == nil && !container:
		return "group", "is missing: a device without a file needs its group and a container"
	}
	return "", ""
}

// ValidPCIAddress tells whether s is the address of a PCI function as Linux writes it:
// 4 digits of the domain, 2 of the bus, 2 of the device (up to 1f), one of the
// function (up to 7), all hexadecimal and lower-case. Domains of more digits are for
// devices that no processor has by itself (VMD), and are not passed on.
func ValidPCIAddress(s string) bool {
	if len(s) != len("0000:00:00.0") || s[4] != ':' || s[7] != ':' || s[10] != '.' {
		return false
	}
	return strings.Trim(s[:4]+s[5:7]+s[9:10], "0123456789abcdef") == "" && (s[8] == '0' || s[8] == '1') && s[11] >= '0' && s[11] <= '7'
}

// LockedMemory is how many bytes the VMM of a guest with a VFIO has to be allowed to lock
// (RLIMIT_MEMLOCK): all memory there may come to be, and some for rings. An iommufd counts
// what its user has locked, a container what the process has. 0 is for guests without a VFIO, which
// need no more than they have.
func (s *Spec) LockedMemory() uint64 {
	if s.VFIO == nil {
		return 0
	}
	return s.MemoryBytes + s.Pluggable.Max() + lockedSpare
}
