package arch

import "github.com/ashlar-hv/ashlar/vmm/kvm"

// Leaves of KVM's own (Documentation/virt/kvm/x86/cpuid.rst), where there are
// none of Hyper-V's. Guests look for them at every multiple of 0x100.
const (
	leafKVM         = 0x40000000
	leafKVMFeatures = 0x40000001
	leafKVMTiming   = 0x40000010
	kvmAfterHyperV  = 0x100
)

// Bits of leafKVMFeatures, KVM_FEATURE_*.
const (
	kvmClockSource       = 1 << 0
	kvmNopIODelay        = 1 << 1
	kvmClockSource2      = 1 << 3
	kvmAsyncPF           = 1 << 4
	kvmStealTime         = 1 << 5
	kvmPVEOI             = 1 << 6
	kvmPVUnhalt          = 1 << 7 // a waiting vCPU halts, and is kicked
	kvmPVTLBFlush        = 1 << 9
	kvmAsyncPFVMExit     = 1 << 10
	kvmPVSendIPI         = 1 << 11
	kvmPollControl       = 1 << 12 // the guest may say that it polls itself
	kvmPVSchedYield      = 1 << 13
	kvmAsyncPFInt        = 1 << 14
	kvmClockSourceStable = 1 << 24

	// kvmFeatures are those that need nothing of the VMM. Asynchronous page faults
	// are among them: they let a guest go on while the host brings a page back.
	kvmFeatures = kvmClockSource | kvmNopIODelay | kvmClockSource2 | kvmAsyncPF | kvmStealTime | kvmPVEOI |
		kvmPVUnhalt | kvmPVTLBFlush | kvmAsyncPFVMExit | kvmPVSendIPI | kvmPollControl | kvmPVSchedYield |
		kvmAsyncPFInt | kvmClockSourceStable
)

// apicKHz is how fast the timers of KVM's local APICs tick.
const apicKHz = 1000000

// paravirtual is what KVM offers beyond a CPU: its signature, its features, and
// how fast TSC and APIC timer tick, for guests that do not take that from
// kvmclock. The latter only where the TSC's speed is for ever.
func (c CPU) paravirtual(model []kvm.CPUIDEntry) []kvm.CPUIDEntry {
	signature, features := lookup(model, leafKVM, 0), lookup(model, leafKVMFeatures, 0)
	if signature == nil || features == nil {
		return nil
	}
	var base uint32
	if len(c.HyperV) > 0 {
		base = kvmAfterHyperV
	}
	s, f := *signature, *features
	s.Function, s.EAX = leafKVM+base, leafKVMFeatures+base
	f.Function, f.EAX = leafKVMFeatures+base, f.EAX&kvmFeatures
	if c.NoPVEOI {
		f.EAX &^= kvmPVEOI
	}
	if c.TSCKHz == 0 || !InvariantTSC(model) {
		return []kvm.CPUIDEntry{s, f}
	}
	s.EAX = leafKVMTiming + base
	return []kvm.CPUIDEntry{s, f, {Function: leafKVMTiming + base, EAX: uint32(c.TSCKHz), EBX: apicKHz}}
}
