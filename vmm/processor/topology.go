// Package processor says what the vCPUs of a guest can be asked to be: how they
// are arranged, and which models there are. It touches nothing, so that whoever
// takes such a wish can check it.
package processor

import (
	"errors"
	"fmt"
	"math/bits"
)

// HostModel is the model that has every feature that KVM supports on a host.
const HostModel = "host"

// Models are the names of all models: HostModel, and the levels of the x86-64
// psABI (section 3.1.1), each of which is the same on all hosts of a maker.
func Models() []string {
	return []string{HostModel, "x86-64-v1", "x86-64-v2", "x86-64-v3", "x86-64-v4"}
}

// maxAPICID is the highest ID of a local APIC in xAPIC mode: 255 is all of them.
const maxAPICID = 254

// ErrTopology says that vCPUs cannot be arranged as asked.
var ErrTopology = errors.New("impossible topology")

// A Topology says how vCPUs are arranged: so many sockets of so many cores of
// so many threads each, all at least 1. An APIC ID has a field for each of the
// three, threads lowest, each as wide as its highest number needs (Intel SDM
// volume 3 section 9.9.1, AMD APM volume 3 appendix E.5).
type Topology struct {
	Sockets, Cores, Threads int
}

// NewTopology arranges vcpus vCPUs. Sockets and threads that are not given (0)
// are 1, and cores as many as that takes. Errors wrap ErrTopology.
func NewTopology(vcpus int, t Topology) (Topology, error) {
	if t.Sockets < 0 || t.Cores < 0 || t.Threads < 0 || t.Sockets > vcpus || t.Cores > vcpus || t.Threads > vcpus {
		return Topology{}, fmt.Errorf("%w: %v of %d vCPUs", ErrTopology, t, vcpus)
	}
	t.Sockets, t.Threads = max(t.Sockets, 1), max(t.Threads, 1)
	if t.Cores == 0 {
		t.Cores = max(vcpus/(t.Sockets*t.Threads), 1)
	}
	if n := t.Count(); n != vcpus {
		return Topology{}, fmt.Errorf("%w: %v are %d vCPUs, not %d", ErrTopology, t, n, vcpus)
	}
	if id := t.APICID(vcpus - 1); id > maxAPICID {
		return Topology{}, fmt.Errorf("%w: %v need APIC IDs up to %d, more than %d: take powers of two", ErrTopology, t, id, maxAPICID)
	}
	return t, nil
}

// String is the topology in words.
func (t Topology) String() string {
	return fmt.Sprintf("%d sockets of %d cores of %d threads", t.Sockets, t.Cores, t.Threads)
}

// Count is the number of vCPUs.
func (t Topology) Count() int { return t.Sockets * t.PerSocket() }

// PerSocket is the number of vCPUs of a socket.
func (t Topology) PerSocket() int { return t.Cores * t.Threads }

// Width is how many bits number n things.
func Width(n int) int { return bits.Len(uint(n - 1)) }

// ThreadBits is where the core's number in an APIC ID begins.
func (t Topology) ThreadBits() int { return Width(t.Threads) }

// PackageBits is where the socket's number in an APIC ID begins.
func (t Topology) PackageBits() int { return Width(t.Cores) + Width(t.Threads) }

// APICID is the APIC ID of vCPU i, counted from 0, threads of a core first.
func (t Topology) APICID(i int) int {
	thread, core, socket := i%t.Threads, i/t.Threads%t.Cores, i/t.PerSocket()
	return socket<<t.PackageBits() | core<<t.ThreadBits() | thread
}

// APICIDs are those of all vCPUs, ascending.
func (t Topology) APICIDs() []uint8 {
	ids := make([]uint8, t.Count())
	for i := range ids {
		ids[i] = uint8(t.APICID(i))
	}
	return ids
}
