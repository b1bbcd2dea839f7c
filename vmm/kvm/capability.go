package kvm

import "fmt"

// A Capability is a number for KVM_CHECK_EXTENSION.
type Capability uint32

// Capabilities that this package asks for.
const (
	CapIRQChip          Capability = 0
	CapUserMemory       Capability = 3
	CapSetTSSAddr       Capability = 4
	CapExtCPUID         Capability = 7
	CapNrVCPUs          Capability = 9
	CapNrMemslots       Capability = 10
	CapMPState          Capability = 14
	CapIRQRouting       Capability = 25
	CapIRQFD            Capability = 32
	CapPIT2             Capability = 33
	CapIOEventFD        Capability = 36
	CapSetIdentityMap   Capability = 37
	CapAdjustClock      Capability = 39
	CapVCPUEvents       Capability = 41
	CapMaxVCPUs         Capability = 66
	CapTSCDeadlineTimer Capability = 72
	CapKVMClockCtrl     Capability = 76
	CapSignalMSI        Capability = 77
	CapSplitIRQChip     Capability = 121
	CapIOEventFDAnyLen  Capability = 122
	CapHyperVSynIC      Capability = 123
	CapX2APICAPI        Capability = 129
	CapImmediateExit    Capability = 136
	CapHaltPoll         Capability = 182
	CapSysHyperVCPUID   Capability = 191
	CapEnforceHyperV    Capability = 199
	CapBinaryStatsFD    Capability = 203
)

var capabilityNames = map[Capability]string{
	CapIRQChip: "KVM_CAP_IRQCHIP", CapUserMemory: "KVM_CAP_USER_MEMORY", CapSetTSSAddr: "KVM_CAP_SET_TSS_ADDR",
	CapExtCPUID: "KVM_CAP_EXT_CPUID", CapNrVCPUs: "KVM_CAP_NR_VCPUS", CapNrMemslots: "KVM_CAP_NR_MEMSLOTS",
	CapMPState: "KVM_CAP_MP_STATE", CapIRQRouting: "KVM_CAP_IRQ_ROUTING", CapIRQFD: "KVM_CAP_IRQFD",
	CapPIT2: "KVM_CAP_PIT2", CapIOEventFD: "KVM_CAP_IOEVENTFD", CapSetIdentityMap: "KVM_CAP_SET_IDENTITY_MAP_ADDR",
	CapAdjustClock: "KVM_CAP_ADJUST_CLOCK", CapVCPUEvents: "KVM_CAP_VCPU_EVENTS", CapMaxVCPUs: "KVM_CAP_MAX_VCPUS",
	CapTSCDeadlineTimer: "KVM_CAP_TSC_DEADLINE_TIMER", CapKVMClockCtrl: "KVM_CAP_KVMCLOCK_CTRL",
	CapSignalMSI: "KVM_CAP_SIGNAL_MSI", CapSplitIRQChip: "KVM_CAP_SPLIT_IRQCHIP",
	CapIOEventFDAnyLen: "KVM_CAP_IOEVENTFD_ANY_LENGTH", CapX2APICAPI: "KVM_CAP_X2APIC_API",
	CapImmediateExit: "KVM_CAP_IMMEDIATE_EXIT", CapBinaryStatsFD: "KVM_CAP_BINARY_STATS_FD",
	CapHaltPoll: "KVM_CAP_HALT_POLL", CapSysHyperVCPUID: "KVM_CAP_SYS_HYPERV_CPUID",
	CapEnforceHyperV: "KVM_CAP_HYPERV_ENFORCE_CPUID", CapHyperVSynIC: "KVM_CAP_HYPERV_SYNIC",
}

// String is the kernel's name of the capability.
func (c Capability) String() string {
	if s, ok := capabilityNames[c]; ok {
		return s
	}
	return fmt.Sprintf("KVM capability %d", uint32(c))
}

// required are the capabilities without which no machine here can run.
var required = []Capability{
	CapIRQChip, CapUserMemory, CapSetTSSAddr, CapExtCPUID, CapMPState, CapIRQRouting, CapIRQFD,
	CapIOEventFD, CapSetIdentityMap, CapVCPUEvents, CapImmediateExit,
}

// A MissingError says that this kernel's KVM lacks a capability.
type MissingError struct {
	Capability Capability
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("this kernel's KVM lacks %v: run Linux 5.16 or newer with CONFIG_KVM", e.Capability)
}
