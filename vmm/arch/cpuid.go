package arch

import (
	"github.com/ashlar-hv/ashlar/vmm/kvm"
	"github.com/ashlar-hv/ashlar/vmm/processor"
)

// Leaves of CPUID.
const (
	leafVendor        = 0x0
	leafFeatures      = 0x1
	leafCache         = 0x4
	leafExtended      = 0x7
	leafPMU           = 0xa
	leafTopology      = 0xb
	leafXSAVE         = 0xd
	leafTiles         = 0x1d
	leafTMUL          = 0x1e
	leafTopologyV2    = 0x1f
	leafAMDFeatures   = 0x80000001
	leafPower         = 0x80000007
	leafAddresses     = 0x80000008
	leafAMDSVM        = 0x8000000a
	leafAMDCache      = 0x8000001d
	leafAMDTopology   = 0x8000001e
	leafAMDCrypt      = 0x8000001f
	leafAMDExtended   = 0x80000021
	leafAMDPMU        = 0x80000022
	leafAMDTopologyV2 = 0x80000026
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

// A CPU says what CPUID of one vCPU shows besides the features of its model.
type CPU struct {
	Index       int // in the Topology
	Topology    processor.Topology
	TSCDeadline bool
	TSCKHz      int              // told to the guest where its TSC is invariant; 0: not known
	HyperV      []kvm.CPUIDEntry // what HyperV made, or none
	NoPVEOI     bool             // hide KVM_FEATURE_PV_EOI
}

// CPUID makes the leaves of one vCPU from those of its model. Nested
// virtualization is left out.
func CPUID(model []kvm.CPUIDEntry, c CPU) []kvm.CPUIDEntry {
	out := make([]kvm.CPUIDEntry, 0, len(model)+len(c.HyperV)+8)
	amd := isAMD(model)
	for _, e := range model {
		switch e.Function {
		case leafFeatures:
			c.features(&e, amd)
		case leafCache, leafAMDCache:
			c.cache(&e)
		case leafTopology, leafTopologyV2, leafAMDTopologyV2, leafKVM, leafKVMFeatures:
			continue // made anew below: those that KVM gives may be the host's
		case leafAMDFeatures:
			e.ECX &^= amdECXSVM
			if c.Topology.PerSocket() == 1 {
				e.ECX &^= amdECXLegacyMP
			}
		case leafAddresses:
			if e.ECX != 0 || amd {
				e.ECX = uint32(c.Topology.PerSocket()-1) | uint32(c.Topology.PackageBits())<<12
			}
		case leafAMDSVM:
			e.EAX, e.EBX, e.ECX, e.EDX = 0, 0, 0, 0
		case leafAMDTopology:
			c.amdTopology(&e)
		}
		out = append(out, e)
	}
	for _, leaf := range []uint32{leafTopology, leafTopologyV2} {
		if maxLeaf(model) >= leaf {
			out = append(out, c.topology(leaf)...)
		}
	}
	return append(append(out, c.HyperV...), c.paravirtual(model)...)
}

func (c CPU) id() uint32 { return uint32(c.Topology.APICID(c.Index)) }

// features are those of leaf 1 that are a machine's, not a model's.
func (c CPU) features(e *kvm.CPUIDEntry, amd bool) {
	// Intel counts the IDs that a socket may have, AMD its threads. Both have 8
	// bits for it and send those who need more to the topology leaves.
	n := min(1<<c.Topology.PackageBits(), 0xff)
	if amd {
		n = c.Topology.PerSocket()
	}
	e.EBX = e.EBX&0xffff | uint32(n)<<16 | c.id()<<24
	e.ECX &^= ecxVMX | ecxTSCDeadline
	e.ECX |= ecxX2APIC | ecxHypervisor
	if c.TSCDeadline {
		e.ECX |= ecxTSCDeadline
	}
	e.EDX &^= edxHTT
	if c.Topology.PerSocket() > 1 {
		e.EDX |= edxHTT
	}
}

// cache says who shares a cache: levels 1 and 2 belong to a core, what is
// above to a socket. Both are told as the number of APIC IDs less one.
func (c CPU) cache(e *kvm.CPUIDEntry) {
	if e.EAX&0x1f == 0 {
		return // no more caches
	}
	const sharing, cores, maxCores = 0xfff << 14, 0x3f << 26, 0x3f
	shared := c.Topology.ThreadBits()
	if level := e.EAX >> 5 & 7; level > 2 {
		shared = c.Topology.PackageBits()
	}
	e.EAX = e.EAX&^sharing | uint32(1<<shared-1)<<14
	if e.Function == leafCache {
		n := min(1<<processor.Width(c.Topology.Cores)-1, maxCores)
		e.EAX = e.EAX&^cores | uint32(n)<<26
	}
}

// topology is leaf 0xB or 0x1F: threads of a core, then of a socket.
func (c CPU) topology(leaf uint32) []kvm.CPUIDEntry {
	const smt, core = 1 << 8, 2 << 8
	e := func(index uint32, shift, count int, domain uint32) kvm.CPUIDEntry {
		return kvm.CPUIDEntry{Function: leaf, Index: index, Flags: kvm.CPUIDSignificantIndex,
			EAX: uint32(shift), EBX: uint32(count), ECX: domain | index, EDX: c.id()}
	}
	return []kvm.CPUIDEntry{
		e(0, c.Topology.ThreadBits(), c.Topology.Threads, smt),
		e(1, c.Topology.PackageBits(), c.Topology.PerSocket(), core),
		e(2, 0, 0, 0),
	}
}

// amdTopology is leaf 0x8000001E: the core within its socket, and the node,
// one a socket.
func (c CPU) amdTopology(e *kvm.CPUIDEntry) {
	id := c.id()
	core := id & (1<<c.Topology.PackageBits() - 1) >> c.Topology.ThreadBits()
	e.EAX = id
	e.EBX = core | uint32(c.Topology.Threads-1)<<8
	e.ECX = id >> c.Topology.PackageBits()
	e.EDX = 0
}

// lookup finds a leaf, or nil.
func lookup(entries []kvm.CPUIDEntry, function, index uint32) *kvm.CPUIDEntry {
	for i := range entries {
		if entries[i].Function == function && entries[i].Index == index {
			return &entries[i]
		}
	}
	return nil
}

func maxLeaf(entries []kvm.CPUIDEntry) uint32 {
	if e := lookup(entries, leafVendor, 0); e != nil {
		return e.EAX
	}
	return 0
}

func isAMD(entries []kvm.CPUIDEntry) bool {
	e := lookup(entries, leafVendor, 0)
	// "Auth" of AuthenticAMD, "Hygo" of HygonGenuine
	return e != nil && (e.EBX == 0x68747541 || e.EBX == 0x6f677948)
}

// InvariantTSC says whether the TSC ticks evenly and in step on all CPUs: the
// host's, in what KVM supports. Where it does not, KVM moves the guest's TSC now
// and then, so that a timer set by it (the TSC deadline) may come seconds late:
// other timers are to be used.
func InvariantTSC(entries []kvm.CPUIDEntry) bool {
	const invariant = 1 << 8
	e := lookup(entries, leafPower, 0)
	return e != nil && e.EDX&invariant != 0
}

// PhysBits is how many bits a physical address has; 36 where CPUID does not say.
func PhysBits(entries []kvm.CPUIDEntry) int {
	if e := lookup(entries, leafAddresses, 0); e != nil && e.EAX&0xff > 0 {
		return int(e.EAX & 0xff)
	}
	return 36
}
