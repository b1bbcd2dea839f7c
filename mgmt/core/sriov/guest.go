package sriov

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/ashlar-hv/ashlar/drivers/nic"
	"github.com/ashlar-hv/ashlar/drivers/nvme"
	"github.com/ashlar-hv/ashlar/drivers/pci"
	driver "github.com/ashlar-hv/ashlar/drivers/sriov"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// startTimeout is how long a link may take to have a carrier when a guest waits for one of
// its virtual functions.
const startTimeout = 10 * time.Second

// A candidate is a link that a virtual function may be taken from.
type candidate struct {
	nic.Port
	functions []string // addresses
}

// Choose chooses a virtual function for a guest whose memory is on these NUMA nodes, none for
// any: of those of vf's links that free says nobody has. Hold must be held, until
// it is noted whose it is.
func (m *Manager) Choose(vf hostcall.VF, nodes []int, free func(address string) bool) (address string, err error) {
	all, err := candidates()
	if err != nil {
		return "", err
	}
	if err := unique(all, vf.MAC, free); err != nil {
		return "", err
	}
	inv, err := m.c.Inventory()
	if err != nil {
		return "", err
	}
	of, err := wanted(inv, all, vf.Links)
	if err != nil {
		return "", err
	}
	return choose(of, nodes, func(a string) bool { return free(a) && len(inv.Uses(a)) == 0 })
}

// wanted are those of the links that a guest may have a virtual function of, in its order.
func wanted(inv *pci.Inventory, all []candidate, links []string) ([]candidate, error) {
	var of []candidate
	for i, name := range links {
		pf, err := locate(inv, fmt.Sprintf("vf.links[%d]", i), name)
		var none *hostcall.Error
		if errors.As(err, &none) && none.Code == hostcall.NotFound {
			return nil, violation(hostcall.DeviceMissing, name, "There is no link at %s any more: put its card back, or take another link.", strings.TrimPrefix(name, pathName))
		}
		if err != nil {
			return nil, err
		}
		at := slices.IndexFunc(all, func(c candidate) bool { return c.Device == pf })
		if at < 0 {
			return nil, violation(hostcall.NotALink, pf, "The device %s is no link of the host: it is no network card, or the host's driver does not have it.", pf)
		}
		of = append(of, all[at])
	}
	return of, nil
}

// candidates are all links with their virtual functions.
func candidates() ([]candidate, error) {
	ports, err := nic.Ports(sysfs)
	if err != nil {
		return nil, err
	}
	var out []candidate
	for _, p := range ports {
		if p.Device == "" {
			continue
		}
		c := candidate{Port: p}
		if len(p.VFs) > 0 {
			if c.functions, err = driver.Functions(sysfs, p.Device); err != nil {
				return nil, err
			}
		}
		out = append(out, c)
	}
	return out, nil
}

// unique refuses an address that a link, or a virtual function that somebody has, has already:
// what is for one would reach the other.
func unique(all []candidate, mac string, free func(address string) bool) error {
	for _, c := range all {
		if mac != "" && (c.MAC.String() == mac || c.PermanentMAC.String() == mac) {
			return violation(hostcall.MACInUse, c.Device, "The MAC address %s is that of the host's link %s: choose another one.", mac, c.Name)
		}
		for i, s := range c.VFs[:min(len(c.VFs), len(c.functions))] {
			if mac != "" && s.MAC.String() == mac && !free(c.functions[i]) {
				return violation(hostcall.MACInUse, c.functions[i], "The MAC address %s is that of virtual function %d of %s, which is in use: choose another one.", mac, i, c.Name)
			}
		}
	}
	return nil
}

// choose takes the first free function of the links, those near to nodes first.
func choose(of []candidate, nodes []int, free func(address string) bool) (string, error) {
	near := slices.Clone(of)
	slices.SortStableFunc(near, func(a, b candidate) int { return distance(a, nodes) - distance(b, nodes) })
	var why []string
	for _, c := range near {
		for _, f := range c.functions {
			if free(f) {
				return f, nil
			}
		}
		if len(c.functions) == 0 {
			why = append(why, c.Name+" has no virtual functions")
		} else {
			why = append(why, fmt.Sprintf("all %d of %s are in use", len(c.functions), c.Name))
		}
	}
	return "", violation(hostcall.NoFreeVF, of[0].Device,
		"There is no free virtual function: %s. Stop a virtual machine that has one, or make more with ashlarctl device set-vfs.", strings.Join(why, ", "))
}

