package acpi

import "encoding/binary"

// An Access is how fast a node's memory is for a node's processors; 0 is not known.
type Access struct {
	ReadLatency, WriteLatency     uint64 // picoseconds
	ReadBandwidth, WriteBandwidth uint64 // MB/s
}

// hmat says how fast which memory is for which processors (section 5.2.28), as far as that is
// known; nil where nothing is.
func hmat(nodes []Node) []byte {
	le := binary.LittleEndian
	b := make([]byte, 4) // reserved
	for domain := range nodes {
		const proximity, size, initiatorValid = 0, 40, 1
		b = le.AppendUint16(b, proximity)
		b = append(b, 0, 0)
		b = le.AppendUint32(b, size)
		valid := uint16(0)
		if len(nodes[domain].CPUs) > 0 {
			valid = initiatorValid
		}
		b = le.AppendUint16(b, valid)
		b = append(b, 0, 0)
		b = le.AppendUint32(b, uint32(domain)) // of the processors that are attached to it
		b = le.AppendUint32(b, uint32(domain))
		b = append(b, make([]byte, 20)...)
	}
	known := false
	for _, of := range []struct {
		kind  byte
		value func(Access) uint64
	}{
		{1, func(a Access) uint64 { return a.ReadLatency }}, {2, func(a Access) uint64 { return a.WriteLatency }},
		{4, func(a Access) uint64 { return a.ReadBandwidth }}, {5, func(a Access) uint64 { return a.WriteBandwidth }},
	} {
		if s := locality(nodes, of.kind, of.value); s != nil {
			known = true
			b = append(b, s...)
		}
	}
	if !known {
		return nil
	}
	return table("HMAT", 2, b)
}

// locality is the structure of one kind of data (section 5.2.28.4): all nodes are initiators and
// targets. Values are multiples of a unit that makes the largest fit.
func locality(nodes []Node, kind byte, value func(Access) uint64) []byte {
	const localities, most = 1, 0xfffe
	highest := uint64(0)
	for _, n := range nodes {
		for _, a := range n.Access {
			highest = max(highest, value(a))
		}
	}
	if highest == 0 {
		return nil
	}
	unit := (highest-1)/most + 1
	le, n := binary.LittleEndian, len(nodes)
	b := le.AppendUint16(nil, localities)
	b = append(b, 0, 0)
	b = le.AppendUint32(b, uint32(32+8*n+2*n*n))
	b = append(b, 0, kind, 0, 0) // of memory; no least size of a transfer
	b = le.AppendUint32(b, uint32(n))
	b = le.AppendUint32(b, uint32(n))
	b = le.AppendUint32(b, 0)
	b = le.AppendUint64(b, unit)
	for range 2 {
		for domain := range nodes {
			b = le.AppendUint32(b, uint32(domain))
		}
	}
	for i := range nodes {
		for j := range nodes {
			v := uint64(0)
			if j < len(nodes[i].Access) {
				v = value(nodes[i].Access[j])
			}
			if v > 0 {
				v = (v-1)/unit + 1
			}
			b = le.AppendUint16(b, uint16(v))
		}
	}
	return b
}
