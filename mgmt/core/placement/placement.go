// Package placement decides on which CPUs and NUMA nodes of the host a guest runs. A
// decision depends on what it is given alone: the host, what guests that run hold of
// it, and what is wanted.
//
// CPUs are the host's logical CPUs by their numbers, a core is the CPUs that are its
// threads, a node is a NUMA node of the host's.
package placement

import (
	"slices"

	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// A Host is what there is to place guests on.
type Host struct {
	Nodes []Node // by ascending ID; none where the kernel knows none
	CPUs  []CPU  // that are online, by ascending ID
	// Guests are the CPUs that guests may run on, Reserved those that no guest can have for
	// itself: the control domain's. They overlap on small hosts alone (Reserve).
	Guests, Reserved []int
	// Overcommit is how many processors guests may have for each CPU that they share.
	Overcommit int
}

// A Node is a NUMA node.
type Node struct {
	ID int
	// FreeBytes is memory for guests on the pages that are wanted.
	FreeBytes int64
}

// A CPU is a thread of a core.
type CPU struct {
	ID, Node int   // Node is -1 where it is of none
	Siblings []int // the CPUs of its core, itself too
}

// A Wish is what is wanted for a guest.
type Wish struct {
	// VCPUs is how many processors it can come to have, Memory its bytes of memory.
	VCPUs  int
	Memory int64
	// NUMA are the nodes that the guest is told of.
	NUMA []protocol.NUMANode
	// Auto has the host choose a node for all of the guest, or for each of NUMA that names
	// none. Node names the one for all of it; nil for none.
	Auto bool
	Node *int
	// Pin gives each processor a CPU of its own: the host's choice, or those of CPUs in
	// the order of processors.
	Pin  bool
	CPUs []int
	// Exclusive takes the whole cores of these CPUs from all others.
	Exclusive bool
	// Near are the nodes of passed-through devices: with Auto the guest is on one of them.
	Near []int
}

// smallHost is how many cores a host has at least that keeps one of them from guests.
const smallHost = 4

// Reserve sets what of h is the control domain's: the CPUs asked for with the rest of
// their cores or, without any, the core of the first CPU. Where that leaves guests none, or
// nothing is asked for on a host of less than 4 cores, guests share them.
func (h *Host) Reserve(asked []int) {
	h.Reserved, h.Guests = nil, nil
	if len(h.CPUs) == 0 {
		return
	}
	strict := len(asked) > 0 || len(h.cores(nil)) >= smallHost
	if len(asked) == 0 {
		asked = []int{h.CPUs[0].ID}
	}
	for _, c := range h.CPUs {
		if overlap(c.Siblings, asked) {
			h.Reserved = append(h.Reserved, c.ID)
		} else {
			h.Guests = append(h.Guests, c.ID)
		}
	}
	if !strict || len(h.Guests) == 0 {
		h.Guests = h.all()
	}
}

func (h *Host) all() []int {
	var out []int
	for _, c := range h.CPUs {
		out = append(out, c.ID)
	}
	return out
}

// cpu is the one with that ID.
func (h *Host) cpu(id int) (CPU, bool) {
	i := slices.IndexFunc(h.CPUs, func(c CPU) bool { return c.ID == id })
	if i < 0 {
		return CPU{}, false
	}
	return h.CPUs[i], true
}

// cores are the cores of nodes, of all without any, each as its CPUs.
func (h *Host) cores(nodes []int) [][]int {
	var out [][]int
	for _, c := range h.CPUs {
		if len(c.Siblings) > 0 && c.Siblings[0] == c.ID && onNode(c, nodes) {
			out = append(out, c.Siblings)
		}
	}
	return out
}

func onNode(c CPU, nodes []int) bool { return len(nodes) == 0 || slices.Contains(nodes, c.Node) }

// on are those of cpus that are of nodes.
func (h *Host) on(nodes, cpus []int) []int {
	var out []int
	for _, id := range cpus {
		if c, ok := h.cpu(id); ok && onNode(c, nodes) {
			out = append(out, id)
		}
	}
	return out
}

// nodesOf are the nodes of cpus.
func (h *Host) nodesOf(cpus []int) []int {
	var out []int
	for _, id := range cpus {
		if c, ok := h.cpu(id); ok && c.Node >= 0 && !slices.Contains(out, c.Node) {
			out = append(out, c.Node)
		}
	}
	slices.Sort(out)
	return out
}

func overlap(a, b []int) bool {
	return slices.ContainsFunc(a, func(n int) bool { return slices.Contains(b, n) })
}

// without is a without what is in b.
func without(a, b []int) []int {
	return slices.DeleteFunc(slices.Clone(a), func(n int) bool { return slices.Contains(b, n) })
}

// subset is whether all of a is in b, and a is not empty.
func subset(a, b []int) bool { return len(a) > 0 && len(without(a, b)) == 0 }
