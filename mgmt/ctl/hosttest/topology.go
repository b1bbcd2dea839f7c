package hosttest

import (
	"context"

	"connectrpc.com/connect"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// GetHostTopology describes a host of one node.
func (h *Host) GetHostTopology(context.Context, *connect.Request[ashlarv1.GetHostTopologyRequest]) (*connect.Response[ashlarv1.HostTopology], error) {
	return connect.NewResponse(&ashlarv1.HostTopology{
		GuestCpus: &ashlarv1.GuestCpus{ReservedCpus: []int32{0, 2}, SharedCpus: []int32{1}, ExclusiveCpus: []int32{3}, Processors: 2, MaxProcessors: 16},
		Nodes: []*ashlarv1.HostTopology_Node{{
			Cpus: []int32{0, 1, 2, 3}, Distances: []int32{10}, MemoryBytes: 8 << 30, MemoryFreeBytes: 6 << 30, MemoryAvailableBytes: 7 << 30,
			Pools:      []*ashlarv1.HostTopology_Pool{{PageBytes: 2 << 20, TotalPages: 16, FreePages: 12}},
			PciDevices: []*ashlarv1.HostTopology_PciDevice{{Address: "0000:01:00.0", ClassCode: 0x010802, VendorId: 0x144d, DeviceId: 0xa808}},
		}},
		Cores: []*ashlarv1.HostTopology_Core{{Core: 0, Cpus: []int32{0, 2}}, {Core: 1, Cpus: []int32{1, 3}}},
		Caches: []*ashlarv1.HostTopology_Cache{
			{Level: 2, Type: "Unified", SizeBytes: 1 << 20, Cpus: []int32{0, 2}}, {Level: 2, Type: "Unified", SizeBytes: 1 << 20, Cpus: []int32{1, 3}},
		},
	}), nil
}
