package guest

import (
	"errors"
	"fmt"
	"slices"

	"github.com/ashlar-hv/ashlar/drivers/topology"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// nodeReserve stays free on a NUMA node, for what the kernel needs of it.
const nodeReserve = 32 << 20

// checkNodes checks the NUMA nodes of a guest, and that the host has those that their
// memory is to be of.
func checkNodes(g *hostcall.Guest) error {
	threads := 1
	if g.CPU != nil {
		threads = g.CPU.Threads
	}
	if err := protocol.CheckNUMA(g.NUMA, mostVCPUs(g), threads, g.MemoryBytes, g.Backing); err != nil {
		return refusal(err)
	}
	if !protocol.Bound(g.NUMA) {
		return nil
	}
	host, err := topology.Read()
	if err != nil {
		return err
	}
	return checkHostNodes(g.NUMA, host)
}

// checkHostNodes checks that host has the nodes that memory is to be of.
func checkHostNodes(nodes []protocol.NUMANode, host *topology.Host) error {
	there := nodesWithMemory(host)
	for i, n := range nodes {
		for _, id := range n.HostNodes {
			if !slices.Contains(there, id) {
				return nodeError(hostcall.FailedPrecondition, i, "The host has no NUMA node %d with memory: it %s.", id, haveNodes(host))
			}
		}
	}
	return nil
}

// nodesWithMemory are those of host.
func nodesWithMemory(host *topology.Host) []int {
	var there []int
	for _, n := range host.Nodes {
		if n.MemoryBytes > 0 {
			there = append(there, n.ID)
		}
	}
	return there
}

// haveNodes says which nodes with memory host has.
func haveNodes(host *topology.Host) string {
	if there := nodesWithMemory(host); len(there) > 0 {
		return "has " + topology.FormatList(there)
	}
	return "has none"
}

// nodeError says what is wrong with the host's nodes for node i.
func nodeError(code hostcall.Code, i int, format string, args ...any) error {
	return &hostcall.Error{Code: code, Field: fmt.Sprintf("guest.numa[%d].hostNodes", i), Message: fmt.Sprintf(format, args...)}
}

// admitToNodes checks that the host's nodes have the memory for one more guest, as
// admit does for the host as a whole. The caller holds m.mu.
func (m *Manager) admitToNodes(rec *record) error {
	shares := rec.shares()
	if shares == nil {
		return nil
	}
	host, err := topology.Read()
	if err != nil {
		return err
	}
	if size := int64(rec.Pages.PoolSize()); size > 0 {
		err = admitToPools(shares, rec.Pages, host, size)
	} else {
		err = admitTo(shares, host, m.taken())
	}
	var e *hostcall.Error
	if errors.As(err, &e) && len(rec.NUMA) == 0 {
		e.Field = "guest.placement.node"
	}
	return err
}

// taken is what guests that run were promised of certain nodes. The caller holds m.mu.
func (m *Manager) taken() []use {
	var taken []use
	for _, r := range m.running {
		shares := r.rec.shares()
		if r.rec.Pages.PoolSize() > 0 || shares == nil {
			continue
		}
		// Where it is unknown, what a guest has touched counts twice.
		used, _ := r.group.MemoryOnNodes()
		taken = append(taken, use{shares, used})
	}
	return taken
}

// A use is what a running guest was promised of the host's nodes, and has already.
type use struct {
	nodes []protocol.NUMANode
	used  map[int]int64 // bytes, by the host's nodes
}

// left is how much of what it was promised of any of the host's nodes wanted it has not
// taken yet.
func (u use) left(wanted []int) int64 {
	promised := int64(0)
	for _, n := range u.nodes {
		if overlap(n.HostNodes, wanted) {
			promised += int64(n.MemoryBytes)
		}
	}
	for _, id := range wanted {
		promised -= u.used[id]
	}
	return max(promised, 0)
}

func overlap(a, b []int) bool {
	return slices.ContainsFunc(a, func(n int) bool { return slices.Contains(b, n) })
}

// admitTo checks that host has memory for nodes besides what is taken. What several of
// the host's nodes are to give together counts as taken on each of them.
func admitTo(nodes []protocol.NUMANode, host *topology.Host, taken []use) error {
	for i, n := range nodes {
		if len(n.HostNodes) == 0 {
			continue
		}
		free := int64(0)
		for _, id := range n.HostNodes {
			h, _ := host.Node(id)
			free += max(h.AvailableBytes-nodeReserve, 0)
		}
		for _, u := range taken {
			free -= u.left(n.HostNodes)
		}
		free -= use{nodes: nodes[:i]}.left(n.HostNodes)
		if int64(n.MemoryBytes) > free {
			return nodeError(hostcall.ResourceExhausted, i, "The host's NUMA node %s has %d MiB free for guests, %d MiB are asked for: stop another guest there, or choose another node.",
				topology.FormatList(slices.Sorted(slices.Values(n.HostNodes))), max(free, 0)>>20, n.MemoryBytes>>20)
		}
	}
	return nil
}

// admitToPools checks that there are pages of size bytes for each of nodes. Whether
// they are nobody else's shows when the VMM allocates them, which it does at once.
func admitToPools(nodes []protocol.NUMANode, pages protocol.Pages, host *topology.Host, size int64) error {
	for i, n := range nodes {
		if len(n.HostNodes) == 0 {
			continue
		}
		var all topology.Pool
		for _, id := range n.HostNodes {
			h, _ := host.Node(id)
			for _, p := range h.Pools {
				if p.PageBytes == size {
					all.Total += p.Total
					all.Free += p.Free
				}
			}
		}
		need := int64(n.MemoryBytes) / size
		for _, other := range nodes[:i] {
			if overlap(other.HostNodes, n.HostNodes) {
				need += int64(other.MemoryBytes) / size
			}
		}
		if need > all.Free {
			return nodeError(hostcall.ResourceExhausted, i, "The host's NUMA node %s has %d of its %d pages of %s free, %d are asked for: stop a guest that uses them, or choose another node.",
				topology.FormatList(slices.Sorted(slices.Values(n.HostNodes))), all.Free, all.Total, pages, need)
		}
	}
	return nil
}
