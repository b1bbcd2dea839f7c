package service

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// GetHostTopology implements HostService.
func (s hostService) GetHostTopology(ctx context.Context, _ *connect.Request[ashlarv1.GetHostTopologyRequest]) (*connect.Response[ashlarv1.HostTopology], error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	msg, err := s.Link.Do(ctx, hostcall.Call{Method: hostcall.HostTopology})
	if err != nil {
		return nil, refuse.Core(err, "host", nil)
	}
	if msg.Topology == nil {
		return nil, refuse.Internal(errors.New("core answered without saying anything about the topology"))
	}
	return connect.NewResponse(topologyProto(msg.Topology)), nil
}

func topologyProto(t *hostcall.Topology) *ashlarv1.HostTopology {
	out := &ashlarv1.HostTopology{GuestCpus: &ashlarv1.GuestCpus{
		ReservedCpus: numbers(t.Guests.Reserved), SharedCpus: numbers(t.Guests.Shared), ExclusiveCpus: numbers(t.Guests.Exclusive),
		Processors: int32(t.Guests.VCPUs), MaxProcessors: int32(t.Guests.Most),
	}}
	for _, n := range t.Nodes {
		node := &ashlarv1.HostTopology_Node{
			Id: int32(n.ID), Cpus: numbers(n.CPUs), Distances: numbers(n.Distances),
			MemoryBytes: n.Memory, MemoryFreeBytes: n.Free, MemoryAvailableBytes: n.Available,
		}
		for _, p := range n.Pools {
			node.Pools = append(node.Pools, &ashlarv1.HostTopology_Pool{PageBytes: p.Page, TotalPages: p.Total, FreePages: p.Free})
		}
		for _, d := range n.Devices {
			node.PciDevices = append(node.PciDevices, &ashlarv1.HostTopology_PciDevice{
				Address: d.Address, ClassCode: int32(d.Class), VendorId: int32(d.Vendor), DeviceId: int32(d.Device),
			})
		}
		out.Nodes = append(out.Nodes, node)
	}
	for _, c := range t.Cores {
		out.Cores = append(out.Cores, &ashlarv1.HostTopology_Core{
			Socket: int32(c.Socket), Die: int32(c.Die), Core: int32(c.Core), Node: int32(c.Node), Cpus: numbers(c.CPUs),
		})
	}
	for _, c := range t.Caches {
		for _, cpus := range c.Shared {
			out.Caches = append(out.Caches, &ashlarv1.HostTopology_Cache{
				Level: int32(c.Level), Type: c.Type, SizeBytes: c.Bytes, Cpus: numbers(cpus),
			})
		}
	}
	return out
}

// numbers are those of a list as the API has them.
func numbers(list []int) []int32 {
	var out []int32
	for _, n := range list {
		out = append(out, int32(n))
	}
	return out
}
