package kvm

import (
	"fmt"
	"structs"
	"time"
)

// kvmGetSupportedHVCPUID is an ioctl of /dev/kvm.
var kvmGetSupportedHVCPUID = iowr[cpuidHeader](0xc1)

// ExitHyperV says that the guest set up Hyper-V's interrupt controller, or made
// a hypercall that KVM leaves to others (KVM_EXIT_HYPERV).
const ExitHyperV ExitReason = 27

// HyperVSynIC is the type of an ExitHyperV that asks for nothing
// (KVM_EXIT_HYPERV_SYNIC).
const HyperVSynIC = 1

// HyperVExit is the type that an ExitHyperV tells.
func (c *VCPU) HyperVExit() uint32 { return c.run.hyperV().typ }

// exitHyperV is the start of struct kvm_hyperv_exit, the member hyperv of the
// union in struct kvm_run.
type exitHyperV struct {
	_    structs.HostLayout
	typ  uint32
	pad1 uint32
}

// SupportedHyperVCPUID is the leaves of Hyper-V that KVM can show to guests
// (KVM_GET_SUPPORTED_HV_CPUID). They lie where SupportedCPUID has KVM's own.
func (s *System) SupportedHyperVCPUID() ([]CPUIDEntry, error) {
	for _, c := range []Capability{CapSysHyperVCPUID, CapEnforceHyperV, CapHyperVSynIC} {
		if !s.Has(c) {
			return nil, &MissingError{c}
		}
	}
	t := cpuidTable{cpuidHeader: cpuidHeader{nent: maxCPUID}}
	if err := do(s.f, kvmGetSupportedHVCPUID, &t); err != nil {
		return nil, fmt.Errorf("KVM_GET_SUPPORTED_HV_CPUID: %w", err)
	}
	if t.nent > maxCPUID {
		return nil, fmt.Errorf("KVM_GET_SUPPORTED_HV_CPUID: %d entries, at most %d expected", t.nent, maxCPUID)
	}
	return append([]CPUIDEntry(nil), t.entries[:t.nent]...), nil
}

// EnableHyperV gives the vCPU Hyper-V's interrupt controller and timers, and
// keeps the guest from all of Hyper-V that its CPUID does not show
// (KVM_CAP_HYPERV_SYNIC, KVM_CAP_HYPERV_ENFORCE_CPUID). It needs CreateIRQChip.
func (c *VCPU) EnableHyperV() error {
	for _, e := range []enableCap{
		{cap: uint32(CapHyperVSynIC)},
		{cap: uint32(CapEnforceHyperV), args: [4]uint64{1}},
	} {
		if err := enableCapability(c.f, &e); err != nil {
			return fmt.Errorf("enable %v on vCPU %d: %w", Capability(e.cap), c.id, err)
		}
	}
	return nil
}

// SetHaltPoll bounds how long the host's CPU waits for a halted vCPU to be
// woken before it sleeps (KVM_CAP_HALT_POLL); 0 is not at all, 2³²-1 ns the most.
// Without it the module parameter kvm.halt_poll_ns counts.
func (v *VM) SetHaltPoll(d time.Duration) error {
	if !v.sys.Has(CapHaltPoll) {
		return &MissingError{CapHaltPoll}
	}
	c := enableCap{cap: uint32(CapHaltPoll), args: [4]uint64{uint64(d.Nanoseconds())}}
	if err := enableCapability(v.f, &c); err != nil {
		return fmt.Errorf("enable %v of %v: %w", CapHaltPoll, d, err)
	}
	return nil
}
