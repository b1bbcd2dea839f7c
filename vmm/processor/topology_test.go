package processor

import (
	"errors"
	"testing"
)

func TestNewTopology(t *testing.T) {
	for _, tt := range []struct {
		vcpus     int
		ask, want Topology
		last      int // APIC ID
	}{
		{1, Topology{}, Topology{1, 1, 1}, 0},
		{128, Topology{}, Topology{1, 128, 1}, 127},
		{12, Topology{Threads: 2}, Topology{1, 6, 2}, 11},
		{12, Topology{Sockets: 2, Threads: 2}, Topology{2, 3, 2}, 8 + 5},
		{128, Topology{Sockets: 128}, Topology{128, 1, 1}, 127},
		{126, Topology{42, 3, 1}, Topology{42, 3, 1}, 41*4 + 2},
	} {
		got, err := NewTopology(tt.vcpus, tt.ask)
		if err != nil || got != tt.want || got.APICID(tt.vcpus-1) != tt.last {
			t.Errorf("NewTopology(%d, %v) = %v, %v, want %v", tt.vcpus, tt.ask, got, err, tt.want)
			continue
		}
		ids := got.APICIDs()
		for i := 1; i < len(ids); i++ {
			if ids[i] <= ids[i-1] {
				t.Errorf("%v: APIC IDs %v do not ascend", got, ids)
			}
		}
	}
	for _, tt := range []struct {
		vcpus int
		ask   Topology
	}{
		{4, Topology{Cores: 3}}, {4, Topology{Sockets: 8}}, {4, Topology{Threads: -1}}, {7, Topology{Threads: 2}},
		{4, Topology{Sockets: 1 << 40, Cores: 1 << 40}}, {125, Topology{5, 5, 5}}, {0, Topology{}}, {1, Topology{Cores: 1 << 62}},
	} {
		if got, err := NewTopology(tt.vcpus, tt.ask); !errors.Is(err, ErrTopology) {
			t.Errorf("NewTopology(%d, %v) = %v, %v, want ErrTopology", tt.vcpus, tt.ask, got, err)
		}
	}
}
