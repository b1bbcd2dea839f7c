package hostcall

import (
	"fmt"
	"strings"
	"time"
)

// A HostDevice is a PCI device of the host that a guest is to have.
type HostDevice struct {
	// Number is what it is named by. Where those of all are 0, it is their places.
	Number int `json:"number,omitempty"`
	// Name is one of PCIDevice.Names that stays while another driver has it: `path-`, or
	// `dsn-`.
	Name string `json:"name"`
	// Vendor and Device are its IDs: another device in its place is refused. 0 is any.
	Vendor int `json:"vendor,omitempty"`
	Device int `json:"device,omitempty"`
	// AllowNoReset gives it away although it cannot be reset: it stays with its guest
	// until the host is booted again.
	AllowNoReset bool `json:"allowNoReset,omitempty"`
	// ROM shows the guest its option ROM.
	ROM bool `json:"rom,omitempty"`
}

// maxDeviceName bounds HostDevice.Name: a path has an address for each bridge.
const maxDeviceName = 512

// Check says what is wrong with d by itself, by its field.
func (d *HostDevice) Check() (field, wrong string) {
	kind, rest, _ := strings.Cut(d.Name, "-")
	switch {
	case d.Number < 0 || d.Number >= MaxHostDevices:
		return "number", fmt.Sprintf("is %d: 0 to %d", d.Number, MaxHostDevices-1)
	case rest == "" || kind != "path" && kind != "dsn" || len(d.Name) > maxDeviceName:
		return "name", fmt.Sprintf("is %.60q: the name of a device by its path (path-) or serial number (dsn-)", d.Name)
	case d.Vendor < 0 || d.Vendor > 0xffff || d.Device < 0 || d.Device > 0xffff:
		return "vendor", fmt.Sprintf("and device are %d and %d: IDs have 16 bits", d.Vendor, d.Device)
	}
	return "", ""
}

// A HeldDevice is a PCI device of the host that a guest has, which runs.
type HeldDevice struct {
	Number  int    `json:"number,omitempty"`
	Address string `json:"address"`
	// Fault is what has happened to it that is no good, and FaultTime when that was seen.
	Fault     string    `json:"fault,omitempty"`
	FaultTime time.Time `json:"faultTime,omitzero"`
}

// Equal reports whether two say the same.
func (d HeldDevice) Equal(o HeldDevice) bool {
	return d.Number == o.Number && d.Address == o.Address && d.Fault == o.Fault && d.FaultTime.Equal(o.FaultTime)
}

const (
	// listBytes is how much of a message all devices of a list of guests may take. Its rest is
	// that of guests.
	listBytes = 24 << 10
	// shortFault is what is left of a fault, in bytes, where all of them are too much.
	shortFault = 24
)

// FitDevices makes what is said of devices in a list of guests fit a message: where there are very
// many, faults are cut short, and then left out.
func FitDevices(guests []GuestStatus) {
	all, faults := 0, 0
	for _, g := range guests {
		all += len(g.Devices)
		for _, d := range g.Devices {
			faults += len(d.Fault)
		}
	}
	// What the names of fields, the number and the time take.
	const each = 110
	most := shortFault
	switch {
	case all*each+faults <= listBytes:
		return
	case all*(each+shortFault) > listBytes:
		most = 0
	}
	for i := range guests {
		for j := range guests[i].Devices {
			d := &guests[i].Devices[j]
			if d.Fault = d.Fault[:min(len(d.Fault), most)]; most == 0 {
				d.FaultTime = time.Time{}
			}
		}
	}
}

// A Reason says why a device cannot be given to a guest; the names are those of the API.
type Reason string

// Reasons.
const (
	NoIOMMU              Reason = "NO_IOMMU"
	NoInterruptRemapping Reason = "NO_INTERRUPT_REMAPPING"
	GroupShared          Reason = "GROUP_SHARED"
	ACSMissing           Reason = "ACS_MISSING"
	UsedByHost           Reason = "USED_BY_HOST"
	Owned                Reason = "OWNED"
	NoReset              Reason = "NO_RESET"
	DeviceMissing        Reason = "DEVICE_MISSING"
	OtherDevice          Reason = "OTHER_DEVICE"
	NotAssignable        Reason = "NOT_ASSIGNABLE"
	HasVFs               Reason = "HAS_VIRTUAL_FUNCTIONS"
	DriverStuck          Reason = "DRIVER_STUCK"
)

// A Violation is one thing that stands in the way of giving a device to a guest.
type Violation struct {
	Reason Reason `json:"reason"`
	// Device is the address of the one concerned, or the name that it was asked for by
	// where there is none.
	Device  string `json:"device"`
	Message string `json:"message"` // a sentence that says what to do
}

// maxViolations bounds those of an Error: a group can have hundreds of members.
const maxViolations = 32

// Refuse makes an Error of violations, nil of none. It says how many are left out.
func Refuse(vs []Violation) error {
	if len(vs) == 0 {
		return nil
	}
	var sentences []string
	for _, v := range vs[:min(len(vs), maxViolations)] {
		sentences = append(sentences, v.Message)
	}
	e := &Error{Code: FailedPrecondition, Field: "devices", Violations: vs[:len(sentences)]}
	if left := len(vs) - len(sentences); left > 0 {
		sentences = append(sentences, fmt.Sprintf("And %d more.", left))
	}
	e.Message = strings.Join(sentences, " ")
	return e
}
