package render

import (
	"strings"
	"testing"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

func TestNUMANodes(t *testing.T) {
	r := VirtualMachine(&ashlarv1.VirtualMachine{NumaNodes: []*ashlarv1.NumaNode{
		{Cpus: []int32{0, 1, 2, 5}, MemoryBytes: 1 << 30, HostNodes: []int32{1}, Distances: []int32{10, 21}},
		{MemoryBytes: 2 << 20, HostNodes: []int32{0, 2}},
	}})
	var got []string
	for _, l := range r.Lines {
		if strings.HasPrefix(l[0], "NUMA") {
			got = append(got, strings.Join(l, " "))
		}
	}
	want := "NUMA node 0: CPUs 0-2 5, 1GiB, on the host's node 1, distances 10 21\n" +
		"NUMA node 1: 2MiB, on the host's nodes 0 2"
	if s := strings.Join(got, "\n"); s != want {
		t.Errorf("got\n%s\nwant\n%s", s, want)
	}
}
