// Package microcodetest makes files in the formats of microcode, for tests: no processor would
// take them.
package microcodetest

import "encoding/binary"

// An ID is of a processor: EAX of CPUID leaf 1, and platform bits for Intel's.
type ID struct{ CPUID, Platforms uint32 }

// Intel is an update for processors, the first of which is in its header, the others in a
// table behind 2000 bytes of data, from byte 2048 on.
func Intel(revision uint32, processors ...ID) []byte {
	const header, data, table, entry = 48, 2000, 20, 12
	b := make([]byte, 4096)
	first := processors[0]
	for off, v := range map[int]uint32{0: 1, 4: revision, 8: 0x01022025, 12: first.CPUID, 20: 1, 24: first.Platforms, 28: data, 32: 4096} {
		put(b, off, v)
	}
	for i := range data {
		b[header+i] = byte(i * 7)
	}
	checksum := -sum(b[:header+data])
	put(b, 16, checksum)
	if len(processors) == 1 {
		return b
	}
	t := b[header+data:][:table+len(processors)*entry]
	put(t, 0, uint32(len(processors)))
	for i, p := range processors {
		e := t[table+i*entry:]
		put(e, 0, p.CPUID)
		put(e, 4, p.Platforms)
		put(e, 8, first.CPUID+first.Platforms+checksum-p.CPUID-p.Platforms)
	}
	put(t, 4, -sum(t))
	return b
}

// AMD is a container with one patch, of 512 bytes, for the processors with that equivalent ID.
func AMD(revision uint32, id uint16, cpuids ...uint32) []byte {
	const entry, patch = 16, 512
	table := make([]byte, entry*(len(cpuids)+1))
	for i, c := range cpuids {
		put(table, i*entry, c)
		binary.LittleEndian.PutUint16(table[i*entry+12:], id)
	}
	b := make([]byte, 12)
	put(b, 0, 0x00414d44)
	put(b, 8, uint32(len(table)))
	b = append(b, table...)
	section := make([]byte, 8+patch)
	put(section, 0, 1)
	put(section, 4, patch)
	put(section, 8+4, revision)
	binary.LittleEndian.PutUint16(section[8+24:], id)
	return append(b, section...)
}

func put(b []byte, off int, v uint32) { binary.LittleEndian.PutUint32(b[off:], v) }

func sum(b []byte) (sum uint32) {
	for ; len(b) >= 4; b = b[4:] {
		sum += binary.LittleEndian.Uint32(b)
	}
	return sum
}
