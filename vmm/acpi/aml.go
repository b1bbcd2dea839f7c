package acpi

import (
	"encoding/binary"
	"math/bits"
)

// AML, the byte code of tables (ACPI 6.5 section 20). Every function returns
// the encoding of one term; terms are put together by giving them to another.
// Those that all others call are not inlined: tables are made once, and the
// program would be 70 KiB larger.

// Opcodes (section 20.3).
const (
	opName          = 0x08
	opBytePrefix    = 0x0a
	opWordPrefix    = 0x0b
	opDWordPrefix   = 0x0c
	opStringPrefix  = 0x0d
	opQWordPrefix   = 0x0e
	opScope         = 0x10
	opBuffer        = 0x11
	opPackage       = 0x12
	opMethod        = 0x14
	opLocal0        = 0x60
	opArg0          = 0x68
	opStore         = 0x70
	opAnd           = 0x7b
	opOr            = 0x7d
	opCreateDWord   = 0x8a
	opLNot          = 0x92
	opLEqual        = 0x93
	opIf            = 0xa0
	opElse          = 0xa1
	opReturn        = 0xa4
	opExt           = 0x5b
	opExtDevice     = 0x82
	endTag          = 0x79
	wordAddress     = 0x88
	dwordAddress    = 0x87
	qwordAddress    = 0x8a
	ioPort          = 0x47
	irqNoFlags      = 0x22
	memory32Fixed   = 0x86
	serializedFlag  = 1 << 3
	maxMethodArgs   = 7
	largestOneByte  = 0x3f
	bitsOfLeadBytes = 4
)

// pkgLength encodes n bytes that follow, and its own length (section 20.2.4).
func pkgLength(n int) []byte {
	if n+1 <= largestOneByte {
		return []byte{byte(n + 1)}
	}
	extra := 1
	for n+1+extra >= 1<<(bitsOfLeadBytes+8*extra) {
		extra++
	}
	n += 1 + extra
	b := []byte{byte(extra)<<6 | byte(n&0xf)}
	for n >>= bitsOfLeadBytes; extra > 0; extra-- {
		b = append(b, byte(n))
		n >>= 8
	}
	return b
}

