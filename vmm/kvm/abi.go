package kvm

import "structs"

// cpuidHeader is struct kvm_cpuid2 without its entries.
type cpuidHeader struct {
	_       structs.HostLayout
	nent    uint32
	padding uint32
}

// CPUIDEntry is struct kvm_cpuid_entry2: one leaf, and subleaf, of CPUID.
type CPUIDEntry struct {
	_                  structs.HostLayout
	Function, Index    uint32
	Flags              uint32
	EAX, EBX, ECX, EDX uint32
	padding            [3]uint32
}

// CPUIDSignificantIndex is the flag of an entry whose Index counts
// (KVM_CPUID_FLAG_SIGNIFCANT_INDEX).
const CPUIDSignificantIndex = 1 << 0

// maxCPUID is KVM_MAX_CPUID_ENTRIES.
const maxCPUID = 256

// cpuidTable is struct kvm_cpuid2 with room for all entries.
type cpuidTable struct {
	_ structs.HostLayout
	cpuidHeader
	entries [maxCPUID]CPUIDEntry
}

// userMemoryRegion is struct kvm_userspace_memory_region.
type userMemoryRegion struct {
	_             structs.HostLayout
	slot          uint32
	flags         uint32
	guestPhysAddr uint64
	memorySize    uint64
	userspaceAddr uint64
}

// Flags of a memory region.
const (
	LogDirtyPages = 1 << 0 // KVM_MEM_LOG_DIRTY_PAGES
	ReadOnly      = 1 << 1 // KVM_MEM_READONLY
)

// dirtyLog is struct kvm_dirty_log.
type dirtyLog struct {
	_        structs.HostLayout
	slot     uint32
	padding  uint32
	dirtyMap uint64 // user address
}

// irqLevel is struct kvm_irq_level.
type irqLevel struct {
	_     structs.HostLayout
	irq   uint32
	level uint32
}

// IRQChip is struct kvm_irqchip: the state of one in-kernel interrupt controller.
type IRQChip struct {
	_    structs.HostLayout
	ID   uint32 // IRQChipPICMaster, IRQChipPICSlave, IRQChipIOAPIC
	pad  uint32
	Chip [512]byte
}

// In-kernel interrupt controllers.
const (
	IRQChipPICMaster = 0
	IRQChipPICSlave  = 1
	IRQChipIOAPIC    = 2
)

// irqRoutingHeader is struct kvm_irq_routing without its entries.
type irqRoutingHeader struct {
	_     structs.HostLayout
	nr    uint32
	flags uint32
}

// routingEntry is struct kvm_irq_routing_entry; u holds struct
// kvm_irq_routing_irqchip (chip, pin) or struct kvm_irq_routing_msi
// (address low, address high, data, device id).
type routingEntry struct {
	_       structs.HostLayout
	gsi     uint32
	typ     uint32
	flags   uint32
	padding uint32
	u       [8]uint32
}

// Types of a routingEntry.
const (
	routingIRQChip = 1 // KVM_IRQ_ROUTING_IRQCHIP
	routingMSI     = 2 // KVM_IRQ_ROUTING_MSI
)

// MaxRoutes is the most entries SetRoutes takes (KVM_MAX_IRQ_ROUTES).
const MaxRoutes = 4096

// routingTable is struct kvm_irq_routing with room for MaxRoutes entries.
type routingTable struct {
	_ structs.HostLayout
	irqRoutingHeader
	entries [MaxRoutes]routingEntry
}

// irqfd is struct kvm_irqfd.
type irqfd struct {
	_          structs.HostLayout
	fd         uint32
	gsi        uint32
	flags      uint32
	resamplefd uint32
	padding    [16]byte
}

// Flags of irqfd.
const (
	irqfdDeassign = 1 << 0
	irqfdResample = 1 << 1
)

// ioeventfd is struct kvm_ioeventfd.
type ioeventfd struct {
	_         structs.HostLayout
	datamatch uint64
	addr      uint64
	len       uint32
	fd        int32
	flags     uint32
	padding   [36]byte
}

// Flags of ioeventfd.
const (
	ioeventfdDatamatch = 1 << 0
	ioeventfdPIO       = 1 << 1
	ioeventfdDeassign  = 1 << 2
)

// msi is struct kvm_msi.
type msi struct {
	_         structs.HostLayout
	addressLo uint32
	addressHi uint32
	data      uint32
	flags     uint32
	devid     uint32
	padding   [12]byte
}

// pitConfig is struct kvm_pit_config.
type pitConfig struct {
	_       structs.HostLayout
	flags   uint32
	padding [15]uint32
}

// pitSpeakerDummy lets KVM answer the speaker port 0x61 (KVM_PIT_SPEAKER_DUMMY).
const pitSpeakerDummy = 1

// enableCap is struct kvm_enable_cap.
type enableCap struct {
	_     structs.HostLayout
	cap   uint32
	flags uint32
	args  [4]uint64
	pad   [64]byte
}

