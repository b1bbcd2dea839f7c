package arch

import "github.com/ashlar-hv/ashlar/vmm/kvm"

// Leaves of Hyper-V (Hypervisor Top Level Functional Specification 6.0b, section 2.4).
const (
	leafHyperV       = 0x40000000
	leafHyperVFace   = 0x40000001 // interface signature
	leafHyperVSystem = 0x40000002 // version
	leafHyperVAccess = 0x40000003 // features
	leafHyperVAdvice = 0x40000004 // recommendations
	leafHyperVLimits = 0x40000005
)

// Bits of leafHyperVAccess: EAX, privileges to use registers; EDX, features.
const (
	hvVPRuntime        = 1 << 0
	hvTimeRefCount     = 1 << 1
	hvSynIC            = 1 << 2
	hvSyntheticTimers  = 1 << 3
	hvAPICAccess       = 1 << 4
	hvHypercall        = 1 << 5
	hvVPIndex          = 1 << 6
	hvReferenceTSC     = 1 << 9
	hvFrequencies      = 1 << 11
	hvEDXXMMInput      = 1 << 4
	hvEDXFrequencies   = 1 << 8
	hvEDXFlushRanges   = 1 << 14
	hvEDXDirectTimers  = 1 << 19
	hyperVAccessEAX    = hvVPRuntime | hvTimeRefCount | hvSynIC | hvSyntheticTimers | hvAPICAccess | hvHypercall | hvVPIndex | hvReferenceTSC | hvFrequencies
	hyperVAccessEDX    = hvEDXXMMInput | hvEDXFrequencies | hvEDXFlushRanges | hvEDXDirectTimers
	hyperVSpinAttempts = 0xfff // before a waiting vCPU tells the hypervisor
)

// Bits of leafHyperVAdvice.
const (
	hvRemoteTLBFlush    = 1 << 2
	hvAPICMSRs          = 1 << 3
	hvRelaxedTiming     = 1 << 5
	hvDeprecateAutoEOI  = 1 << 9 // so that the CPU itself can deliver interrupts
	hvClusterIPI        = 1 << 10
	hvProcessorMasks    = 1 << 11
	hvNoCoreSharing     = 1 << 18
	hyperVAdvice        = hvRemoteTLBFlush | hvAPICMSRs | hvRelaxedTiming | hvDeprecateAutoEOI | hvClusterIPI | hvProcessorMasks | hvNoCoreSharing
	hyperVMaxProcessors = 128
)

// HyperV makes Hyper-V's leaves, which Windows looks for, from those that KVM
// supports: what makes clocks, timers, interrupts and TLB flushes cheap. Left
// out is what would need the VMM: messages and events between partitions,
// reset and crash registers (there is ACPI for that), debugging, nesting.
func HyperV(supported []kvm.CPUIDEntry) []kvm.CPUIDEntry {
	var out []kvm.CPUIDEntry
	for _, e := range supported {
		switch e.Function {
		case leafHyperV:
			e.EAX = leafHyperVLimits
			e.EBX, e.ECX, e.EDX = 0x7263694d, 0x666f736f, 0x76482074 // "Microsoft Hv"
		case leafHyperVFace, leafHyperVSystem:
		case leafHyperVAccess:
			e.EAX, e.EBX, e.ECX, e.EDX = e.EAX&hyperVAccessEAX, 0, 0, e.EDX&hyperVAccessEDX
		case leafHyperVAdvice:
			e.EAX, e.EBX = e.EAX&hyperVAdvice, hyperVSpinAttempts
		case leafHyperVLimits:
			e.EAX = hyperVMaxProcessors
		default:
			continue
		}
		out = append(out, e)
	}
	return out
}
