package placement

import (
	"slices"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// taken is what guests that run hold of a host.
type taken struct {
	exclusive []int       // CPUs that are somebody's alone
	pins      map[int]int // how many processors are pinned to a CPU
	shared    int         // processors that are nobody's alone
	onNode    map[int]int // of these, those that are of a node
	// needs are sets of CPUs of which somebody has to keep one at least.
	needs [][]int
}

func (h *Host) taken(running []*hostcall.Placed) *taken {
	t := &taken{pins: make(map[int]int), onNode: make(map[int]int)}
	for _, d := range running {
		t.exclusive = append(t.exclusive, d.Exclusive...)
		if len(d.Emulation) > 0 {
			t.needs = append(t.needs, d.Emulation)
		}
		if len(d.Exclusive) > 0 {
			continue
		}
		t.shared += d.VCPUs
		for _, a := range d.Affinity {
			if !d.Pinned {
				t.needs = append(t.needs, a.CPUs)
			} else {
				for _, c := range a.CPUs {
					t.pins[c] += len(a.VCPUs)
				}
			}
			if nodes := h.nodesOf(a.CPUs); len(nodes) == 1 {
				t.onNode[nodes[0]] += len(a.VCPUs)
			}
		}
	}
	slices.Sort(t.exclusive)
	return t
}

// sharedCPUs are those that guests share.
func (h *Host) sharedCPUs(t *taken) []int { return without(h.Guests, t.exclusive) }

// isFree is whether nobody has a core, or could not do without: it can be a guest's alone.
func (h *Host) isFree(core []int, t *taken) bool {
	return !overlap(core, h.Reserved) && subset(core, h.Guests) && !overlap(core, t.exclusive) &&
		!slices.ContainsFunc(core, func(c int) bool { return t.pins[c] > 0 })
}

// freeCores are the cores of nodes that can be a guest's alone.
func (h *Host) freeCores(nodes []int, t *taken) [][]int {
	return slices.DeleteFunc(h.cores(nodes), func(core []int) bool { return !h.isFree(core, t) })
}

// Use is who has the CPUs of h.
func (h *Host) Use(running []*hostcall.Placed) hostcall.GuestCPUs {
	t := h.taken(running)
	shared := h.sharedCPUs(t)
	return hostcall.GuestCPUs{Reserved: h.Reserved, Shared: shared, Exclusive: t.exclusive, VCPUs: t.shared, Most: len(shared) * h.Overcommit}
}
