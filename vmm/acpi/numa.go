package acpi

import (
	"encoding/binary"
	"slices"
)

// A Node is a NUMA node: processors and the memory that is near to them.
type Node struct {
	CPUs      []uint8  // their APIC IDs, those that may come among them
	Memory    []Window // whole pages
	Pluggable Window   // where there may come to be more, if its Size is not 0
	Distances []uint8  // to each of the nodes: 10 to itself, 11 to 254 to others
	Access    []Access // to the memory of each of the nodes; none where nothing is known
}

// numa makes SRAT and SLIT of a machine with nodes, and no table for one without. There
// is an HMAT where somebody has told latencies and bandwidths: a guest takes a lack of it better
// than invented figures.
func numa(m Machine) [][]byte {
	if len(m.Nodes) == 0 {
		return nil
	}
	out := [][]byte{srat(m.Nodes), slit(m.Nodes)}
	if t := hmat(m.Nodes); t != nil {
		out = append(out, t)
	}
	return out
}

// domain is the number of the node that the processor with that APIC ID is of.
func (m Machine) domain(id uint8) (int, bool) {
	n := slices.IndexFunc(m.Nodes, func(n Node) bool { return slices.Contains(n.CPUs, id) })
	return n, n >= 0
}

// srat says which processors and memory are of which node (section 5.2.16). APIC IDs
// are below 255, so that all processors have the entry of a local APIC, and none needs
// that of an x2APIC, as in the MADT. Processors that may come have theirs, too.
func srat(nodes []Node) []byte {
	const (
		localAPIC, localAPICSize = 0, 16
		memory, memorySize       = 1, 40
		enabled, hotPluggable    = 1 << 0, 1 << 1
	)
	le := binary.LittleEndian
	b := le.AppendUint32(nil, 1) // reserved, and 1 as ever
	b = append(b, make([]byte, 8)...)
	for domain, n := range nodes {
		for _, id := range n.CPUs {
			b = append(b, localAPIC, localAPICSize, byte(domain), id)
			b = le.AppendUint32(b, enabled)
			b = append(b, 0, 0, 0, 0) // SAPIC ID, and the rest of the domain's number
			b = le.AppendUint32(b, 0) // clock domain
		}
	}
	affinity := func(domain int, w Window, flags uint32) {
		b = append(b, memory, memorySize)
		b = le.AppendUint32(b, uint32(domain))
		b = append(b, 0, 0)
		b = le.AppendUint64(b, w.Base)
		b = le.AppendUint64(b, w.Size)
		b = le.AppendUint32(b, 0)
		b = le.AppendUint32(b, flags)
		b = le.AppendUint64(b, 0)
	}
	for domain, n := range nodes {
		for _, w := range n.Memory {
			affinity(domain, w, enabled)
		}
		if n.Pluggable.Size > 0 {
			affinity(domain, n.Pluggable, enabled|hotPluggable)
		}
	}
	return table("SRAT", 3, b)
}

// slit has the distances between nodes (section 5.2.17).
func slit(nodes []Node) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(nodes)))
	for _, n := range nodes {
		b = append(b, n.Distances...)
	}
	return table("SLIT", 1, b)
}
