// Package smbios makes the tables by which a guest knows its maker and its
// UUID, after the DMTF's System Management BIOS Reference Specification 3.2
// (DSP0134): the 64-bit entry point, types 0, 1 and 127.
package smbios

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/ashlar-hv/ashlar/vmm/memory"
)

// A System is what the tables tell of.
type System struct {
	// UUID in the form of RFC 9562, or "" for none.
	UUID string
	// SerialNumber of up to 64 printable ASCII characters, or "" for none.
	SerialNumber string
}

const (
	entrySize = 24
	typeBIOS  = 0
	typeSys   = 1
	typeEnd   = 127
)

// structure is a header with its handle, the formatted part, and strings
// (section 6.1).
func structure(typ byte, handle uint16, body []byte, strs ...string) []byte {
	b := []byte{typ, byte(4 + len(body)), 0, 0}
	binary.LittleEndian.PutUint16(b[2:], handle)
	b = append(b, body...)
	for _, s := range strs {
		b = append(append(b, s...), 0)
	}
	if len(strs) == 0 {
		b = append(b, 0)
	}
	return append(b, 0)
}

// bios is type 0 (section 7.1).
func bios() []byte {
	const virtualMachine = 1 << 4 // in the second extension byte
	b := make([]byte, 0x1a-4)
	b[0], b[1] = 1, 2                          // vendor, version
	b[4] = 3                                   // release date
	binary.LittleEndian.PutUint64(b[6:], 1<<3) // characteristics are not told
	b[15] = virtualMachine
	b[16], b[17], b[18], b[19] = 0, 1, 0xff, 0xff
	return structure(typeBIOS, 0, b, "Ashlar", "1", "01/01/2026")
}

// system is type 1 (section 7.2).
func system(uuid [16]byte, serial string) []byte {
	const powerSwitch = 6
	b := make([]byte, 0x1b-4)
	b[0], b[1] = 1, 2 // manufacturer, product
	copy(b[4:], uuid[:])
	b[20] = powerSwitch
	b[22] = 2 // family
	strs := []string{"Ashlar", "Ashlar Virtual Machine"}
	if serial != "" {
		strs = append(strs, serial)
		b[3] = byte(len(strs))
	}
	return structure(typeSys, 1, b, strs...)
}

// parseUUID reads a UUID and turns it to the byte order of the tables: the
// first three fields are little-endian (section 7.2.1).
func parseUUID(s string) (u [16]byte, err error) {
	if s == "" {
		return u, nil
	}
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != 16 || len(s) != 36 {
		return u, fmt.Errorf("UUID %q: want the form 12345678-1234-1234-1234-123456789abc", s)
	}
	copy(u[:], b)
	u[0], u[1], u[2], u[3] = b[3], b[2], b[1], b[0]
	u[4], u[5], u[6], u[7] = b[5], b[4], b[7], b[6]
	return u, nil
}

// Tables returns the entry point and what follows it, for address base.
func Tables(s System, base uint64) ([]byte, error) {
	uuid, err := parseUUID(s.UUID)
	if err != nil {
		return nil, err
	}
	body := append(append(bios(), system(uuid, s.SerialNumber)...), structure(typeEnd, 2, nil)...)
	const at = 32 // of the structures, after the entry point
	b := make([]byte, at, at+len(body))
	copy(b, "_SM3_")
	b[6], b[7], b[8], b[10] = entrySize, 3, 2, 1
	binary.LittleEndian.PutUint32(b[12:], uint32(len(body)))
	binary.LittleEndian.PutUint64(b[16:], base+at)
	var sum byte
	for _, v := range b[:entrySize] {
		sum += v
	}
	b[5] = -sum
	return append(b, body...), nil
}

// Write puts the tables into mem at base, a multiple of 16 between 0xF0000 and
// 0xFFFFF, where systems look for them.
func Write(mem *memory.Memory, s System, base uint64) error {
	b, err := Tables(s, base)
	if err != nil {
		return err
	}
	if err := mem.WriteAt(base, b); err != nil {
		return fmt.Errorf("write SMBIOS tables: %w", err)
	}
	return nil
}
