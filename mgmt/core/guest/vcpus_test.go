package guest

import (
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// What a VMM tells is taken over where it can be true of a guest of at most 4 processors.
func TestLearnVCPUs(t *testing.T) {
	for _, tt := range []struct {
		told *protocol.VCPUs
		want bool
	}{
		{&protocol.VCPUs{Present: 4, Target: 1, Refused: 3}, true},
		{&protocol.VCPUs{Present: 1, Target: 4}, true},
		{nil, false},
		{&protocol.VCPUs{}, false},
		{&protocol.VCPUs{Present: 5, Target: 4}, false},
		{&protocol.VCPUs{Present: 4, Target: 5}, false},
		{&protocol.VCPUs{Present: -1, Target: 1}, false},
		{&protocol.VCPUs{Present: 2, Target: 1, Refused: 3}, false},
		{&protocol.VCPUs{Present: 2, Target: 1, Refused: -1}, false},
	} {
		m, r := &Manager{running: map[string]*run{}}, &run{rec: record{VCPUs: 4}}
		got := m.learnVCPUs(r, &protocol.Status{State: protocol.Running, VCPUs: tt.told})
		if got != tt.want || (r.vcpus != 0) != tt.want || tt.want && r.vcpus != tt.told.Present {
			t.Errorf("learnVCPUs(%+v) = %v, %d; want %v", tt.told, got, r.vcpus, tt.want)
		}
	}
}
