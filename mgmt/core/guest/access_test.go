package guest

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ashlar-hv/ashlar/drivers/topology"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

func TestAccessOf(t *testing.T) {
	host := map[topology.Pair]topology.Access{
		{CPUs: 0, Memory: 0}: {ReadLatency: 80, WriteLatency: 90, ReadBandwidth: 200, WriteBandwidth: 100},
		{CPUs: 0, Memory: 1}: {ReadLatency: 140, WriteLatency: 150, ReadBandwidth: 50, WriteBandwidth: 40},
		{CPUs: 1, Memory: 1}: {ReadLatency: 85, ReadBandwidth: 210},
	}
	on := func(nodes ...[]int) (out []protocol.NUMANode) {
		for _, n := range nodes {
			out = append(out, protocol.NUMANode{HostNodes: n})
		}
		return out
	}
	for _, tt := range []struct {
		name  string
		nodes []protocol.NUMANode
		want  [][]protocol.Access
	}{
		{"two", on([]int{0}, []int{1}), [][]protocol.Access{
			{{ReadLatency: 80, WriteLatency: 90, ReadBandwidth: 200, WriteBandwidth: 100}, {ReadLatency: 140, WriteLatency: 150, ReadBandwidth: 50, WriteBandwidth: 40}},
			{{}, {ReadLatency: 85, ReadBandwidth: 210}},
		}},
		{"memory of both", on([]int{0}, []int{0, 1})[1:], nil},
		{"the slower of two", on([]int{0}, []int{1, 0}), [][]protocol.Access{
			{{ReadLatency: 80, WriteLatency: 90, ReadBandwidth: 200, WriteBandwidth: 100}, {ReadLatency: 140, WriteLatency: 150, ReadBandwidth: 50, WriteBandwidth: 40}},
			{{}, {}},
		}},
		{"of no certain node", on(nil, nil), nil},
		{"unknown", on([]int{7}), nil},
	} {
		if d := cmp.Diff(tt.want, accessOf(tt.nodes, host)); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, d)
		}
	}
}
