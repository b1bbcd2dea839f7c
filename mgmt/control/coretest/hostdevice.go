package coretest

import (
	"slices"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// checkDevices refuses those that are not there, that the host needs, and, without later, that
// another guest has. mu is held.
func (c *Core) checkDevices(id string, devices []hostcall.HostDevice, later bool) error {
	var wrong []hostcall.Violation
	for _, d := range devices {
		i := slices.IndexFunc(c.pci, func(p hostcall.PCIDevice) bool { return slices.Contains(p.Names, d.Name) })
		switch {
		case i < 0:
			wrong = append(wrong, hostcall.Violation{Reason: hostcall.DeviceMissing, Device: d.Name, Message: "Not there."})
		case len(c.pci[i].Uses) > 0:
			wrong = append(wrong, hostcall.Violation{Reason: hostcall.UsedByHost, Device: c.pci[i].Address, Message: "The host needs it."})
		case !later && c.pci[i].Owner != "" && c.pci[i].Owner != id:
			wrong = append(wrong, hostcall.Violation{Reason: hostcall.Owned, Device: c.pci[i].Address, Message: "Another guest has it."})
		}
	}
	return hostcall.Refuse(wrong)
}

// holdDevices gives devices to a guest. mu is held.
func (c *Core) holdDevices(id string, devices []hostcall.HostDevice) (held []hostcall.HeldDevice, err error) {
	if err := c.checkDevices(id, devices, false); err != nil {
		return nil, err
	}
	c.pci = slices.Clone(c.pci)
	for _, d := range devices {
		for i := range c.pci {
			if slices.Contains(c.pci[i].Names, d.Name) {
				c.pci[i].Owner = id
				held = append(held, hostcall.HeldDevice{Number: d.Number, Address: c.pci[i].Address})
			}
		}
	}
	if len(held) > 0 {
		c.tellPCI()
	}
	return held, nil
}

// returnDevices takes devices of a guest back, all of them but those that it keeps. mu is held.
func (c *Core) returnDevices(id string, keeps []hostcall.HeldDevice) {
	c.pci = slices.Clone(c.pci)
	for i, p := range c.pci {
		if p.Owner == id && !slices.ContainsFunc(keeps, func(h hostcall.HeldDevice) bool { return h.Address == p.Address }) {
			c.pci[i].Owner = ""
			defer c.tellPCI()
		}
	}
}

// attachDevice gives one to a guest that runs, which may have it already. mu is held.
func (c *Core) attachDevice(g *guest, d hostcall.HostDevice) error {
	name := hostcall.DeviceName(hostcall.VFIOKind, d.Number)
	if g.find(name) >= 0 {
		return nil
	}
	held, err := c.holdDevices(g.status.ID, []hostcall.HostDevice{d})
	if err != nil {
		return err
	}
	st := g.status
	st.Devices = append(slices.Clone(st.Devices), held...)
	if err := g.plug(name); err != nil {
		c.returnDevices(st.ID, g.status.Devices)
		return err
	}
	c.change(g, st)
	return nil
}

// dropDevice takes one back that a guest does not have. mu is held.
func (c *Core) dropDevice(g *guest, number int) {
	st := g.status
	st.Devices = slices.DeleteFunc(slices.Clone(st.Devices), func(h hostcall.HeldDevice) bool { return h.Number == number })
	c.returnDevices(st.ID, st.Devices)
	c.change(g, st)
}

// Fault has something happen to the devices of a guest.
func (c *Core) Fault(id, fault string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.guests[id]
	st := g.status
	st.Devices = slices.Clone(st.Devices)
	for i := range st.Devices {
		st.Devices[i].Fault = fault
	}
	c.change(g, st)
}