// ClockData is struct kvm_clock_data: the guest's kvmclock.
type ClockData struct {
	_        structs.HostLayout
	Clock    uint64 // nanoseconds
	Flags    uint32
	pad0     uint32
	Realtime uint64
	HostTSC  uint64
	pad      [4]uint32
}

// Regs is struct kvm_regs, the general registers.
type Regs struct {
	_                                      structs.HostLayout
	RAX, RBX, RCX, RDX, RSI, RDI, RSP, RBP uint64
	R8, R9, R10, R11, R12, R13, R14, R15   uint64
	RIP, RFLAGS                            uint64
}

// Segment is struct kvm_segment.
type Segment struct {
	_                                    structs.HostLayout
	Base                                 uint64
	Limit                                uint32
	Selector                             uint16
	Type, Present, DPL, DB, S, L, G, AVL uint8
	Unusable                             uint8
	padding                              uint8
}

// DTable is struct kvm_dtable: a descriptor table register.
type DTable struct {
	_       structs.HostLayout
	Base    uint64
	Limit   uint16
	padding [3]uint16
}

// Sregs is struct kvm_sregs, the system registers.
type Sregs struct {
	_                       structs.HostLayout
	CS, DS, ES, FS, GS, SS  Segment
	TR, LDT                 Segment
	GDT, IDT                DTable
	CR0, CR2, CR3, CR4, CR8 uint64
	EFER                    uint64
	APICBase                uint64
	InterruptBitmap         [4]uint64
}

// FPU is struct kvm_fpu.
type FPU struct {
	_          structs.HostLayout
	FPR        [8][16]byte
	FCW, FSW   uint16
	FTWX       uint8
	pad1       uint8
	LastOpcode uint16
	LastIP     uint64
	LastDP     uint64
	XMM        [16][16]byte
	MXCSR      uint32
	pad2       uint32
}

// msrsHeader is struct kvm_msrs without its entries.
type msrsHeader struct {
	_       structs.HostLayout
	nmsrs   uint32
	padding uint32
}

// MSR is struct kvm_msr_entry.
type MSR struct {
	_        structs.HostLayout
	Index    uint32
	reserved uint32
	Data     uint64
}

// maxMSRs is how many MSRs go in one ioctl here.
const maxMSRs = 64

// msrTable is struct kvm_msrs with room for maxMSRs entries.
type msrTable struct {
	_ structs.HostLayout
	msrsHeader
	entries [maxMSRs]MSR
}

// LAPICState is struct kvm_lapic_state: the register page of a local APIC.
type LAPICState struct {
	_    structs.HostLayout
	Regs [0x400]byte
}

// mpState is struct kvm_mp_state.
type mpState struct {
	_     structs.HostLayout
	state uint32
}

// An MPState says whether a vCPU runs.
type MPState uint32

// States of a vCPU (KVM_MP_STATE_*).
const (
	Runnable      MPState = 0
	Uninitialized MPState = 1 // an application processor that awaits INIT
	InitReceived  MPState = 2
	HaltedState   MPState = 3
	SIPIReceived  MPState = 4
)

// VCPUEvents is struct kvm_vcpu_events: pending exceptions and interrupts.
type VCPUEvents struct {
	_         structs.HostLayout
	Exception struct {
		Injected, Nr, HasErrorCode, Pending uint8
		ErrorCode                           uint32
	}
	Interrupt           struct{ Injected, Nr, Soft, Shadow uint8 }
	NMI                 struct{ Injected, Pending, Masked, pad uint8 }
	SIPIVector          uint32
	Flags               uint32
	SMI                 struct{ SMM, Pending, SMMInsideNMI, LatchedInit uint8 }
	TripleFaultPending  uint8
	reserved            [26]uint8
	ExceptionHasPayload uint8
	ExceptionPayload    uint64
}

// runPage is the start of struct kvm_run, the page shared with KVM. The union
// of what an exit tells starts at exit.
type runPage struct {
	_                          structs.HostLayout
	requestInterruptWindow     uint8
	immediateExit              uint8
	padding1                   [6]uint8
	exitReason                 uint32
	readyForInterruptInjection uint8
	ifFlag                     uint8
	flags                      uint16
	cr8                        uint64
	apicBase                   uint64
	exit                       [256]byte
}

// exitIO is the member io of the union in struct kvm_run.
type exitIO struct {
	_          structs.HostLayout
	direction  uint8
	size       uint8
	port       uint16
	count      uint32
	dataOffset uint64
}

// exitMMIO is the member mmio of the union in struct kvm_run.
type exitMMIO struct {
	_        structs.HostLayout
	physAddr uint64
	data     [8]byte
	len      uint32
	isWrite  uint8
}

// exitFailEntry is the member fail_entry of the union in struct kvm_run.
type exitFailEntry struct {
	_      structs.HostLayout
	reason uint64
	cpu    uint32
}

// exitInternal is the member internal (and emulation_failure) of the union in
// struct kvm_run.
type exitInternal struct {
	_        structs.HostLayout
	suberror uint32
	ndata    uint32
	data     [16]uint64
}
