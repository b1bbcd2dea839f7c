package coretest

import "github.com/ashlar-hv/ashlar/vmm/protocol"

// setVCPUs gives a guest what is missing, and takes what it lets go. mu is held.
func (c *Core) setVCPUs(g *guest, n int) {
	had := g.vcpus.Present
	g.vcpus = protocol.VCPUs{Present: n, Target: n}
	switch {
	case had <= n:
	case g.keeps > 0:
		g.vcpus.Present, g.vcpus.Refused = n+g.keeps, g.keeps
	case g.keeps < 0:
		g.vcpus.Present = had
	}
	c.tellVCPUs(g)
}

func (c *Core) tellVCPUs(g *guest) {
	st := g.status
	st.VCPUs = g.vcpus.Present
	c.change(g, st)
}

// Keep makes a guest refuse to give up n of those that it is asked for, or, where n is
// negative, give up none and say nothing.
func (c *Core) Keep(id string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.guests[id].keeps = n
}

// GiveUp makes a guest give up processors until n are left.
func (c *Core) GiveUp(id string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.guests[id]
	g.vcpus.Present, g.vcpus.Refused = n, 0
	c.tellVCPUs(g)
}
