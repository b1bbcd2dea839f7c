package kvm

import (
	"testing"
	"unsafe" // for sizes and offsets alone
)

// The numbers and sizes are those of linux/kvm.h on x86-64.
func TestABI(t *testing.T) {
	for _, tt := range []struct {
		name      string
		got, want uintptr
	}{
		{"KVM_CREATE_VM", kvmCreateVM, 0xae01},
		{"KVM_GET_SUPPORTED_CPUID", kvmGetSupportedCPUID, 0xc008ae05},
		{"KVM_SET_USER_MEMORY_REGION", kvmSetUserMemoryRegion, 0x4020ae46},
		{"KVM_SET_IDENTITY_MAP_ADDR", kvmSetIdentityMapAddr, 0x4008ae48},
		{"KVM_GET_DIRTY_LOG", kvmGetDirtyLog, 0x4010ae42},
		{"KVM_IRQ_LINE", kvmIRQLine, 0x4008ae61},
		{"KVM_GET_IRQCHIP", kvmGetIRQChip, 0xc208ae62},
		{"KVM_SET_IRQCHIP", kvmSetIRQChip, 0x8208ae63},
		{"KVM_SET_GSI_ROUTING", kvmSetGSIRouting, 0x4008ae6a},
		{"KVM_IRQFD", kvmIRQFD, 0x4020ae76},
		{"KVM_CREATE_PIT2", kvmCreatePIT2, 0x4040ae77},
		{"KVM_IOEVENTFD", kvmIOEventFD, 0x4040ae79},
		{"KVM_SET_CLOCK", kvmSetClock, 0x4030ae7b},
		{"KVM_GET_CLOCK", kvmGetClock, 0x8030ae7c},
		{"KVM_ENABLE_CAP", kvmEnableCap, 0x4068aea3},
		{"KVM_SIGNAL_MSI", kvmSignalMSI, 0x4020aea5},
		{"KVM_RUN", kvmRun, 0xae80},
		{"KVM_GET_REGS", kvmGetRegs, 0x8090ae81},
		{"KVM_SET_REGS", kvmSetRegs, 0x4090ae82},
		{"KVM_GET_SREGS", kvmGetSregs, 0x8138ae83},
		{"KVM_SET_SREGS", kvmSetSregs, 0x4138ae84},
		{"KVM_GET_MSRS", kvmGetMSRs, 0xc008ae88},
		{"KVM_SET_MSRS", kvmSetMSRs, 0x4008ae89},
		{"KVM_GET_FPU", kvmGetFPU, 0x81a0ae8c},
		{"KVM_GET_LAPIC", kvmGetLAPIC, 0x8400ae8e},
		{"KVM_NMI", kvmNMI, 0xae9a},
		{"KVM_SET_CPUID2", kvmSetCPUID2, 0x4008ae90},
		{"KVM_GET_MP_STATE", kvmGetMPState, 0x8004ae98},
		{"KVM_GET_VCPU_EVENTS", kvmGetVCPUEvents, 0x8040ae9f},
		{"KVM_GET_STATS_FD", kvmGetStatsFD, 0xaece},
		{"KVM_CREATE_DEVICE", kvmCreateDevice, 0xc00caee0},
		{"KVM_SET_DEVICE_ATTR", kvmSetDeviceAttr, 0x4018aee1},
		{"struct kvm_cpuid_entry2", unsafe.Sizeof(CPUIDEntry{}), 40},
		{"struct kvm_cpuid2.entries", unsafe.Offsetof(cpuidTable{}.entries), 8},
		{"struct kvm_irq_routing_entry", unsafe.Sizeof(routingEntry{}), 48},
		{"struct kvm_irq_routing.entries", unsafe.Offsetof(routingTable{}.entries), 8},
		{"struct kvm_msr_entry", unsafe.Sizeof(MSR{}), 16},
		{"struct kvm_msrs.entries", unsafe.Offsetof(msrTable{}.entries), 8},
		{"struct kvm_segment", unsafe.Sizeof(Segment{}), 24},
		{"struct kvm_sregs.gdt", unsafe.Offsetof(Sregs{}.GDT), 192},
		{"struct kvm_sregs.cr0", unsafe.Offsetof(Sregs{}.CR0), 224},
		{"struct kvm_sregs.efer", unsafe.Offsetof(Sregs{}.EFER), 264},
		{"struct kvm_regs.rip", unsafe.Offsetof(Regs{}.RIP), 128},
		{"struct kvm_vcpu_events.flags", unsafe.Offsetof(VCPUEvents{}.Flags), 20},
		{"struct kvm_vcpu_events.exception_payload", unsafe.Offsetof(VCPUEvents{}.ExceptionPayload), 56},
		{"struct kvm_run.immediate_exit", unsafe.Offsetof(runPage{}.immediateExit), 1},
		{"struct kvm_run.exit_reason", unsafe.Offsetof(runPage{}.exitReason), 8},
		{"struct kvm_run.apic_base", unsafe.Offsetof(runPage{}.apicBase), 24},
		{"struct kvm_run.io", unsafe.Offsetof(runPage{}.exit), 32},
		{"struct kvm_run.io.data_offset", unsafe.Offsetof(exitIO{}.dataOffset), 8},
		{"struct kvm_run.mmio.len", unsafe.Offsetof(exitMMIO{}.len), 16},
		{"struct kvm_run.mmio.is_write", unsafe.Offsetof(exitMMIO{}.isWrite), 20},
		{"struct kvm_run.internal.data", unsafe.Offsetof(exitInternal{}.data), 8},
	} {
		if tt.got != tt.want {
			t.Errorf("%s = %#x, want %#x", tt.name, tt.got, tt.want)
		}
	}
}
