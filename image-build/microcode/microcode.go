// Package microcode puts updates of processors' microcode into an image: it checks what
// the makers have published, chooses what servers need, and makes the archive that the kernel
// looks into before anything else runs (Documentation/arch/x86/microcode.rst).
//
// A processor checks the signature of what it is given: nothing here has to be trusted for
// that. What is checked is that nothing is damaged or cut off.
package microcode

import "fmt"

// A Vendor is who makes a processor, as the kernel names it (vendor_id of /proc/cpuinfo).
type Vendor string

// Makers of processors.
const (
	Intel Vendor = "GenuineIntel"
	AMD   Vendor = "AuthenticAMD"
)

// A Signature tells a kind of processor.
type Signature struct {
	// CPUID is EAX of CPUID leaf 1: family, model and stepping.
	CPUID uint32
	// Platforms has a bit for each platform ID that is meant (Intel only).
	Platforms uint32
}

func (s Signature) String() string {
	if s.Platforms == 0 {
		return fmt.Sprintf("%08x", s.CPUID)
	}
	return fmt.Sprintf("%08x/%02x", s.CPUID, s.Platforms)
}

// SignatureOf is the CPUID of a processor by family, model and stepping, which the kernel
// tells in decimal numbers. ok is whether there are such numbers.
func SignatureOf(family, model, stepping int) (cpuid uint32, ok bool) {
	if family < 0 || family > 15+255 || model < 0 || model > 255 || stepping < 0 || stepping > 15 {
		return 0, false
	}
	base, extended := min(family, 15), max(family-15, 0)
	return uint32(extended<<20 | model>>4<<16 | base<<8 | model&15<<4 | stepping), true
}

// An Update is microcode for some processors.
type Update struct {
	Vendor     Vendor
	Signatures []Signature
	// Revision is what a processor tells that runs it.
	Revision uint32
	// Data is all of it, in the maker's format.
	Data []byte
}

// MaxSize is the largest sum of all updates in an image, in bytes.
const MaxSize = 4 << 20
