package acpi

import "encoding/binary"

// AML of operation regions, locks and notifications (ACPI 6.5 section 20.2.5).

const (
	opRootChar    = '\\'
	opMultiName   = 0x2f
	opIncrement   = 0x75
	opNotify      = 0x86
	opLLess       = 0x95
	opWhile       = 0xa2
	opExtMutex    = 0x01
	opExtAcquire  = 0x23
	opExtRelease  = 0x27
	opExtRegion   = 0x80
	opExtField    = 0x81
	systemIO      = 1
	accessByte    = 1
	accessDWord   = 3
	forEver       = 0xffff
	extendedIRQ   = 0x89
	levelConsumer = 1 << 0 // level, active high, exclusive; the device uses it
)

// root is the name of an object in the namespace, from its root on (section 20.2.2).
func root(segments ...string) []byte {
	b := []byte{opRootChar, opMultiName, byte(len(segments))}
	for _, s := range segments {
		b = append(b, path(s)...)
	}
	return b
}

// call calls a method.
func call(method []byte, args ...[]byte) []byte { return cat(method, cat(args...)) }

func region(s string, port uint64, size byte) []byte {
	return cat([]byte{opExt, opExtRegion}, path(s), []byte{systemIO}, integer(port), integer(uint64(size)))
}

// A unit is a register of a region: its first byte, its size in bytes.
type unit struct {
	name     string
	at, size int
}

// field makes names for registers, all accessed as wide as access says, in the order
// of their places (section 20.2.5.2).
func field(of string, access byte, units ...unit) []byte {
	body, at := [][]byte{path(of), {access}}, 0
	for _, u := range units {
		if u.at > at {
			body = append(body, []byte{0}, fieldLength(u.at-at))
		}
		body = append(body, path(u.name), fieldLength(u.size))
		at = u.at + u.size
	}
	return sized([]byte{opExt, opExtField}, body...)
}

// fieldLength is n bytes as a field has it: in bits, encoded like a length of up to
// 63, which does not count itself.
func fieldLength(n int) []byte { return []byte{byte(8 * n)} }

func mutex(s string) []byte   { return cat([]byte{opExt, opExtMutex}, path(s), []byte{0}) }
func release(s string) []byte { return cat([]byte{opExt, opExtRelease}, path(s)) }

func acquire(s string) []byte {
	return binary.LittleEndian.AppendUint16(cat([]byte{opExt, opExtAcquire}, path(s)), forEver)
}

func notify(object string, value []byte) []byte { return cat([]byte{opNotify}, path(object), value) }
func less(a, b []byte) []byte                   { return cat([]byte{opLLess}, a, b) }
func increment(a []byte) []byte                 { return cat([]byte{opIncrement}, a) }

func while(cond []byte, terms ...[]byte) []byte {
	return sized([]byte{opWhile}, append([][]byte{cond}, terms...)...)
}

// interrupt is an extended interrupt descriptor (section 6.4.3.6) of a level triggered
// GSI.
func interrupt(gsi uint32) []byte {
	return binary.LittleEndian.AppendUint32([]byte{extendedIRQ, 6, 0, levelConsumer, 1}, gsi)
}
