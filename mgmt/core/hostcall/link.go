package hostcall

import (
	"fmt"
	"net"
)

// Calls about the host's network interfaces and virtual functions.
const (
	// LinkList reads After and fills Links: links in the order of their names, from the one behind
	// After on, as many as fit a message, and More where others follow.
	LinkList Method = "link-list"
	// VFsSet reads VFs and makes them, in place of those that the device has: as a whole or not
	// at all. It fails with FailedPrecondition where one of those is in use. That there are so many already is no
	// error.
	VFsSet Method = "vfs-set"
)

// A Link is a physical network interface of the host, as drivers/nic has it.
type Link struct {
	Name         string `json:"name"`
	MAC          string `json:"mac"`
	PermanentMAC string `json:"permanentMac,omitempty"`
	Up           bool   `json:"up,omitempty"`
	Carrier      bool   `json:"carrier,omitempty"`
	MTU          int    `json:"mtu"`
	// Speed is in Mbit/s; 0 where it is unknown. Full is of the duplex.
	Speed  int    `json:"speed,omitempty"`
	Full   bool   `json:"full,omitempty"`
	Driver string `json:"driver,omitempty"`
	Device string `json:"device,omitempty"` // PCI address
	Node   int    `json:"node"`             // -1 where it is unknown
	// TotalVFs is how many virtual functions it may have, VFs are those that it has.
	TotalVFs int      `json:"totalVfs,omitempty"`
	VFs      []LinkVF `json:"vfs,omitempty"`
	// Management is whether the API is reached through it, Uplink are the guest networks that
	// reach the outside through it.
	Management bool     `json:"management,omitempty"`
	Uplink     []string `json:"uplink,omitempty"`
}

// A LinkVF is a virtual function of a Link.
type LinkVF struct {
	Device string `json:"device"` // PCI address
	VFSettings
}

// A LinkPage answers LinkList.
type LinkPage struct {
	Links []Link `json:"links,omitempty"`
	More  bool   `json:"more,omitempty"`
}

// VFs is how many virtual functions a device is to have.
type VFs struct {
	Device string `json:"device"` // the name of the device by its path (PCIDevice.Names)
	Count  int    `json:"count"`
	// Namespaces are, of an NVMe controller, those that each of them gets: nil leaves what
	// there is to the controller, else there is an entry for each.
	Namespaces [][]int `json:"namespaces,omitempty"`
}

// MaxVFs and MaxNamespace bound VFs.
const (
	MaxVFs       = 256
	MaxNamespace = 1 << 20
)

// Check says what is wrong with v, by its field.
func (v *VFs) Check() (field, wrong string) {
	switch {
	case v.Count < 0 || v.Count > MaxVFs:
		return "count", fmt.Sprintf("is %d: 0 to %d", v.Count, MaxVFs)
	case v.Namespaces != nil && len(v.Namespaces) != v.Count:
		return "namespaces", fmt.Sprintf("are of %d virtual functions, not %d: say those of each, or none at all", len(v.Namespaces), v.Count)
	}
	owner := map[int]int{}
	for i, of := range v.Namespaces {
		for _, n := range of {
			if n < 1 || n > MaxNamespace {
				return "namespaces", fmt.Sprintf("of virtual function %d have %d: numbers from 1 on", i, n)
			}
			if other, twice := owner[n]; twice {
				return "namespaces", fmt.Sprintf("of virtual functions %d and %d have %d: it can be of one alone", other, i, n)
			}
			owner[n] = i
		}
	}
	return "", ""
}

// VFSettings are what a virtual function of a link may do. They are kept by the host's
// driver of the link: its guest cannot change them.
type VFSettings struct {
	MAC  string `json:"mac,omitempty"`
	VLAN int    `json:"vlan,omitempty"` // 0 for none
	QoS  int    `json:"qos,omitempty"`
	// MaxRate is what it sends at most, in Mbit/s; 0 is no limit.
	MaxRate      int       `json:"maxRate,omitempty"`
	NoSpoofCheck bool      `json:"noSpoofCheck,omitempty"`
	Trust        bool      `json:"trust,omitempty"`
	State        LinkState `json:"state,omitempty"`
}

// A LinkState is what a virtual function is told of the cable.
type LinkState string

// Link states.
const (
	LinkAuto    LinkState = ""        // what its link has
	LinkEnable  LinkState = "enable"  // a carrier, whatever that has
	LinkDisable LinkState = "disable" // none
)

// Bounds of VFSettings.
const (
	MaxVLAN = 4094 // IEEE 802.1Q
	MaxQoS  = 7
	MaxRate = 1_000_000
)

// Check says what is wrong with s, by its field.
func (s *VFSettings) Check() (field, wrong string) {
	mac, err := net.ParseMAC(s.MAC)
	switch {
	case s.MAC != "" && (err != nil || len(mac) != 6 || mac[0]&1 != 0 || mac.String() != s.MAC || s.MAC == "00:00:00:00:00:00"):
		return "mac", fmt.Sprintf("is %q: six bytes, as 02:00:5e:00:53:01, of no group", s.MAC)
	case s.VLAN < 0 || s.VLAN > MaxVLAN:
		return "vlan", fmt.Sprintf("is %d: 1 to %d, or 0 for none", s.VLAN, MaxVLAN)
	case s.QoS < 0 || s.QoS > MaxQoS:
		return "qos", fmt.Sprintf("is %d: 0 to %d", s.QoS, MaxQoS)
	case s.QoS != 0 && s.VLAN == 0:
		return "qos", fmt.Sprintf("is %d without a VLAN: it stands in the VLAN's tag", s.QoS)
	case s.MaxRate < 0 || s.MaxRate > MaxRate:
		return "maxRate", fmt.Sprintf("is %d: up to %d Mbit/s, or 0 for no limit", s.MaxRate, MaxRate)
	case s.State != LinkAuto && s.State != LinkEnable && s.State != LinkDisable:
		return "state", fmt.Sprintf("is %.20q: enable or disable, or empty for that of the link", string(s.State))
	}
	return "", ""
}

// A VF is a virtual function that a guest is to have: a free one of one of Links.
type VF struct {
	// Links are the PCI devices of the links that it may be of, named by their paths
	// (PCIDevice.Names). One near to the guest's memory is preferred, then the order counts.
	Links []string `json:"links"`
	VFSettings
}

// MaxLinks bounds VF.Links.
const MaxLinks = 16
