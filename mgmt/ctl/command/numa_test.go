package command

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

func TestParseNUMA(t *testing.T) {
	const mib = 1 << 20
	for in, want := range map[string][]*ashlarv1.NumaNode{
		"cpus=0-1,memory=1GiB,host=0 cpus=2+4-5,memory=512MiB,host=1+3,distances=20+10": {
			{Cpus: []int32{0, 1}, MemoryBytes: 1024 * mib, HostNodes: []int32{0}},
			{Cpus: []int32{2, 4, 5}, MemoryBytes: 512 * mib, HostNodes: []int32{1, 3}, Distances: []int32{20, 10}},
		},
		"memory=2MiB": {{MemoryBytes: 2 * mib}},
		"nodes=2":     {{Cpus: []int32{0, 1, 2}, MemoryBytes: 52 * mib}, {Cpus: []int32{3, 4}, MemoryBytes: 50 * mib}},
		"2,host=4-5": {
			{Cpus: []int32{0, 1, 2}, MemoryBytes: 52 * mib, HostNodes: []int32{4}},
			{Cpus: []int32{3, 4}, MemoryBytes: 50 * mib, HostNodes: []int32{5}},
		},
		"1":                          {{Cpus: []int32{0, 1, 2, 3, 4}, MemoryBytes: 102 * mib}},
		"":                           nil,
		"nodes=6":                    nil,
		"nodes=0":                    nil,
		"nodes=x":                    nil,
		"nodes=2,host=0":             nil,
		"nodes=2,host=x":             nil,
		"nodes=2,memory=1GiB":        nil,
		"nodes=2 memory=1GiB":        nil,
		"cpus=0":                     nil,
		"cpus=0,memory=x":            nil,
		"cpus=1-0,memory=2MiB":       nil,
		"cpus=0-,memory=2MiB":        nil,
		"cpus=0+,memory=2MiB":        nil,
		"cpus=-1,memory=2MiB":        nil,
		"host=1024,memory=2MiB":      nil,
		"memory=2MiB,distance=10+20": nil,
	} {
		got, err := ParseNUMA(strings.Split(in, " "), 5, 102*mib, 2*mib)
		if d := cmp.Diff(want, got, protocmp.Transform()); d != "" || (err == nil) != (want != nil) {
			t.Errorf("ParseNUMA(%q) = %v, %v (-want +got):\n%s", in, got, err, d)
		}
	}
	if got, err := ParseNUMA(nil, 1, 2*mib, 2*mib); got != nil || err != nil {
		t.Errorf("ParseNUMA of nothing = %v, %v", got, err)
	}
	odd, err := ParseNUMA([]string{"2"}, 2, 3<<30+2*mib, poolPages(&ashlarv1.MemoryBacking{Pages: ashlarv1.MemoryBacking_PAGES_1GIB}))
	if err != nil || odd[0].MemoryBytes != 2<<30+2*mib || odd[1].MemoryBytes != 1<<30 {
		t.Errorf("ParseNUMA on pages of 1 GiB = %v, %v", odd, err)
	}
}
