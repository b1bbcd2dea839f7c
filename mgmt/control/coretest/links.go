package coretest

import (
	"fmt"
	"slices"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// SetLinks makes these the links of the host, by name, and says that they have changed.
func (c *Core) SetLinks(links ...hostcall.Link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.links = links
	c.event(hostcall.Event{Links: true})
}

// event is sent to all who have subscribed. mu is held.
func (c *Core) event(e hostcall.Event) {
	for k := range c.conns {
		if k.subscribed {
			_ = k.c.Send(hostcall.Message{Event: &e})
		}
	}
}

// VFs are the virtual functions that were asked for, in order.
func (c *Core) VFs() []hostcall.VFs {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.vfs)
}

// linkPage has one link, so that control has to ask for more.
func (c *Core) linkPage(after string) *hostcall.LinkPage {
	i := slices.IndexFunc(c.links, func(l hostcall.Link) bool { return l.Name > after })
	if i < 0 {
		return &hostcall.LinkPage{}
	}
	return &hostcall.LinkPage{Links: c.links[i : i+1], More: i+1 < len(c.links)}
}

// setVFs gives a device of SetPCI virtual functions, which appear behind the last device.
func (c *Core) setVFs(v hostcall.VFs) error {
	c.vfs = append(c.vfs, v)
	i := slices.IndexFunc(c.pci, func(d hostcall.PCIDevice) bool { return slices.Contains(d.Names, v.Device) })
	switch {
	case i < 0:
		return &hostcall.Error{Code: hostcall.NotFound, Field: "vfs.device", Message: "No such device."}
	case v.Count > c.pci[i].TotalVFs:
		return &hostcall.Error{Code: hostcall.InvalidArgument, Field: "vfs.count", Message: fmt.Sprintf("At most %d.", c.pci[i].TotalVFs)}
	}
	pf := c.pci[i].Address
	c.pci = slices.DeleteFunc(slices.Clone(c.pci), func(d hostcall.PCIDevice) bool { return d.Physical == pf })
	i = slices.IndexFunc(c.pci, func(d hostcall.PCIDevice) bool { return d.Address == pf })
	c.pci[i].VFs = v.Count
	for n := range v.Count {
		c.pci = append(c.pci, hostcall.PCIDevice{Address: fmt.Sprintf("0000:f0:00.%d", n), Names: []string{fmt.Sprintf("%s-vf%d", v.Device, n)}, Physical: pf, VF: n, Group: -1, Node: -1})
	}
	c.event(hostcall.Event{PCI: true})
	return nil
}
