package protocol

import "testing"

func TestCheckNUMA(t *testing.T) {
	const gib = 1 << 30
	pool := &Backing{Pages: Pages1GiB}
	two := func(change func(n []NUMANode)) []NUMANode {
		n := []NUMANode{{VCPUs: []int{0, 1}, MemoryBytes: gib}, {VCPUs: []int{2, 3}, MemoryBytes: gib}}
		change(n)
		return n
	}
	for _, tt := range []struct {
		name    string
		nodes   []NUMANode
		threads int
		backing *Backing
		field   string // "" where all is right
	}{
		{"none", nil, 1, nil, ""},
		{"two", two(func([]NUMANode) {}), 2, pool, ""},
		{"all said", two(func(n []NUMANode) {
			n[0].HostNodes, n[0].Distances = []int{0, 1}, []int{10, 254}
			n[1].HostNodes, n[1].Distances = []int{63}, []int{11, 10}
		}), 1, nil, ""},
		{"a node without processors", two(func(n []NUMANode) { n[0].VCPUs, n[1].VCPUs = []int{3, 1, 0, 2}, nil }), 2, nil, ""},
		{"one", []NUMANode{{VCPUs: []int{0, 1, 2, 3}, MemoryBytes: 2 * gib}}, 1, nil, ""},
		{"too many", make([]NUMANode, 5), 1, nil, "numa"},
		{"no memory", two(func(n []NUMANode) { n[1].MemoryBytes = 0 }), 1, nil, "numa[1].memoryBytes"},
		{"too much", two(func(n []NUMANode) { n[1].MemoryBytes = 1 << 63 }), 1, nil, "numa[1].memoryBytes"},
		{"too little", two(func(n []NUMANode) { n[1].MemoryBytes -= 2 << 20 }), 1, nil, "numa"},
		{"no multiple", two(func(n []NUMANode) { n[0].MemoryBytes -= 4096; n[1].MemoryBytes += 4096 }), 1, nil, "numa[0].memoryBytes"},
		{"no multiple of the pool", two(func(n []NUMANode) { n[0].MemoryBytes -= 2 << 20; n[1].MemoryBytes += 2 << 20 }), 1, pool, "numa[0].memoryBytes"},
		{"processor twice", two(func(n []NUMANode) { n[1].VCPUs = []int{1, 2, 3} }), 1, nil, "numa[1].vcpus"},
		{"processor left out", two(func(n []NUMANode) { n[1].VCPUs = []int{3} }), 1, nil, "numa"},
		{"no such processor", two(func(n []NUMANode) { n[1].VCPUs = []int{2, 4} }), 1, nil, "numa[1].vcpus"},
		{"negative processor", two(func(n []NUMANode) { n[0].VCPUs = []int{0, -1} }), 1, nil, "numa[0].vcpus"},
		{"a core in two nodes", two(func(n []NUMANode) { n[0].VCPUs, n[1].VCPUs = []int{0, 2}, []int{1, 3} }), 2, nil, "numa[1].vcpus"},
		{"host node", two(func(n []NUMANode) { n[1].HostNodes = []int{1024} }), 1, nil, "numa[1].hostNodes"},
		{"negative host node", two(func(n []NUMANode) { n[1].HostNodes = []int{-1} }), 1, nil, "numa[1].hostNodes"},
		{"host node twice", two(func(n []NUMANode) { n[1].HostNodes = []int{0, 1, 0} }), 1, nil, "numa[1].hostNodes"},
		{"distances", two(func(n []NUMANode) { n[1].Distances = []int{10} }), 1, nil, "numa[1].distances"},
		{"far from itself", two(func(n []NUMANode) { n[1].Distances = []int{20, 11} }), 1, nil, "numa[1].distances"},
		{"too near", two(func(n []NUMANode) { n[1].Distances = []int{10, 10} }), 1, nil, "numa[1].distances"},
		{"out of reach", two(func(n []NUMANode) { n[1].Distances = []int{255, 10} }), 1, nil, "numa[1].distances"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := CheckNUMA(tt.nodes, 4, tt.threads, 2*gib, tt.backing)
			if (err == nil) != (tt.field == "") || err != nil && (err.Field != tt.field || err.Code != InvalidArgument) {
				t.Errorf("CheckNUMA = %+v, want a refusal of %q", err, tt.field)
			}
		})
	}
}

func TestForNodes(t *testing.T) {
	bound := []NUMANode{{MemoryBytes: 1, HostNodes: []int{0}}}
	for _, tt := range []struct {
		backing *Backing
		nodes   []NUMANode
		want    bool
	}{
		{nil, bound, false},
		{&Backing{Pages: TransparentPages}, bound, false},
		{&Backing{Pages: Pages2MiB}, []NUMANode{{MemoryBytes: 1}}, false},
		{&Backing{Pages: Pages2MiB}, bound, true},
	} {
		if got := tt.backing.ForNodes(tt.nodes).Populated(); got != tt.want {
			t.Errorf("%+v.ForNodes(%+v) is populated: %v", tt.backing, tt.nodes, got)
		}
	}
}