//go:noinline
func cat(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// sized is op, the length of body, and body.
func sized(op []byte, body ...[]byte) []byte {
	b := cat(body...)
	return cat(op, pkgLength(len(b)), b)
}

// path encodes a name of one segment of up to four characters, with the root
// before it where it starts with a backslash (section 20.2.2).
//
//go:noinline
func path(s string) []byte {
	var b []byte
	if s != "" && s[0] == '\\' {
		b, s = append(b, '\\'), s[1:]
	}
	b = append(b, s...)
	for n := len(s); n < 4; n++ {
		b = append(b, '_')
	}
	return b
}

//go:noinline
func integer(v uint64) []byte {
	switch n := bits.Len64(v); {
	case v <= 1:
		return []byte{byte(v)}
	case n <= 8:
		return []byte{opBytePrefix, byte(v)}
	case n <= 16:
		return binary.LittleEndian.AppendUint16([]byte{opWordPrefix}, uint16(v))
	case n <= 32:
		return binary.LittleEndian.AppendUint32([]byte{opDWordPrefix}, uint32(v))
	default:
		return binary.LittleEndian.AppendUint64([]byte{opQWordPrefix}, v)
	}
}

func text(s string) []byte { return cat([]byte{opStringPrefix}, []byte(s), []byte{0}) }

// eisaID packs an identifier such as PNP0A08 (section 19.3.4).
func eisaID(s string) []byte {
	hex := func(c byte) uint32 {
		if c >= 'A' {
			return uint32(c-'A') + 10
		}
		return uint32(c - '0')
	}
	v := uint32(s[0]-'@')<<26 | uint32(s[1]-'@')<<21 | uint32(s[2]-'@')<<16 |
		hex(s[3])<<12 | hex(s[4])<<8 | hex(s[5])<<4 | hex(s[6])
	return binary.BigEndian.AppendUint32([]byte{opDWordPrefix}, v)
}

func name(s string, value []byte) []byte { return cat([]byte{opName}, path(s), value) }

func scope(s string, terms ...[]byte) []byte {
	return sized([]byte{opScope}, append([][]byte{path(s)}, terms...)...)
}

func device(s string, terms ...[]byte) []byte {
	return sized([]byte{opExt, opExtDevice}, append([][]byte{path(s)}, terms...)...)
}

func method(s string, args int, terms ...[]byte) []byte {
	flags := byte(min(args, maxMethodArgs)) | serializedFlag
	return sized([]byte{opMethod}, append([][]byte{path(s), {flags}}, terms...)...)
}

func pack(elements ...[]byte) []byte {
	return sized([]byte{opPackage}, append([][]byte{{byte(len(elements))}}, elements...)...)
}

func buffer(b []byte) []byte { return sized([]byte{opBuffer}, integer(uint64(len(b))), b) }

func arg(n int) []byte   { return []byte{byte(opArg0 + n)} }
func local(n int) []byte { return []byte{byte(opLocal0 + n)} }

func store(value, to []byte) []byte { return cat([]byte{opStore}, value, to) }
func and(a, b, to []byte) []byte    { return cat([]byte{opAnd}, a, b, to) }
func or(a, b, to []byte) []byte     { return cat([]byte{opOr}, a, b, to) }
func equal(a, b []byte) []byte      { return cat([]byte{opLEqual}, a, b) }
func not(a []byte) []byte           { return cat([]byte{opLNot}, a) }
func result(v []byte) []byte        { return cat([]byte{opReturn}, v) }

func createDWord(of []byte, at uint64, as string) []byte {
	return cat([]byte{opCreateDWord}, of, integer(at), path(as))
}

func when(cond []byte, terms ...[]byte) []byte {
	return sized([]byte{opIf}, append([][]byte{cond}, terms...)...)
}

func otherwise(terms ...[]byte) []byte { return sized([]byte{opElse}, terms...) }

// resources is a resource template (section 6.4) of the descriptors given.
func resources(d ...[]byte) []byte {
	return buffer(append(cat(d...), endTag, 0)) // checksum 0: not used
}

// Address space descriptors: minimum and maximum fixed, nothing translated.
const (
	spaceMemory, spaceBus = 0, 2
	fixedMinMax           = 0xc
	readWrite             = 1
)

func busNumbers(first, last uint16) []byte {
	b := []byte{wordAddress, 13, 0, spaceBus, fixedMinMax, 0}
	for _, v := range []uint16{0, first, last, 0, last - first + 1} {
		b = binary.LittleEndian.AppendUint16(b, v)
	}
	return b
}

func memoryWindow32(base, size uint32) []byte {
	b := []byte{dwordAddress, 23, 0, spaceMemory, fixedMinMax, readWrite}
	for _, v := range []uint32{0, base, base + size - 1, 0, size} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

func memoryWindow64(base, size uint64) []byte {
	b := []byte{qwordAddress, 43, 0, spaceMemory, fixedMinMax, readWrite}
	for _, v := range []uint64{0, base, base + size - 1, 0, size} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

func fixedMemory(base, size uint32) []byte {
	b := []byte{memory32Fixed, 9, 0, readWrite}
	b = binary.LittleEndian.AppendUint32(b, base)
	return binary.LittleEndian.AppendUint32(b, size)
}

func ports(base uint16, n byte) []byte {
	b := []byte{ioPort, 1} // 16-bit decode
	b = binary.LittleEndian.AppendUint16(b, base)
	b = binary.LittleEndian.AppendUint16(b, base)
	return append(b, 1, n)
}

func irq(n int) []byte {
	return binary.LittleEndian.AppendUint16([]byte{irqNoFlags}, 1<<n)
}
