package host

import (
	"encoding/json"
	"runtime"
	"testing"

	"github.com/ashlar-hv/ashlar/drivers/topology"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/seqpacket"
	"github.com/google/go-cmp/cmp"
)

func TestDescribe(t *testing.T) {
	l1 := func(cpus ...int) topology.Cache {
		return topology.Cache{Level: 1, Type: "Data", Bytes: 32 << 10, CPUs: cpus}
	}
	got := describe(&topology.Host{
		Nodes: []topology.Node{{ID: 0, CPUs: []int{0, 1, 2}, Pools: []topology.Pool{{PageBytes: 2 << 20, Total: 2, Free: 1}},
			Devices: []topology.Device{{Address: "0000:01:00.0", Class: 0x20000, Vendor: 1, Device: 2}}}},
		CPUs: []topology.CPU{
			{ID: 0, Node: 0, Siblings: []int{0, 2}, Caches: []topology.Cache{l1(0, 2)}},
			{ID: 1, Node: 0, Core: 1, Siblings: []int{1}, Caches: []topology.Cache{l1(1)}},
			{ID: 2, Node: 0, Siblings: []int{0, 2}, Caches: []topology.Cache{l1(0, 2)}},
		},
	})
	want := &hostcall.Topology{
		Nodes: []hostcall.Node{{CPUs: []int{0, 1, 2}, Pools: []hostcall.Pool{{Page: 2 << 20, Total: 2, Free: 1}},
			Devices: []hostcall.Device{{Address: "0000:01:00.0", Class: 0x20000, Vendor: 1, Device: 2}}}},
		Cores:  []hostcall.Core{{CPUs: []int{0, 2}}, {Core: 1, CPUs: []int{1}}},
		Caches: []hostcall.Cache{{Level: 1, Type: "Data", Bytes: 32 << 10, Shared: [][]int{{0, 2}, {1}}}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("describe (-want +got):\n%s", d)
	}
}

// What there is to tell of 512 CPUs and 300 devices fits a message.
func TestTopologyFits(t *testing.T) {
	const cpus = 512
	h := &topology.Host{}
	for n := range 8 {
		node := topology.Node{ID: n, Distances: make([]int, 8), MemoryBytes: 1 << 40, FreeBytes: 1 << 40, AvailableBytes: 1 << 40}
		for c := range cpus / 8 {
			node.CPUs = append(node.CPUs, n*cpus/8+c)
		}
		for range 300 / 8 {
			node.Devices = append(node.Devices, topology.Device{Address: "0000:01:00.0", Class: 0x020000, Vendor: 0x8086, Device: 0x1572})
		}
		h.Nodes = append(h.Nodes, node)
	}
	for c := range cpus {
		core := []int{c % (cpus / 2), c%(cpus/2) + cpus/2}
		h.CPUs = append(h.CPUs, topology.CPU{ID: c, Socket: c % 2, Core: c, Siblings: core, Caches: []topology.Cache{
			{Level: 1, Type: "Data", Bytes: 32 << 10, CPUs: core}, {Level: 1, Type: "Instruction", Bytes: 32 << 10, CPUs: core},
			{Level: 2, Type: "Unified", Bytes: 1 << 20, CPUs: core}}})
	}
	b, err := json.Marshal(hostcall.Message{Seq: 1 << 40, Topology: describe(h)})
	if err != nil || len(b) > seqpacket.MaxMessage {
		t.Errorf("%d bytes, %v: at most %d", len(b), err, seqpacket.MaxMessage)
	}
}

func TestTopologyOfThisMachine(t *testing.T) {
	got, err := Topology()
	if err != nil {
		t.Fatal(err)
	}
	threads := 0
	for _, c := range got.Cores {
		threads += len(c.CPUs)
	}
	if threads < runtime.NumCPU() || len(got.Nodes) == 0 || got.Nodes[0].Memory == 0 {
		t.Errorf("topology = %+v", got)
	}
}
