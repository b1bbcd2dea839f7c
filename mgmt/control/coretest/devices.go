package coretest

import (
	"slices"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// SetPCI makes these the PCI devices of the host, by address, and says that they have
// changed.
func (c *Core) SetPCI(devices ...hostcall.PCIDevice) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pci = devices
	c.tellPCI()
}

// tellPCI says that PCI devices have changed. mu is held.
func (c *Core) tellPCI() {
	for k := range c.conns {
		if k.subscribed {
			_ = k.c.Send(hostcall.Message{Event: &hostcall.Event{PCI: true}})
		}
	}
}

// SetPool makes what a pool of huge pages has, whatever control asks for.
func (c *Core) SetPool(p hostcall.HugepagePool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pools = slices.DeleteFunc(c.pools, func(old hostcall.HugepagePool) bool { return old.Page == p.Page })
	c.pools = append(c.pools, p)
}

// pciPage has two devices, so that control has to ask for more.
func (c *Core) pciPage(after string) *hostcall.PCIPage {
	i := slices.IndexFunc(c.pci, func(d hostcall.PCIDevice) bool { return d.Address > after })
	if i < 0 {
		return &hostcall.PCIPage{}
	}
	rest := c.pci[i:]
	return &hostcall.PCIPage{Devices: rest[:min(2, len(rest))], More: len(rest) > 2}
}

// hugepages answers HugepagesSet: the host has memory for all but 1000 pages.
func (c *Core) hugepages(s *hostcall.HugepageSize) ([]hostcall.HugepagePool, error) {
	i := slices.IndexFunc(c.pools, func(p hostcall.HugepagePool) bool { return p.Page == s.Page })
	switch {
	case i < 0:
		return nil, &hostcall.Error{Code: hostcall.NotFound, Field: "hugepageSize.page", Message: "No such pool."}
	case s.Pages > 1000 && s.AtMost:
		s.Pages = 1000
	case s.Pages > 1000:
		return nil, &hostcall.Error{Code: hostcall.ResourceExhausted, Field: "hugepageSize.pages", Message: "Memory for 1000 pages."}
	case s.Node != nil && *s.Node >= len(c.pools[i].Nodes):
		return nil, &hostcall.Error{Code: hostcall.InvalidArgument, Field: "hugepageSize.node", Message: "No such node."}
	}
	p := &c.pools[i]
	p.Nodes = slices.Clone(p.Nodes)
	p.Total, p.Free = 0, 0
	for j := range p.Nodes {
		n := &p.Nodes[j]
		if s.Node == nil {
			n.Total = s.Pages / int64(len(p.Nodes))
		} else if *s.Node == n.ID {
			n.Total = s.Pages
		}
		n.Free = n.Total
		p.Total, p.Free = p.Total+n.Total, p.Free+n.Free
	}
	return []hostcall.HugepagePool{*p}, nil
}