// distance is 0 of a link near to one of the nodes, or where it does not matter.
func distance(c candidate, nodes []int) int {
	if len(nodes) == 0 || c.Node < 0 || slices.Contains(nodes, c.Node) {
		return 0
	}
	return 1
}

// owner finds the link of a virtual function, and which of its functions it is.
func owner(address string) (link candidate, vf int, err error) {
	all, err := candidates()
	if err != nil {
		return candidate{}, 0, err
	}
	for _, c := range all {
		if i := slices.Index(c.functions, address); i >= 0 {
			return c, i, nil
		}
	}
	return candidate{}, 0, violation(hostcall.DeviceMissing, address, "The virtual function %s is gone: its link has been taken away or has lost its functions.", address)
}

// Prepare gives the virtual function at an address its settings, before a guest has it. Its
// link is switched on first, and must have a carrier: without, the function stays in reset.
func (m *Manager) Prepare(address string, s hostcall.VFSettings) error {
	if field, wrong := s.Check(); wrong != "" {
		return refuse(hostcall.InvalidArgument, "vf."+field, "%s of a virtual function %s.", field, wrong)
	}
	link, vf, err := owner(address)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	carrier, err := driver.Ready(ctx, link.Name)
	if err != nil {
		return err
	}
	if !carrier && s.State != hostcall.LinkEnable {
		return violation(hostcall.NoCarrier, link.Device,
			"The link %s has no carrier: connect its cable, switch on what is at the other end, or give the virtual function the link state enable, with which it reaches others on the same link.", link.Name)
	}
	set, err := asked(s)
	if err != nil {
		return err
	}
	err = driver.Apply(link.Name, vf, set)
	var cannot *driver.Unsupported
	switch {
	case errors.As(err, &cannot):
		return violation(hostcall.Settings, link.Device, "The driver %s of the link %s cannot set the %s of a virtual function: leave it out.", link.Driver, link.Name, cannot.What)
	case err != nil:
		return violation(hostcall.Settings, link.Device, "The driver %s of the link %s has refused the settings (%v): the rate is at most %d Mbit/s.", link.Driver, link.Name, err, link.SpeedMbps)
	}
	return nil
}

// asked makes settings of what is asked for.
func asked(s hostcall.VFSettings) (driver.Settings, error) {
	out := driver.Settings{VLAN: s.VLAN, QoS: s.QoS, MaxRate: s.MaxRate, SpoofCheck: !s.NoSpoofCheck, Trust: s.Trust, LinkState: states[s.State]}
	if s.MAC == "" {
		return out, nil
	}
	mac, err := net.ParseMAC(s.MAC)
	if err != nil {
		return driver.Settings{}, refuse(hostcall.InvalidArgument, "vf.mac", "%q is no MAC address.", s.MAC)
	}
	out.MAC = mac
	return out, nil
}

// Release takes the settings of a virtual function back when its guest has given it up. One
// that is gone has none.
func (m *Manager) Release(address string) error {
	link, vf, err := owner(address)
	var gone *hostcall.Error
	if errors.As(err, &gone) {
		return nil
	}
	if err != nil {
		return err
	}
	return driver.Apply(link.Name, vf, driver.Fresh)
}

// Online makes sure that the virtual function of an NVMe controller works, before a guest has
// it: a reset of its physical function takes it offline.
func (m *Manager) Online(d *pci.Device) error {
	if d.Physical == nil || d.Class != classNVMe {
		return nil
	}
	c, err := nvme.Open(d.Physical.Address)
	if err != nil {
		return err
	}
	defer c.Close()
	if virtual, err := c.Virtual(); err != nil || !virtual {
		return err
	}
	return c.Online(d.Physical.Index)
}
