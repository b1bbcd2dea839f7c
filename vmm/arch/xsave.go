package arch

import "github.com/ashlar-hv/ashlar/vmm/kvm"

// State components of XSAVE (Intel SDM volume 1 section 13.1).
const (
	xstateX87    = 1 << 0
	xstateSSE    = 1 << 1
	xstateAVX    = 1 << 2
	xstateMPX    = 3 << 3
	xstateAVX512 = 7 << 5
	xstatePKRU   = 1 << 9
	xstateTiles  = 3 << 17 // of AMX

	xsaveLegacy = 576 // bytes of the legacy region and the header
)

// Bits of the features that need state of their own.
const (
	xsaveBit    = 1 << 26 // leafFeatures ECX
	fmaBit      = 1 << 12
	avxBit      = 1 << 28
	f16cBit     = 1 << 29
	avx2Bit     = 1 << 5 // leafExtended EBX
	mpxBit      = 1 << 14
	avx512FBit  = 1 << 16
	avx512EBX   = avx512FBit | 1<<17 | 1<<21 | 1<<26 | 1<<27 | 1<<28 | 1<<30 | 1<<31
	pkuBit      = 1 << 3 // leafExtended ECX
	avx512ECX   = 1<<1 | 1<<6 | 1<<11 | 1<<12 | 1<<14
	vexECX      = 1<<9 | 1<<10          // VAES, VPCLMULQDQ
	tilesEDX    = 1<<22 | 1<<24 | 1<<25 // AMX
	avx512EDX   = 1<<2 | 1<<3 | 1<<8 | 1<<23
	vexEAX1     = 1<<4 | 1<<23 // leafExtended.1 EAX: AVX-VNNI, AVX-IFMA
	avx512EAX1  = 1 << 5
	tilesEAX1   = 1 << 21
	vexEDX1     = 1<<4 | 1<<5 | 1<<10 // leafExtended.1 EDX
	tilesEDX1   = 1 << 8
	avx10EDX1   = 1 << 19
	xfdBit      = 1 << 4 // leafXSAVE.1 EAX
	fma4XOPBits = 1<<11 | 1<<16
)

// consistent makes features and the state that XSAVE keeps for them agree: a
// feature whose state KVM does not keep is not shown (AMX needs the leave of the
// kernel, which nobody asks for here), and neither is a state that no feature
// has. It changes entries.
func consistent(entries []kvm.CPUIDEntry) []kvm.CPUIDEntry {
	var kept uint64
	if e := lookup(entries, leafXSAVE, 0); e != nil && word(entries, leafFeatures, 0, ecx)&xsaveBit != 0 {
		kept = uint64(e.EDX)<<32 | uint64(e.EAX)
	}
	if kept&xstateAVX == 0 {
		dropAVX(entries)
	}
	if kept&xstateAVX512 != xstateAVX512 || word(entries, leafExtended, 0, ebx)&avx512FBit == 0 {
		dropAVX512(entries)
	}
	if kept&xstateTiles != xstateTiles {
		dropTiles(entries)
	}
	if kept&xstatePKRU == 0 {
		drop(entries, leafExtended, 0, ecx, pkuBit)
	}
	return sizeXSAVE(entries, kept&wanted(entries))
}

// wanted are the components that the features of entries use.
func wanted(entries []kvm.CPUIDEntry) uint64 {
	states := uint64(xstateX87 | xstateSSE)
	for _, f := range []struct {
		function  uint32
		register  int
		bit       uint32
		component uint64
	}{
		{leafFeatures, ecx, avxBit, xstateAVX},
		{leafExtended, ebx, mpxBit, xstateMPX},
		{leafExtended, ebx, avx512FBit, xstateAVX512},
		{leafExtended, ecx, pkuBit, xstatePKRU},
		{leafExtended, edx, 1 << 24, xstateTiles},
	} {
		if word(entries, f.function, 0, f.register)&f.bit != 0 {
			states |= f.component
		}
	}
	return states
}

func dropAVX(entries []kvm.CPUIDEntry) {
	drop(entries, leafFeatures, 0, ecx, fmaBit|avxBit|f16cBit)
	drop(entries, leafExtended, 0, ebx, avx2Bit|avx512FBit)
	drop(entries, leafExtended, 0, ecx, vexECX)
	drop(entries, leafExtended, 1, eax, vexEAX1)
	drop(entries, leafExtended, 1, edx, vexEDX1)
	drop(entries, leafAMDFeatures, 0, ecx, fma4XOPBits)
}

func dropAVX512(entries []kvm.CPUIDEntry) {
	drop(entries, leafExtended, 0, ebx, avx512EBX)
	drop(entries, leafExtended, 0, ecx, avx512ECX)
	drop(entries, leafExtended, 0, edx, avx512EDX)
	drop(entries, leafExtended, 1, eax, avx512EAX1)
	drop(entries, leafExtended, 1, edx, avx10EDX1)
}

func dropTiles(entries []kvm.CPUIDEntry) {
	drop(entries, leafExtended, 0, edx, tilesEDX)
	drop(entries, leafExtended, 1, eax, tilesEAX1)
	drop(entries, leafExtended, 1, edx, tilesEDX1)
	drop(entries, leafXSAVE, 1, eax, xfdBit)
	for i := range entries {
		if e := &entries[i]; e.Function == leafTiles || e.Function == leafTMUL {
			e.EAX, e.EBX, e.ECX, e.EDX = 0, 0, 0, 0
		}
	}
}

// word is one register of a leaf, 0 where there is no such leaf.
func word(entries []kvm.CPUIDEntry, function, index uint32, register int) uint32 {
	return featureWord{function: function, index: index, register: register}.of(entries)
}

func drop(entries []kvm.CPUIDEntry, function, index uint32, register int, bits uint32) {
	if e := lookup(entries, function, index); e != nil {
		*registers(e)[register] &^= bits
	}
}

// sizeXSAVE makes leaf 0xD that of the components in xcr0 (Intel SDM volume 1
// section 13.2). Sizes of what is enabled at the moment are KVM's to follow.
func sizeXSAVE(entries []kvm.CPUIDEntry, xcr0 uint64) []kvm.CPUIDEntry {
	size := uint32(xsaveLegacy)
	var supervisor uint64
	if e := lookup(entries, leafXSAVE, 1); e != nil {
		supervisor = uint64(e.EDX)<<32 | uint64(e.ECX)
	}
	out := entries[:0]
	for _, e := range entries {
		if e.Function == leafXSAVE && e.Index > 1 {
			switch component := uint64(1) << e.Index; {
			case xcr0&component != 0:
				size = max(size, e.EAX+e.EBX)
			case supervisor&component == 0:
				continue
			}
		}
		out = append(out, e)
	}
	if e := lookup(out, leafXSAVE, 0); e != nil {
		e.EAX, e.EDX = uint32(xcr0), uint32(xcr0>>32)
		e.EBX, e.ECX = xsaveLegacy, size
		if xcr0 == 0 {
			e.EBX, e.ECX = 0, 0
		}
	}
	return out
}
