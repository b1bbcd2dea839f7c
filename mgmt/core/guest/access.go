package guest

import (
	"github.com/ashlar-hv/ashlar/drivers/topology"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// nodeAccess is how fast the memory of each of nodes is for the processors of each, where the
// host's firmware tells. Where it tells nonsense guests are told nothing.
func (m *Manager) nodeAccess(nodes []protocol.NUMANode) [][]protocol.Access {
	if !protocol.Bound(nodes) {
		return nil
	}
	host, err := topology.ReadAccess()
	if err != nil {
		m.c.Log.Warn("guests are not told how fast memory is", "because", err)
	}
	return accessOf(nodes, host)
}

// accessOf is nil where nothing is known.
func accessOf(nodes []protocol.NUMANode, host map[topology.Pair]topology.Access) [][]protocol.Access {
	known := false
	out := make([][]protocol.Access, len(nodes))
	for i, from := range nodes {
		for _, to := range nodes {
			a := slowest(from.HostNodes, to.HostNodes, host)
			known = known || a != protocol.Access{}
			out[i] = append(out[i], a)
		}
	}
	if !known {
		return nil
	}
	return out
}

// slowest is the worst of all that there may be between nodes of the host. What is not known
// of one of them is not known.
func slowest(from, to []int, host map[topology.Pair]topology.Access) (worst protocol.Access) {
	first := true
	for _, cpus := range from {
		for _, memory := range to {
			a := protocol.Access(host[topology.Pair{CPUs: cpus, Memory: memory}])
			if first {
				worst, first = a, false
				continue
			}
			longer(&worst.ReadLatency, a.ReadLatency)
			longer(&worst.WriteLatency, a.WriteLatency)
			worst.ReadBandwidth = min(worst.ReadBandwidth, a.ReadBandwidth)
			worst.WriteBandwidth = min(worst.WriteBandwidth, a.WriteBandwidth)
		}
	}
	return worst
}

func longer(worst *uint64, latency uint64) {
	if latency == 0 || *worst == 0 {
		*worst = 0
		return
	}
	*worst = max(*worst, latency)
}
