package arch

import (
	"math/bits"

	"github.com/ashlar-hv/ashlar/vmm/kvm"
)

// Leaves of CPUID.
const (
	leafVendor      = 0x0
	leafFeatures    = 0x1
	leafCache       = 0x4
	leafTopology    = 0xb
	leafTopologyV2  = 0x1f
	leafAMDFeatures = 0x80000001
	leafPower       = 0x80000007
	leafAddresses   = 0x80000008
	leafAMDSVM      = 0x8000000a
	leafAMDCache    = 0x8000001d
	leafAMDTopology = 0x8000001e
)

// Feature bits of leafFeatures and leafAMDFeatures.
const (
	ecxVMX         = 1 << 5
	ecxX2APIC      = 1 << 21
	ecxTSCDeadline = 1 << 24
	ecxHypervisor  = 1 << 31
	edxHTT         = 1 << 28
	amdECXLegacyMP = 1 << 1 // CmpLegacy
	amdECXSVM      = 1 << 2
)

// A CPU says what CPUID of one vCPU shows besides what KVM supports.
type CPU struct {
	ID, Count   int // APIC ID, and number of vCPUs: one socket of so many cores
	TSCDeadline bool
}

// CPUID makes the leaves of one vCPU from those that KVM supports. Nested
// virtualization is left out.
func CPUID(supported []kvm.CPUIDEntry, c CPU) []kvm.CPUIDEntry {
	out := make([]kvm.CPUIDEntry, 0, len(supported)+4)
	topology := false
	for _, e := range supported {
		switch e.Function {
		case leafFeatures:
			c.features(&e)
		case leafCache, leafAMDCache:
			c.cache(&e)
		case leafTopology, leafTopologyV2:
			// Made anew below: KVM gives the host's.
			topology = true
			continue
		case leafAMDFeatures:
			e.ECX &^= amdECXSVM
			if c.Count > 1 && e.ECX&amdECXLegacyMP != 0 {
				break
			}
			e.ECX &^= amdECXLegacyMP
		case leafAddresses:
			if e.ECX != 0 || isAMD(supported) {
				e.ECX = uint32(c.Count-1) | uint32(c.idBits())<<12
			}
		case leafAMDSVM:
			e.EAX, e.EBX, e.ECX, e.EDX = 0, 0, 0, 0
		case leafAMDTopology:
			e.EAX = uint32(c.ID)
			e.EBX = uint32(c.ID) // core number, one thread each
			e.ECX = 0            // one node, number 0
		}
		out = append(out, e)
	}
	if topology || maxLeaf(supported) >= leafTopology {
		out = append(out, c.topology(leafTopology)...)
	}
	if maxLeaf(supported) >= leafTopologyV2 {
		out = append(out, c.topology(leafTopologyV2)...)
	}
	return out
}

// idBits is how many bits of an APIC ID number the cores.
func (c CPU) idBits() int { return bits.Len(uint(c.Count - 1)) }

func (c CPU) features(e *kvm.CPUIDEntry) {
	e.EBX = e.EBX&0xffff | uint32(1<<c.idBits())<<16 | uint32(c.ID)<<24
	e.ECX &^= ecxVMX
	e.ECX &^= ecxTSCDeadline
	e.ECX |= ecxX2APIC | ecxHypervisor
	if c.TSCDeadline {
		e.ECX |= ecxTSCDeadline
	}
	e.EDX &^= edxHTT
	if c.Count > 1 {
		e.EDX |= edxHTT
	}
}

// cache says who shares a cache: levels 1 and 2 belong to a core, what is
// above to all.
func (c CPU) cache(e *kvm.CPUIDEntry) {
	if e.EAX&0x1f == 0 {
		return // no more caches
	}
	const sharing = 0xfff << 14
	e.EAX &^= sharing
	if level := e.EAX >> 5 & 7; level > 2 {
		e.EAX |= uint32(1<<c.idBits()-1) << 14
	}
	if e.Function == leafCache {
		const cores = 0x3f << 26
		e.EAX = e.EAX&^cores | uint32(1<<c.idBits()-1)<<26
	}
}

// topology is leaf 0xB or 0x1F: one thread a core, then all cores.
func (c CPU) topology(leaf uint32) []kvm.CPUIDEntry {
	const smt, core = 1 << 8, 2 << 8
	e := func(index, eax, ebx, ecx uint32) kvm.CPUIDEntry {
		return kvm.CPUIDEntry{Function: leaf, Index: index, Flags: kvm.CPUIDSignificantIndex,
			EAX: eax, EBX: ebx, ECX: ecx | index, EDX: uint32(c.ID)}
	}
	return []kvm.CPUIDEntry{
		e(0, 0, 1, smt),
		e(1, uint32(c.idBits()), uint32(c.Count), core),
		e(2, 0, 0, 0),
	}
}

func maxLeaf(entries []kvm.CPUIDEntry) uint32 {
	for _, e := range entries {
		if e.Function == leafVendor {
			return e.EAX
		}
	}
	return 0
}

func isAMD(entries []kvm.CPUIDEntry) bool {
	for _, e := range entries {
		if e.Function == leafVendor {
			// "Auth" of AuthenticAMD, "Hygo" of HygonGenuine
			return e.EBX == 0x68747541 || e.EBX == 0x6f677948
		}
	}
	return false
}

// InvariantTSC says whether the host's TSC ticks evenly and in step on all
// CPUs. Where it does not, KVM moves the guest's TSC now and then, so that a
// timer set by it (the TSC deadline) may come seconds late: other timers are
// to be used.
func InvariantTSC(entries []kvm.CPUIDEntry) bool {
	const invariant = 1 << 8
	for _, e := range entries {
		if e.Function == leafPower {
			return e.EDX&invariant != 0
		}
	}
	return false
}

// PhysBits is how many bits a physical address has; 36 where CPUID does not say.
func PhysBits(entries []kvm.CPUIDEntry) int {
	for _, e := range entries {
		if e.Function == leafAddresses {
			if n := int(e.EAX & 0xff); n > 0 {
				return n
			}
		}
	}
	return 36
}
