package microcode

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// AMD's container, as the kernel reads it (arch/x86/kernel/cpu/microcode/amd.c): a mark, a
// table that gives each processor an equivalent ID, and patches for these.
const (
	amdMagic       = 0x00414d44
	amdTable       = 0
	amdPatch       = 1
	amdSection     = 8 // type, size
	amdEntry       = 16
	amdPatchHeader = 64
	maxAMDSection  = 1 << 20
	// The upper four bits of an equivalent ID count families from firstFamily on. From zen on
	// the kernel goes by the revision, not by the table.
	firstFamily = 0xf
	zen         = 0x17
)

// ParseAMD takes a file of AMD's apart, which holds containers one behind the other.
func ParseAMD(b []byte) ([]Update, error) {
	var list []Update
	for rest := b; len(rest) > 0; {
		updates, n, err := amdContainer(rest)
		if err != nil {
			return nil, fmt.Errorf("microcode of AMD's, container at byte %d: %w", len(b)-len(rest), err)
		}
		list = append(list, updates...)
		rest = rest[n:]
	}
	if len(list) == 0 {
		return nil, errors.New("microcode of AMD's: there is nothing")
	}
	return list, nil
}

// amdContainer reads the container that b begins with, of n bytes.
func amdContainer(b []byte) (list []Update, n int, err error) {
	if len(b) < 4 || binary.LittleEndian.Uint32(b) != amdMagic {
		return nil, 0, fmt.Errorf("it does not begin with %#08x", amdMagic)
	}
	n = 4
	kind, table, err := amdNext(b[n:])
	if err != nil {
		return nil, 0, err
	}
	if kind != amdTable || len(table)%amdEntry != 0 {
		return nil, 0, fmt.Errorf("a section of type %d and %d bytes, want a table of entries of %d bytes", kind, len(table), amdEntry)
	}
	n += amdSection + len(table)
	equivalent := make(map[uint16][]Signature)
	for e := table; len(e) > 0; e = e[amdEntry:] {
		if cpu := binary.LittleEndian.Uint32(e); cpu != 0 {
			id := binary.LittleEndian.Uint16(e[12:])
			equivalent[id] = append(equivalent[id], Signature{CPUID: cpu})
		}
	}
	for n < len(b) {
		if len(b)-n >= 4 && binary.LittleEndian.Uint32(b[n:]) == amdMagic {
			break // the next container
		}
		kind, patch, err := amdNext(b[n:])
		if err != nil {
			return nil, 0, fmt.Errorf("patch %d: %w", len(list), err)
		}
		if kind != amdPatch || len(patch) < amdPatchHeader {
			return nil, 0, fmt.Errorf("patch %d: a section of type %d and %d bytes, want %d and at least %d", len(list), kind, len(patch), amdPatch, amdPatchHeader)
		}
		id := binary.LittleEndian.Uint16(patch[24:])
		if len(equivalent[id]) == 0 {
			return nil, 0, fmt.Errorf("patch %d: the table has no processor with the ID %#04x", len(list), id)
		}
		u := Update{Vendor: AMD, Signatures: equivalent[id], Revision: binary.LittleEndian.Uint32(patch[4:]), Data: patch}
		if firstFamily+uint32(id>>12) >= zen {
			u.Signatures = []Signature{{CPUID: cpuidOf(u.Revision)}}
		}
		list = append(list, u)
		n += amdSection + len(patch)
	}
	return list, n, nil
}

// cpuidOf is the processor that a revision is of, where that is in it: bits 0 to 7 count, the
// others are stepping, model, extended model and extended family.
func cpuidOf(revision uint32) uint32 {
	stepping, model := revision>>8&0xf, revision>>12&0xf
	extModel, extFamily := revision>>20&0xf, revision>>24
	return extFamily<<20 | extModel<<16 | firstFamily<<8 | model<<4 | stepping
}

// amdNext reads the section that b begins with.
func amdNext(b []byte) (kind uint32, content []byte, err error) {
	if len(b) < amdSection {
		return 0, nil, fmt.Errorf("%d bytes, want the type and size of a section", len(b))
	}
	kind, size := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
	if size == 0 || size > maxAMDSection || int(size) > len(b)-amdSection {
		return 0, nil, fmt.Errorf("a section of %d bytes, where there are %d", size, len(b)-amdSection)
	}
	return kind, b[amdSection:][:size], nil
}
