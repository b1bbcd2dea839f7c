package render

import (
	"bytes"
	"testing"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

func TestTopology(t *testing.T) {
	l1 := func(cpus ...int32) *ashlarv1.HostTopology_Cache {
		return &ashlarv1.HostTopology_Cache{Level: 1, Type: "Data", SizeBytes: 32 << 10, Cpus: cpus}
	}
	r := Topology(&ashlarv1.HostTopology{
		Nodes: []*ashlarv1.HostTopology_Node{
			{Id: 0, Cpus: []int32{0, 1, 4, 5}, Distances: []int32{10, 21}, MemoryBytes: 4 << 30, MemoryAvailableBytes: 3 << 30,
				Pools: []*ashlarv1.HostTopology_Pool{{PageBytes: 2 << 20, TotalPages: 64, FreePages: 60}},
				PciDevices: []*ashlarv1.HostTopology_PciDevice{
					{Address: "0000:17:00.0", ClassCode: 0x020000, VendorId: 0x8086, DeviceId: 0x1572},
					{Address: "0000:18:00.0", ClassCode: 0x100000, VendorId: 0x8086, DeviceId: 0x37c8}}},
			{Id: 1, Distances: []int32{21, 10}, MemoryBytes: 1 << 30, MemoryAvailableBytes: 1 << 30},
		},
		Cores: []*ashlarv1.HostTopology_Core{
			{Socket: 0, Core: 0, Cpus: []int32{0, 4}}, {Socket: 0, Core: 1, Cpus: []int32{1, 5}}, {Socket: 1, Node: -1, Cpus: []int32{7}}},
		Caches: []*ashlarv1.HostTopology_Cache{l1(0, 4), l1(1, 5), l1(7), {}},
	})
	var got bytes.Buffer
	if err := r.Write(&got); err != nil {
		t.Fatal(err)
	}
	want := `Node 0:              4GiB, 3GiB available, CPUs 0-1 4-5, distances 10 21
  Pages of 2MiB:     64, 60 free
  Socket 0:          2 cores: 0+4 1+5
  L1, data:          2 x 32KiB
  PCI 0000:17:00.0:  8086:1572, network
  PCI 0000:18:00.0:  8086:37c8, class 100000
Node 1:              1GiB, 1GiB available, distances 21 10
  Socket 1:          1 core: 7
`
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
}
