package arch

import (
	"errors"
	"fmt"
	"math/bits"
)

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
func (t Topology) Count() int { return t.Sockets * t.perSocket() }

func (t Topology) perSocket() int { return t.Cores * t.Threads }

// width is how many bits number n things.
func width(n int) int { return bits.Len(uint(n - 1)) }

// threadBits is where the core's number in an APIC ID begins, packageBits the
// socket's.
func (t Topology) threadBits() int  { return width(t.Threads) }
func (t Topology) packageBits() int { return width(t.Cores) + width(t.Threads) }

// APICID is the APIC ID of vCPU i, counted from 0, threads of a core first.
func (t Topology) APICID(i int) int {
	thread, core, socket := i%t.Threads, i/t.Threads%t.Cores, i/t.perSocket()
	return socket<<t.packageBits() | core<<t.threadBits() | thread
}

// APICIDs are those of all vCPUs, ascending.
func (t Topology) APICIDs() []uint8 {
	ids := make([]uint8, t.Count())
	for i := range ids {
		ids[i] = uint8(t.APICID(i))
	}
	return ids
}
