package protocol

import (
	"fmt"
	"slices"
)

// A NUMANode is one of the nodes that a guest's processors and memory are told to be
// of: memory that is near to these processors.
type NUMANode struct {
	// VCPUs are numbers of vCPUs, from 0 on: each that there may come to be is in just one node.
	VCPUs []int `json:"vcpus,omitempty"`
	// MemoryBytes is how much of the memory is the node's: nodes have it in their order,
	// by ascending addresses. A multiple of 2 MiB, and of the pages of the host's pool
	// where it is made of those.
	MemoryBytes uint64 `json:"memoryBytes"`
	// HostNodes are the nodes of the host that the memory is taken from, and no other;
	// without any it is taken from where the host likes.
	HostNodes []int `json:"hostNodes,omitempty"`
	// Distances are those to every node, in their order, as SLIT has them: 10 to itself,
	// 11 to 254 to others. Without any they are 10 and RemoteDistance.
	Distances []int `json:"distances,omitempty"`
}

const (
	// MaxNUMANodes bounds Spec.NUMA.
	MaxNUMANodes = 16
	// LocalDistance is that of a node to itself, RemoteDistance to others where nothing
	// else is said, MaxDistance the largest (ACPI 6.5 section 5.2.17; 255 is unreachable).
	LocalDistance  = 10
	RemoteDistance = 20
	MaxDistance    = 254
	// MaxHostNode is the highest number that a node of the host can have: the kernel
	// has at most 1024 of them (CONFIG_NODES_SHIFT).
	MaxHostNode = 1023
	// MaxHostCPU is the highest number of a CPU of the host (cpu_set_t has 1024).
	MaxHostCPU = 1023
)

// CheckNUMA says what is wrong with nodes for a guest that can come to have so many vCPUs,
// threads of them to a core, and memory. Without nodes nothing is. Fields begin with `numa`.
func CheckNUMA(nodes []NUMANode, vcpus, threads int, memoryBytes uint64, b *Backing) *Error {
	if len(nodes) == 0 {
		return nil
	}
	if limit := min(MaxNUMANodes, vcpus); len(nodes) > limit {
		return wrongNode("numa", "%d nodes: at most %d, and no more than processors: %d", len(nodes), MaxNUMANodes, limit)
	}
	unit := max(b.Kind().PoolSize(), 2<<20)
	left := memoryBytes
	for i, n := range nodes {
		field := fmt.Sprintf("numa[%d]", i)
		if err := n.check(field, unit, len(nodes), i); err != nil {
			return err
		}
		if n.MemoryBytes > left {
			return wrongNode(field+".memoryBytes", "the nodes up to this one have more than the %d bytes of the guest", memoryBytes)
		}
		left -= n.MemoryBytes
	}
	if left > 0 {
		return wrongNode("numa", "the nodes have %d of the %d bytes of memory: share out all of it", memoryBytes-left, memoryBytes)
	}
	return checkShares(nodes, vcpus, threads)
}

func wrongNode(field, format string, args ...any) *Error {
	return &Error{Code: InvalidArgument, Field: field, Message: fmt.Sprintf(format, args...)}
}

// check checks what node i of count says by itself.
func (n *NUMANode) check(field string, unit uint64, count, i int) *Error {
	if n.MemoryBytes == 0 || n.MemoryBytes%unit != 0 {
		return wrongNode(field+".memoryBytes", "%d bytes: a multiple of %d, and not 0", n.MemoryBytes, unit)
	}
	for j, h := range n.HostNodes {
		switch {
		case h < 0 || h > MaxHostNode:
			return wrongNode(field+".hostNodes", "there is no node %d: 0 to %d", h, MaxHostNode)
		case slices.Contains(n.HostNodes[:j], h):
			return wrongNode(field+".hostNodes", "node %d stands there twice", h)
		}
	}
	if len(n.Distances) != 0 && len(n.Distances) != count {
		return wrongNode(field+".distances", "%d of them: one to each of the %d nodes, or none", len(n.Distances), count)
	}
	for j, d := range n.Distances {
		switch {
		case j == i && d != LocalDistance:
			return wrongNode(field+".distances", "%d to itself: that is %d", d, LocalDistance)
		case j != i && (d <= LocalDistance || d > MaxDistance):
			return wrongNode(field+".distances", "%d to node %d: %d to %d", d, j, LocalDistance+1, MaxDistance)
		}
	}
	return nil
}

// checkShares checks that each vCPU is in one node, and threads of a core in the same.
func checkShares(nodes []NUMANode, vcpus, threads int) *Error {
	of := make([]int, vcpus) // the node of each vCPU, from 1 on
	for i, n := range nodes {
		for _, v := range n.VCPUs {
			field := fmt.Sprintf("numa[%d].vcpus", i)
			switch {
			case v < 0 || v >= vcpus:
				return wrongNode(field, "there is no processor %d: 0 to %d", v, vcpus-1)
			case of[v] != 0:
				return wrongNode(field, "processor %d is in node %d already", v, of[v]-1)
			}
			of[v] = i + 1
		}
	}
	for v, n := range of {
		if n == 0 {
			return wrongNode("numa", "processor %d is in no node: each is in one", v)
		}
		if core := v - v%max(threads, 1); of[core] != n {
			return wrongNode(fmt.Sprintf("numa[%d].vcpus", n-1), "processor %d is a thread of a core whose thread %d is in node %d: a core is in one node", v, core, of[core]-1)
		}
	}
	return nil
}

// Distance is that from node i of nodes to node j.
func Distance(nodes []NUMANode, i, j int) int {
	switch {
	case len(nodes[i].Distances) > 0:
		return nodes[i].Distances[j]
	case i == j:
		return LocalDistance
	}
	return RemoteDistance
}

// Bound says whether memory of one of nodes is to be of certain nodes of the host.
func Bound(nodes []NUMANode) bool {
	return slices.ContainsFunc(nodes, func(n NUMANode) bool { return len(n.HostNodes) > 0 })
}

// ForNodes is b, with Populate where nodes need it. The pages of a pool are promised to
// a guest wherever they are: those of a certain node are only its own when they
// have been allocated.
func (b *Backing) ForNodes(nodes []NUMANode) *Backing {
	if b.Kind().PoolSize() == 0 || !Bound(nodes) {
		return b
	}
	out := *b
	out.Populate = true
	return &out
}

// An Affinity is vCPUs, by their numbers, and the CPUs of the host that these run on.
type Affinity struct {
	VCPUs []int `json:"vcpus"`
	CPUs  []int `json:"cpus"`
}
