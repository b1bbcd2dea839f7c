package guest

import (
	"errors"
	"strings"
	"testing"

	"github.com/ashlar-hv/ashlar/drivers/topology"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

const mib = 1 << 20

// twoNodes is a host of 1 GiB and 512 MiB, and a node of memory alone.
var twoNodes = &topology.Host{
	Nodes: []topology.Node{
		{ID: 0, CPUs: []int{0, 2}, MemoryBytes: 2048 * mib, AvailableBytes: 1024*mib + nodeReserve,
			Pools: []topology.Pool{{PageBytes: 2 * mib, Total: 20, Free: 10}}},
		{ID: 1, CPUs: []int{1, 3}, MemoryBytes: 1024 * mib, AvailableBytes: 512*mib + nodeReserve},
		{ID: 4, MemoryBytes: 4096 * mib, AvailableBytes: 0},
		{ID: 5, CPUs: []int{4}},
	},
	CPUs: make([]topology.CPU, 5),
}

func node(size uint64, hosts ...int) protocol.NUMANode {
	return protocol.NUMANode{MemoryBytes: size * mib, HostNodes: hosts}
}

// refusedWith is whether err is a refusal with that code, field and text.
func refusedWith(t *testing.T, err error, code hostcall.Code, field, text string) {
	t.Helper()
	var e *hostcall.Error
	if code == "" {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
		return
	}
	if !errors.As(err, &e) || e.Code != code || e.Field != field || !strings.Contains(e.Message, text) {
		t.Errorf("got %+v, want %s at %s with %q", err, code, field, text)
	}
}

func TestCheckHostNodes(t *testing.T) {
	for _, tt := range []struct {
		nodes []protocol.NUMANode
		host  *topology.Host
		field string
		text  string
	}{
		{[]protocol.NUMANode{node(1, 0, 4), node(1)}, twoNodes, "", ""},
		{[]protocol.NUMANode{node(1, 0), node(1, 1, 3)}, twoNodes, "guest.numa[1].hostNodes", "no NUMA node 3 with memory: it has 0-1,4."},
		{[]protocol.NUMANode{node(1, 5)}, twoNodes, "guest.numa[0].hostNodes", "no NUMA node 5"},
		{[]protocol.NUMANode{node(1, 0)}, &topology.Host{}, "guest.numa[0].hostNodes", "it has none."},
	} {
		code := hostcall.FailedPrecondition
		if tt.field == "" {
			code = ""
		}
		refusedWith(t, checkHostNodes(tt.nodes, tt.host), code, tt.field, tt.text)
	}
}

func TestAdmitTo(t *testing.T) {
	for _, tt := range []struct {
		name  string
		nodes []protocol.NUMANode
		taken []use
		field string
		text  string
	}{
		{"all there is", []protocol.NUMANode{node(1024, 0), node(512, 1), node(4096)}, nil, "", ""},
		{"too much", []protocol.NUMANode{node(2, 0), node(514, 1)}, nil, "guest.numa[1].hostNodes", "node 1 has 512 MiB free for guests, 514 MiB are asked for"},
		{"both on one", []protocol.NUMANode{node(256, 1), node(258, 1)}, nil, "guest.numa[1].hostNodes", "has 256 MiB free"},
		{"of two nodes", []protocol.NUMANode{node(1536, 1, 0)}, nil, "", ""},
		{"too much of two nodes", []protocol.NUMANode{node(1538, 1, 0)}, nil, "guest.numa[0].hostNodes", "node 0-1 has 1536 MiB"},
		{"full", []protocol.NUMANode{node(2, 4)}, nil, "guest.numa[0].hostNodes", "has 0 MiB"},
		{"promised to another", []protocol.NUMANode{node(512, 1)},
			[]use{{[]protocol.NUMANode{node(100, 1), node(64, 0, 1), node(9, 0)}, map[int]int64{1: 64 * mib, 0: 9 * mib}}},
			"guest.numa[0].hostNodes", "has 412 MiB"},
		{"taken by another", []protocol.NUMANode{node(512, 1)}, []use{{[]protocol.NUMANode{node(100, 1)}, map[int]int64{1: 100 * mib}}}, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code := hostcall.ResourceExhausted
			if tt.field == "" {
				code = ""
			}
			refusedWith(t, admitTo(tt.nodes, twoNodes, tt.taken), code, tt.field, tt.text)
		})
	}
}

func TestAdmitToPools(t *testing.T) {
	nodes := []protocol.NUMANode{node(10, 0), node(10, 0), node(100)}
	refusedWith(t, admitToPools(nodes, protocol.Pages2MiB, twoNodes, 2*mib), "", "", "")
	nodes[1].MemoryBytes += 2 * mib
	refusedWith(t, admitToPools(nodes, protocol.Pages2MiB, twoNodes, 2*mib), hostcall.ResourceExhausted, "guest.numa[1].hostNodes",
		"node 0 has 10 of its 20 pages of 2MiB free, 11 are asked for")
	nodes = []protocol.NUMANode{node(2, 1)}
	refusedWith(t, admitToPools(nodes, protocol.Pages2MiB, twoNodes, 2*mib), hostcall.ResourceExhausted, "guest.numa[0].hostNodes", "has 0 of its 0 pages")
}

// Nodes are checked against this machine's, which has a node 0.
func TestCheckNodes(t *testing.T) {
	g := &hostcall.Guest{VCPUs: 2, MemoryBytes: 64 * mib, NUMA: []protocol.NUMANode{node(32, 0), node(32)}}
	g.NUMA[0].VCPUs = []int{0, 1}
	refusedWith(t, checkNodes(g), "", "", "")
	g.NUMA[1].HostNodes = []int{1023}
	refusedWith(t, checkNodes(g), hostcall.FailedPrecondition, "guest.numa[1].hostNodes", "no NUMA node 1023")
	g.NUMA[1].MemoryBytes = 31 * mib
	refusedWith(t, checkNodes(g), hostcall.InvalidArgument, "guest.numa[1].memoryBytes", "a multiple of")
	g.NUMA = g.NUMA[:1]
	refusedWith(t, checkNodes(g), hostcall.InvalidArgument, "numa", "32")
}
