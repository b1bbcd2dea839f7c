package coretest

import (
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// Topology is that of the host: two nodes, the second of memory alone.
func Topology() *hostcall.Topology {
	return &hostcall.Topology{
		Nodes: []hostcall.Node{
			{ID: 0, CPUs: []int{0, 1}, Distances: []int{10, 21}, Memory: 4 << 30, Free: 2 << 30, Available: 3 << 30,
				Pools:   []hostcall.Pool{{Page: 2 << 20, Total: 5, Free: 4}},
				Devices: []hostcall.Device{{Address: "0000:01:00.0", Class: 0x020000, Vendor: 0x8086, Device: 0x1572}}},
			{ID: 1, Distances: []int{21, 10}, Memory: 1 << 30},
		},
		Cores:  []hostcall.Core{{Socket: 1, Die: 2, Core: 3, CPUs: []int{0, 1}}},
		Caches: []hostcall.Cache{{Level: 1, Type: "Data", Bytes: 32 << 10, Shared: [][]int{{0}, {1}}}},
		Guests: hostcall.GuestCPUs{Reserved: []int{0}, Shared: []int{0}, Exclusive: []int{1}, VCPUs: 3, Most: 16},
	}
}

// Placed is where every guest is that runs.
func Placed() *hostcall.Placed {
	return &hostcall.Placed{VCPUs: 1, Nodes: []int{1}, HostNodes: [][]int{{0}, {1}}, Affinity: []protocol.Affinity{{VCPUs: []int{0}, CPUs: []int{1}}},
		Emulation: []int{0}, Pinned: true, Exclusive: []int{1}, Why: "It was asked for."}
}
