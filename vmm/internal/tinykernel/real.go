package tinykernel

import "encoding/binary"

// RealEntry is where in the image the code of Real is: in its setup code, which
// is loaded as one piece with what comes before.
const RealEntry = 0x268

// Real makes a bzImage of protocol 2.07, without a 32-bit or 64-bit entry, whose
// setup code jumps to code, which is of 16 bits and at most 2 KiB.
func Real(code []byte) []byte {
	const sectors = 5
	b := make([]byte, (1+sectors)*512+4096)
	le := binary.LittleEndian
	b[0x1f1] = sectors
	le.PutUint32(b[0x1f4:], 4096/16)
	le.PutUint16(b[0x1fe:], 0xaa55)
	b[0x200], b[0x201] = 0xeb, RealEntry-0x202 // jmp over the header
	copy(b[0x202:], "HdrS")
	le.PutUint16(b[0x206:], 0x207)
	b[0x211] = 1                        // loaded high
	le.PutUint32(b[0x22c:], 0x7fffffff) // highest initramfs address
	le.PutUint32(b[0x238:], 255)        // command line
	copy(b[RealEntry:], code)
	return b
}
