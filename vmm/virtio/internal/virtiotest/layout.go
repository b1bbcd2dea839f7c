package virtiotest

import (
	"flag"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/virtio"
)

// Both runs the tests of a package for split queues and then for packed ones: all is
// what they accept, to which the package's tests give all features at first. A fuzz target
// chooses by itself (FuzzFeatures).
func Both(m *testing.M, all *virtio.Features) int {
	if flag.Parse(); flag.Lookup("test.fuzz").Value.String() != "" {
		return m.Run()
	}
	offered := *all
	*all = offered &^ virtio.FeatureRingPacked
	if code := m.Run(); code != 0 {
		return code
	}
	*all = offered
	return m.Run()
}

// fuzzPacked is the bit of idx, a fuzz target's argument, that asks for a packed queue.
const fuzzPacked = 1 << 14

// FuzzFeatures are all features, or all but that of packed queues, as idx has it.
func FuzzFeatures(all virtio.Features, idx uint16) virtio.Features {
	if idx&fuzzPacked == 0 {
		return all &^ virtio.FeatureRingPacked
	}
	return all | virtio.FeatureRingPacked
}
