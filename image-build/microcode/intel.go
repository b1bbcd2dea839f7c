package microcode

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Intel's format (SDM volume 3A, section 11.11.1).
const (
	intelHeader     = 48
	intelExtHeader  = 20 // count, checksum, reserved
	intelExtEntry   = 12 // signature, platforms, checksum
	intelUnit       = 1024
	intelOldData    = 2000 // where the header says 0
	intelOldTotal   = 2048
	maxIntelUpdate  = 16 << 20
	maxExtSignature = 256
)

// ParseIntel takes a file of Intel's apart, which holds updates one behind the other.
func ParseIntel(b []byte) ([]Update, error) {
	var list []Update
	for off := 0; off < len(b); {
		u, err := intelUpdate(b[off:])
		if err != nil {
			return nil, fmt.Errorf("microcode of Intel's, update %d, at byte %d: %w", len(list), off, err)
		}
		list = append(list, u)
		off += len(u.Data)
	}
	if len(list) == 0 {
		return nil, errors.New("microcode of Intel's: there is nothing")
	}
	return list, nil
}

// intelUpdate reads the update that b begins with.
func intelUpdate(b []byte) (Update, error) {
	if len(b) < intelHeader {
		return Update{}, fmt.Errorf("%d bytes, want a header of %d", len(b), intelHeader)
	}
	word := func(off int) uint32 { return binary.LittleEndian.Uint32(b[off:]) }
	if version, loader := word(0), word(20); version != 1 || loader != 1 {
		return Update{}, fmt.Errorf("header version %d, loader revision %d, want 1 and 1", version, loader)
	}
	data, total := uint64(word(28)), uint64(word(32))
	if data == 0 {
		data, total = intelOldData, intelOldTotal
	}
	switch {
	case total < data+intelHeader || total%intelUnit != 0 || data%4 != 0 || total > maxIntelUpdate:
		return Update{}, fmt.Errorf("%d bytes with %d of data, want a multiple of %d with room for both", total, data, intelUnit)
	case total > uint64(len(b)):
		return Update{}, fmt.Errorf("it is cut off: %d bytes of %d", len(b), total)
	}
	b = b[:total]
	first := Signature{word(12), word(24)}
	if first.CPUID == 0 {
		return Update{}, errors.New("it is for no processor")
	}
	if sum32(b[:data+intelHeader]) != 0 {
		return Update{}, fmt.Errorf("for %s: the checksum is wrong", first)
	}
	more, err := intelExtended(b[data+intelHeader:], first, word(16))
	if err != nil {
		return Update{}, fmt.Errorf("for %s: %w", first, err)
	}
	return Update{Vendor: Intel, Signatures: append([]Signature{first}, more...), Revision: word(4), Data: b}, nil
}

// intelExtended reads the table of further processors behind the data; what is there may
// also be nothing but zeros. checksum is the header's.
func intelExtended(b []byte, first Signature, checksum uint32) ([]Signature, error) {
	if len(b) < intelExtHeader {
		return nil, nil
	}
	n := uint64(binary.LittleEndian.Uint32(b))
	if n == 0 {
		return nil, nil
	}
	if n > maxExtSignature || intelExtHeader+n*intelExtEntry > uint64(len(b)) {
		return nil, fmt.Errorf("a table of %d processors in %d bytes", n, len(b))
	}
	b = b[:intelExtHeader+n*intelExtEntry]
	if sum32(b) != 0 {
		return nil, errors.New("the checksum of its table of processors is wrong")
	}
	want := first.CPUID + first.Platforms + checksum
	var list []Signature
	for e := b[intelExtHeader:]; len(e) > 0; e = e[intelExtEntry:] {
		s := Signature{binary.LittleEndian.Uint32(e), binary.LittleEndian.Uint32(e[4:])}
		if s.CPUID+s.Platforms+binary.LittleEndian.Uint32(e[8:]) != want {
			return nil, fmt.Errorf("the checksum of its processor %s is wrong", s)
		}
		if s != first {
			list = append(list, s)
		}
	}
	return list, nil
}

// sum32 adds the words of b, whose length is a multiple of 4.
func sum32(b []byte) (sum uint32) {
	for ; len(b) >= 4; b = b[4:] {
		sum += binary.LittleEndian.Uint32(b)
	}
	return sum
}
