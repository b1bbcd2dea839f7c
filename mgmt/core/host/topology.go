package host

import (
	"slices"

	"github.com/ashlar-hv/ashlar/drivers/topology"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// Topology reads what is near to what in the machine.
func Topology() (*hostcall.Topology, error) {
	h, err := topology.Read()
	if err != nil {
		return nil, err
	}
	return describe(h), nil
}

// describe tells of h in short: cores and caches once, not once for each of their CPUs.
func describe(h *topology.Host) *hostcall.Topology {
	out := &hostcall.Topology{}
	for _, n := range h.Nodes {
		node := hostcall.Node{
			ID: n.ID, CPUs: n.CPUs, Distances: n.Distances,
			Memory: n.MemoryBytes, Free: n.FreeBytes, Available: n.AvailableBytes,
		}
		for _, p := range n.Pools {
			node.Pools = append(node.Pools, hostcall.Pool{Page: p.PageBytes, Total: p.Total, Free: p.Free})
		}
		for _, d := range n.Devices {
			node.Devices = append(node.Devices, hostcall.Device(d))
		}
		out.Nodes = append(out.Nodes, node)
	}
	for _, c := range h.CPUs {
		if first(c.ID, c.Siblings) {
			out.Cores = append(out.Cores, hostcall.Core{Socket: c.Socket, Die: c.Die, Core: c.Core, Node: c.Node, CPUs: c.Siblings})
		}
		for _, cache := range c.Caches {
			if first(c.ID, cache.CPUs) {
				addCache(out, cache)
			}
		}
	}
	return out
}

// first says whether CPU id is the one that tells of what these CPUs share.
func first(id int, cpus []int) bool { return len(cpus) > 0 && cpus[0] == id }

func addCache(t *hostcall.Topology, c topology.Cache) {
	i := slices.IndexFunc(t.Caches, func(k hostcall.Cache) bool {
		return k.Level == c.Level && k.Type == c.Type && k.Bytes == c.Bytes
	})
	if i < 0 {
		i = len(t.Caches)
		t.Caches = append(t.Caches, hostcall.Cache{Level: c.Level, Type: c.Type, Bytes: c.Bytes})
	}
	t.Caches[i].Shared = append(t.Caches[i].Shared, c.CPUs)
}
