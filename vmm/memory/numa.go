package memory

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// maxNode is the highest number of a node that the kernel can have (CONFIG_NODES_SHIFT
// is at most 10).
const maxNode = 1023

// ErrNode says that the host has no memory on a NUMA node, or no such node.
var ErrNode = errors.New("no such NUMA node with memory")

// Span is the regions that n bytes of the file from off on are of, lowest first: one, or
// two where they reach over LowTop.
func (m *Memory) Span(off, n uint64) ([]Region, error) {
	if off > m.size || n > m.size-off {
		return nil, fmt.Errorf("span %d bytes at byte %d of the file: %w", n, off, ErrOutOfRange)
	}
	var out []Region
	for _, r := range m.regions {
		from, to := max(off, r.Offset), min(off+n, r.Offset+r.Size)
		if from < to {
			skip := from - r.Offset
			out = append(out, Region{GPA: r.GPA + skip, Size: to - from, Offset: from, HostAddr: r.HostAddr + uintptr(skip)})
		}
	}
	return out, nil
}

// Bind has n bytes of the file from off on, whole pages, be of memory of these nodes of
// the host and no other: MPOL_BIND of mbind(2). The rule is the file's, whoever touches
// a page of it first (kernel's Documentation/admin-guide/mm/numa_memory_policy.rst,
// shared policies); pages that are there already stay where they are. Where the nodes
// have none left, whoever touches a page is killed: Populate is how to find out before.
func (m *Memory) Bind(off, n uint64, nodes []int) error {
	if off%m.pageSize != 0 || n%m.pageSize != 0 || n == 0 || off > m.size || n > m.size-off {
		return fmt.Errorf("bind %d bytes at byte %d of the file to NUMA nodes %v: %w", n, off, nodes, ErrOutOfRange)
	}
	if err := m.setPolicy(off, n, mpolBind, nodes); err != nil {
		return err
	}
	m.bounds = append(m.bounds, off)
	return nil
}

// PreferPluggable has the memory that can be plugged in be of memory of these nodes of the
// host as long as they have some, and of others then: MPOL_PREFERRED_MANY (Linux 5.15). As
// with Bind, the rule is the file's.
func (m *Memory) PreferPluggable(nodes []int) error {
	p := m.pluggable
	if p == nil {
		return fmt.Errorf("prefer NUMA nodes %v for memory that is plugged in: there is none: %w", nodes, ErrOutOfRange)
	}
	return m.setPolicy(p.off, p.Size, mpolPreferredMany, nodes)
}

// setPolicy sets where n bytes of the file from off on come from, which are in the mapping.
func (m *Memory) setPolicy(off, n uint64, mode uintptr, nodes []int) error {
	var mask nodeMask
	for _, node := range nodes {
		if node < 0 || node > maxNode {
			return fmt.Errorf("bind memory to NUMA node %d: %w", node, ErrNode)
		}
		mask[node/64] |= 1 << (node % 64)
	}
	err := m.mbind(off, n, mode, &mask)
	switch {
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("bind memory to NUMA nodes %v: %w", nodes, ErrNode)
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("bind memory to NUMA nodes %v: the kernel knows none (CONFIG_NUMA): %w", nodes, ErrNode)
	case err != nil:
		return fmt.Errorf("bind memory to NUMA nodes %v: %w", nodes, err)
	}
	return nil
}
