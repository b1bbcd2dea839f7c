package control_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// What core tells of the host's topology is told to clients.
func TestHostTopology(t *testing.T) {
	l := newLab(t)
	res, err := l.hosts.GetHostTopology(ctxOf(t), req(&ashlarv1.GetHostTopologyRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	l1 := func(cpu int32) *ashlarv1.HostTopology_Cache {
		return &ashlarv1.HostTopology_Cache{Level: 1, Type: "Data", SizeBytes: 32 << 10, Cpus: []int32{cpu}}
	}
	want := &ashlarv1.HostTopology{
		GuestCpus: &ashlarv1.GuestCpus{ReservedCpus: []int32{0}, SharedCpus: []int32{0}, ExclusiveCpus: []int32{1}, Processors: 3, MaxProcessors: 16},
		Nodes: []*ashlarv1.HostTopology_Node{
			{Cpus: []int32{0, 1}, Distances: []int32{10, 21}, MemoryBytes: 4 << 30, MemoryFreeBytes: 2 << 30, MemoryAvailableBytes: 3 << 30,
				Pools:      []*ashlarv1.HostTopology_Pool{{PageBytes: 2 << 20, TotalPages: 5, FreePages: 4}},
				PciDevices: []*ashlarv1.HostTopology_PciDevice{{Address: "0000:01:00.0", ClassCode: 0x020000, VendorId: 0x8086, DeviceId: 0x1572}}},
			{Id: 1, Distances: []int32{21, 10}, MemoryBytes: 1 << 30},
		},
		Cores:  []*ashlarv1.HostTopology_Core{{Socket: 1, Die: 2, Core: 3, Cpus: []int32{0, 1}}},
		Caches: []*ashlarv1.HostTopology_Cache{l1(0), l1(1)},
	}
	if d := cmp.Diff(want, res.Msg, protocmp.Transform()); d != "" {
		t.Errorf("topology (-want +got):\n%s", d)
	}
}
