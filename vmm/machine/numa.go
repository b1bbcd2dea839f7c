package machine

import (
	"errors"
	"fmt"

	"github.com/ashlar-hv/ashlar/vmm/acpi"
	"github.com/ashlar-hv/ashlar/vmm/memory"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// checkNUMA checks what a Spec says of nodes.
func checkNUMA(s *protocol.Spec) *protocol.Error {
	if err := checkAccess(s); err != nil {
		return err
	}
	threads := 1
	if s.CPU != nil {
		threads = s.CPU.Threads
	}
	return protocol.CheckNUMA(s.NUMA, s.Most(), threads, s.MemoryBytes, s.Backing)
}

// checkAccess checks what a Spec says of how fast memory is.
func checkAccess(s *protocol.Spec) *protocol.Error {
	n := len(s.NUMA)
	if len(s.NodeAccess) != 0 && len(s.NodeAccess) != n {
		return invalid("nodeAccess", "of %d nodes of %d", len(s.NodeAccess), n)
	}
	for i, to := range s.NodeAccess {
		if len(to) != n {
			return invalid(fmt.Sprintf("nodeAccess[%d]", i), "to %d nodes of %d", len(to), n)
		}
	}
	return nil
}

// sockets is how many of them the vCPUs of a Spec are of. Where nothing is said of it and
// all nodes have as many vCPUs, one after the other, each node is a socket: guests
// take caches for those of a socket, and do not expect them to be of two nodes.
func sockets(s *protocol.Spec, want protocol.CPU) int {
	if len(s.NUMA) == 0 || want.Sockets != 0 || want.Cores != 0 || s.Most()%len(s.NUMA) != 0 {
		return want.Sockets
	}
	each, next := s.Most()/len(s.NUMA), 0
	for _, n := range s.NUMA {
		if len(n.VCPUs) != each {
			return want.Sockets
		}
		for _, v := range n.VCPUs {
			if v != next {
				return want.Sockets
			}
			next++
		}
	}
	return len(s.NUMA)
}

// bindMemory has the memory of each node be of the host's nodes that it is to be of:
// before anybody touches it. What is plugged in later is, as long as they have some.
func (m *Machine) bindMemory() error {
	off := uint64(0)
	for _, n := range m.c.NUMA {
		if len(n.HostNodes) > 0 {
			if err := m.mem.Bind(off, n.MemoryBytes, n.HostNodes); err != nil {
				return err
			}
		}
		off += n.MemoryBytes
	}
	if last := len(m.c.NUMA) - 1; last >= 0 && m.c.Pluggable != nil && len(m.c.NUMA[last].HostNodes) > 0 {
		return m.mem.PreferPluggable(m.c.NUMA[last].HostNodes)
	}
	return nil
}

// nodes are the NUMA nodes as the tables tell of them.
func (m *Machine) nodes() ([]acpi.Node, error) {
	var out []acpi.Node
	off := uint64(0)
	for i, n := range m.c.NUMA {
		var node acpi.Node
		for _, v := range n.VCPUs {
			node.CPUs = append(node.CPUs, uint8(m.c.CPU.Topology.APICID(v)))
		}
		regions, err := m.mem.Span(off, n.MemoryBytes)
		if err != nil {
			return nil, fmt.Errorf("NUMA node %d: %w", i, err)
		}
		for _, r := range regions {
			node.Memory = append(node.Memory, acpi.Window{Base: r.GPA, Size: r.Size})
		}
		for j := range m.c.NUMA {
			node.Distances = append(node.Distances, uint8(protocol.Distance(m.c.NUMA, i, j)))
		}
		if i < len(m.c.NodeAccess) {
			for _, a := range m.c.NodeAccess[i] {
				node.Access = append(node.Access, acpi.Access(a))
			}
		}
		out = append(out, node)
		off += n.MemoryBytes
	}
	if p := m.mem.Pluggable(); p.Size > 0 && len(out) > 0 {
		out[len(out)-1].Pluggable = acpi.Window{Base: p.GPA, Size: p.Size}
	}
	return out, nil
}

// nodeError is e, which is newError's of err, with the node at fault where one is.
func nodeError(s *protocol.Spec, e *protocol.Error, err error) *protocol.Error {
	var at *memory.PopulateError
	switch {
	case errors.Is(err, memory.ErrNode):
		e.Code, e.Field = protocol.FailedPrecondition, "numa"
	case errors.As(err, &at) && e.Code == protocol.ResourceExhausted:
		end := uint64(0)
		for i, n := range s.NUMA {
			if end += n.MemoryBytes; at.Offset < end {
				if len(n.HostNodes) > 0 {
					e.Field = fmt.Sprintf("numa[%d].hostNodes", i)
					e.Message = fmt.Sprintf("the host's NUMA nodes %v have not enough memory left for %d bytes: stop another guest there, or ask for less", n.HostNodes, n.MemoryBytes)
				}
				break
			}
		}
	}
	return e
}
