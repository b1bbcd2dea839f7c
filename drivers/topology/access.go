package topology

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// An Access is how fast a node's memory is for a node's CPUs, by the firmware's word;
// what is 0 is not known.
type Access struct {
	ReadLatency, WriteLatency     uint64 // picoseconds
	ReadBandwidth, WriteBandwidth uint64 // MB/s
}

// A Pair is the node of CPUs and the node of memory.
type Pair struct{ CPUs, Memory int }

// ErrTable says that a table of the firmware's makes no sense.
var ErrTable = errors.New("malformed ACPI table")

// ReadAccess reads how fast which memory is for which CPUs from the host's HMAT (ACPI 6.5
// section 5.2.28, revision 2), without structures for caches on the memory's side. There is
// nothing where the host has none.
func ReadAccess() (map[Pair]Access, error) { return readAccess(sysfs) }

func readAccess(root string) (map[Pair]Access, error) {
	var tables [2][]byte
	for i, name := range []string{"HMAT", "SRAT"} {
		b, err := os.ReadFile(filepath.Join(root, "firmware/acpi/tables", name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read memory attributes: %w", err)
		}
		tables[i] = b
	}
	nodes, err := nodesOf(tables[1])
	if err != nil {
		return nil, fmt.Errorf("SRAT: %w", err)
	}
	out, err := parseHMAT(tables[0], nodes)
	if err != nil {
		return nil, fmt.Errorf("HMAT: %w", err)
	}
	return out, nil
}

// headerSize is that of an ACPI table; HMAT and SRAT have reserved bytes behind it.
const headerSize = 36

// le reads numbers of tables.
var le = binary.LittleEndian

// structures calls f with each structure of a table from byte at on, whose length of
// size bytes stands at where.
func structures(table []byte, at, where, size int, f func(s []byte) error) error {
	if len(table) < at {
		return fmt.Errorf("%d bytes: %w", len(table), ErrTable)
	}
	for rest := table[at:]; len(rest) > 0; {
		if len(rest) < where+size {
			return fmt.Errorf("%d bytes behind the last structure: %w", len(rest), ErrTable)
		}
		n := uint64(rest[where])
		if size == 4 {
			n = uint64(le.Uint32(rest[where:]))
		}
		if n < uint64(where+size) || n > uint64(len(rest)) {
			return fmt.Errorf("a structure of %d bytes of %d: %w", n, len(rest), ErrTable)
		}
		if err := f(rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// nodesOf are the kernel's numbers of proximity domains: it counts them as it meets them in
// SRAT (section 5.2.16), first those of processors, then those of memory.
func nodesOf(srat []byte) (map[uint32]int, error) {
	const enabled = 1
	nodes := make(map[uint32]int)
	meet := func(domain, flags uint32) {
		if _, known := nodes[domain]; !known && flags&enabled != 0 {
			nodes[domain] = len(nodes)
		}
	}
	for _, memory := range []bool{false, true} {
		err := structures(srat, headerSize+12, 1, 1, func(s []byte) error {
			switch kind := s[0]; {
			case kind == 0 && !memory && len(s) == 16:
				meet(uint32(s[2])|uint32(s[9])<<8|uint32(s[10])<<16|uint32(s[11])<<24, le.Uint32(s[4:]))
			case kind == 2 && !memory && len(s) == 24:
				meet(le.Uint32(s[4:]), le.Uint32(s[12:]))
			case kind == 1 && memory && len(s) == 40:
				meet(le.Uint32(s[2:]), le.Uint32(s[28:]))
			case kind <= 2 && len(s) != []int{16, 40, 24}[kind]:
				return fmt.Errorf("structure %d of %d bytes: %w", kind, len(s), ErrTable)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return nodes, nil
}

// Data types of System Locality Latency and Bandwidth Information (section 5.2.28.4).
const (
	accessLatency = iota
	readLatency
	writeLatency
	accessBandwidth
	readBandwidth
	writeBandwidth
)

// parseHMAT reads the structures of latency and bandwidth. Revision 1 has other units, and is
// taken for a table that says nothing.
func parseHMAT(table []byte, nodes map[uint32]int) (map[Pair]Access, error) {
	const revisionAt, revision, locality = 8, 2, 1
	out := make(map[Pair]Access)
	if len(table) > revisionAt && table[revisionAt] != revision {
		return out, nil
	}
	err := structures(table, headerSize+4, 4, 4, func(s []byte) error {
		if le.Uint16(s) != locality {
			return nil
		}
		return parseLocality(s, nodes, out)
	})
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(out, func(_ Pair, a Access) bool { return a == Access{} })
	return out, nil
}

func parseLocality(s []byte, nodes map[uint32]int, out map[Pair]Access) error {
	const head, most = 32, 1 << 10
	if len(s) < head {
		return fmt.Errorf("localities in %d bytes: %w", len(s), ErrTable)
	}
	initiators, targets := uint64(le.Uint32(s[12:])), uint64(le.Uint32(s[16:]))
	if initiators > most || targets > most || uint64(len(s)) != head+4*(initiators+targets)+2*initiators*targets {
		return fmt.Errorf("%d initiators and %d targets in %d bytes: %w", initiators, targets, len(s), ErrTable)
	}
	if s[8]&0xf != 0 { // of a cache
		return nil
	}
	base := le.Uint64(s[24:])
	if base > 1<<40 {
		return fmt.Errorf("base unit %d: %w", base, ErrTable)
	}
	domains := slices.Collect(func(yield func(uint32) bool) {
		for i := range initiators + targets {
			if !yield(le.Uint32(s[head+4*i:])) {
				return
			}
		}
	})
	entries := s[head+4*(initiators+targets):]
	for i := range initiators {
		for j := range targets {
			cpus, ok1 := nodes[domains[i]]
			memory, ok2 := nodes[domains[initiators+j]]
			v := uint64(le.Uint16(entries[2*(i*targets+j):]))
			if !ok1 || !ok2 || v == 0 || v == 0xffff { // not known, or out of reach
				continue
			}
			p := Pair{cpus, memory}
			a := out[p]
			a.set(s[9], v*base)
			out[p] = a
		}
	}
	return nil
}

func (a *Access) set(kind byte, v uint64) {
	switch kind {
	case accessLatency:
		a.ReadLatency, a.WriteLatency = v, v
	case readLatency:
		a.ReadLatency = v
	case writeLatency:
		a.WriteLatency = v
	case accessBandwidth:
		a.ReadBandwidth, a.WriteBandwidth = v, v
	case readBandwidth:
		a.ReadBandwidth = v
	case writeBandwidth:
		a.WriteBandwidth = v
	}
}
