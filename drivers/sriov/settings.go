package sriov

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A LinkState says what a virtual function is told of the cable (IFLA_VF_LINK_STATE_* of
// linux/if_link.h).
type LinkState uint32

// Link states.
const (
	Auto    LinkState = 0 // what the physical function has
	Enable  LinkState = 1 // a link, whatever that has
	Disable LinkState = 2 // none
)

// Settings are what a virtual function of a network card may do. They are the card's, or
// its driver's in the host: a guest that has the function cannot change them.
type Settings struct {
	// MAC is the address that it has; nil lets it choose.
	MAC net.HardwareAddr
	// VLAN is put on all its packets, and taken off those for it; it sees no other. 0 is none.
	VLAN int
	// QoS is the priority of those packets, 0 to 7.
	QoS int
	// MaxRate is what it sends at most, in Mbit/s; 0 is no limit.
	MaxRate int
	// SpoofCheck drops what it sends with another address than MAC.
	SpoofCheck bool
	// Trust lets it receive what is not for it.
	Trust     bool
	LinkState LinkState
}

// Fresh is what a function has that nobody was given.
var Fresh = Settings{SpoofCheck: true}

// An Unsupported error says that the driver of a network card cannot set something.
type Unsupported struct {
	Interface string
	What      string // "spoof check"
}

// Error says what cannot be set where.
func (e *Unsupported) Error() string {
	return fmt.Sprintf("the driver of %s cannot set the %s of its virtual functions", e.Interface, e.What)
}

// Apply gives the virtual function number vf of the interface called name these settings. What
// the driver cannot set is an error where it is asked for, an *Unsupported.
func Apply(name string, vf int, s Settings) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("set up virtual function %d of %s: %w", vf, name, err)
	}
	mac := s.MAC
	if mac == nil {
		mac = make(net.HardwareAddr, 6)
	}
	for _, step := range []struct {
		what  string
		asked bool
		do    func() error
	}{
		// Trust goes first: some drivers let the rest be set by it.
		{"trust", s.Trust, func() error { return netlink.LinkSetVfTrust(l, vf, s.Trust) }},
		{"MAC address", s.MAC != nil, func() error { return netlink.LinkSetVfHardwareAddr(l, vf, mac) }},
		{"VLAN", s.VLAN != 0 || s.QoS != 0, func() error { return netlink.LinkSetVfVlanQos(l, vf, s.VLAN, s.QoS) }},
		{"spoof check", !s.SpoofCheck, func() error { return netlink.LinkSetVfSpoofchk(l, vf, s.SpoofCheck) }},
		{"rate", s.MaxRate != 0, func() error { return netlink.LinkSetVfRate(l, vf, 0, s.MaxRate) }},
		{"link state", s.LinkState != Auto, func() error { return netlink.LinkSetVfState(l, vf, uint32(s.LinkState)) }},
	} {
		err := step.do()
		switch {
		case err == nil:
		case errors.Is(err, unix.EOPNOTSUPP) && !step.asked:
			// It has no such setting, and need not have.
		case errors.Is(err, unix.EOPNOTSUPP):
			return &Unsupported{name, step.what}
		case step.what == "rate" && !step.asked:
			// Drivers take a rate while they have a link: without one there is none to take away.
		default:
			return fmt.Errorf("set %s of virtual function %d of %s: %w", step.what, vf, name, err)
		}
	}
	return nil
}

// Of are the settings of the virtual functions of a link, in their order.
func Of(l *netlink.LinkAttrs) []Settings {
	var out []Settings
	for _, v := range l.Vfs {
		s := Settings{
			MAC: v.Mac, VLAN: v.Vlan, QoS: v.Qos, MaxRate: int(v.MaxTxRate),
			SpoofCheck: v.Spoofchk, Trust: v.Trust == 1, LinkState: LinkState(v.LinkState),
		}
		if s.MaxRate == 0 {
			s.MaxRate = v.TxRate
		}
		out = append(out, s)
	}
	return out
}
