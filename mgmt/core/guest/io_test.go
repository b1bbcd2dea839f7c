package guest

import (
	"math"
	"testing"

	"github.com/ashlar-hv/ashlar/drivers/cgroup"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

func TestWall(t *testing.T) {
	rate := func(bps, burst, iops, burstOps uint64) diskRate {
		return rateOf(&protocol.DiskLimits{BytesPerSecond: bps, BurstBytes: burst, OperationsPerSecond: iops, BurstOperations: burstOps})
	}
	for _, tt := range []struct {
		name  string
		rates map[int]diskRate
		want  cgroup.IOMax
	}{
		{"no disks", nil, cgroup.IOMax{}},
		{"no limits", map[int]diskRate{0: rateOf(nil)}, cgroup.IOMax{}},
		{"bytes", map[int]diskRate{0: rate(10<<20, 0, 0, 0)}, cgroup.IOMax{Bytes: 11<<20 + 1<<20}},
		{"bytes with a burst", map[int]diskRate{3: rate(10<<20, 5<<20, 0, 0)}, cgroup.IOMax{Bytes: 15<<20 + 1<<20}},
		{"operations", map[int]diskRate{0: rate(0, 0, 100, 0)}, cgroup.IOMax{Operations: 8*110 + 100}},
		{"both of two", map[int]diskRate{0: rate(1<<20, 1, 10, 1), 1: rate(2<<20, 1, 20, 2)}, cgroup.IOMax{Bytes: 3<<20 + 2 + 1<<20, Operations: 8*33 + 100}},
		{"one has none", map[int]diskRate{0: rate(1<<20, 1, 10, 1), 1: rate(2<<20, 1, 0, 0)}, cgroup.IOMax{Bytes: 3<<20 + 2 + 1<<20}},
		{"one has nothing", map[int]diskRate{0: rate(1<<20, 1, 10, 1), 1: {}}, cgroup.IOMax{}},
	} {
		if got := wall(tt.rates); got != tt.want {
			t.Errorf("%s: wall = %+v, want %+v", tt.name, got, tt.want)
		}
	}
	// As much as there can be does not overflow.
	all := make(map[int]diskRate)
	const most, mostOps = protocol.MaxBytesPerSecond, protocol.MaxOperationsPerSecond
	for n := range 16 {
		all[n] = rate(most, most, mostOps, mostOps)
	}
	if w := wall(all); w.Bytes != 32*most+ownBytes || w.Operations != 32*mostOps*pieces+ownOperations || w.Operations > math.MaxUint32 {
		t.Errorf("wall of all = %+v", w)
	}
}

func TestLooser(t *testing.T) {
	for _, tt := range []struct{ a, b, want diskRate }{
		{diskRate{}, diskRate{}, diskRate{}},
		{diskRate{1, 2}, diskRate{}, diskRate{}},
		{diskRate{1, 0}, diskRate{3, 4}, diskRate{3, 0}},
		{diskRate{5, 1}, diskRate{3, 4}, diskRate{5, 4}},
	} {
		if got := tt.a.looser(tt.b); got != tt.want {
			t.Errorf("%v.looser(%v) = %v, want %v", tt.a, tt.b, got, tt.want)
		}
		if got := tt.b.looser(tt.a); got != tt.want {
			t.Errorf("%v.looser(%v) = %v, want %v", tt.b, tt.a, got, tt.want)
		}
	}
}
