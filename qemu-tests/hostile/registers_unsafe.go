package main

import "unsafe" // an access of a width of its own to mapped registers, inside a slice's bounds

// Peek and poke are calls, so that the compiler makes one access of just that width each time,
// and takes no register for memory that keeps what was written. A width is 1, 2, 4 or 8 bytes;
// every offset will do, as the processor does not mind.

//go:noinline
func peek(b []byte, at, width int) uint64 {
	p := unsafe.Pointer(&b[at : at+width][0])
	switch width {
	case 1:
		return uint64(*(*uint8)(p))
	case 2:
		return uint64(*(*uint16)(p))
	case 4:
		return uint64(*(*uint32)(p))
	}
	return *(*uint64)(p)
}

//go:noinline
func poke(b []byte, at, width int, v uint64) {
	p := unsafe.Pointer(&b[at : at+width][0])
	switch width {
	case 1:
		*(*uint8)(p) = uint8(v)
	case 2:
		*(*uint16)(p) = uint16(v)
	case 4:
		*(*uint32)(p) = uint32(v)
	default:
		*(*uint64)(p) = v
	}
}

// address is where b begins, for /proc/self/pagemap.
func address(b []byte) uintptr { return uintptr(unsafe.Pointer(&b[0])) }
