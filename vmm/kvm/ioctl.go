// Package kvm drives Linux's KVM: its ioctls, its structures, and three owner
// types, System (/dev/kvm), VM and VCPU. It follows Documentation/virt/kvm/api.rst
// and the user headers linux/kvm.h and asm/kvm.h of Linux 6.12, for x86-64.
//
// The package holds no policy: what a machine looks like is decided by its
// callers. Every error says which ioctl failed on what.
package kvm

// kvmIO is KVMIO, the type byte of all ioctls of KVM.
const kvmIO = 0xAE

// Directions of an ioctl as seen from the caller (asm-generic/ioctl.h).
const (
	dirNone  = 0
	dirWrite = 1
	dirRead  = 2
)

// ioc computes an ioctl number as _IOC does: direction in bits 30 and 31, size
// of the argument in bits 16 to 29, type in bits 8 to 15, number below.
func ioc(dir, nr, size uintptr) uintptr {
	return dir<<30 | size<<16 | kvmIO<<8 | nr
}

func io(nr uintptr) uintptr { return ioc(dirNone, nr, 0) }

// Ioctls of /dev/kvm.
var (
	kvmGetAPIVersion     = io(0x00)
	kvmCreateVM          = io(0x01)
	kvmCheckExtension    = io(0x03)
	kvmGetVCPUMmapSize   = io(0x04)
	kvmGetSupportedCPUID = iowr[cpuidHeader](0x05)
)

// Ioctls of a VM.
var (
	kvmCreateVCPU          = io(0x41)
	kvmGetDirtyLog         = iow[dirtyLog](0x42)
	kvmSetUserMemoryRegion = iow[userMemoryRegion](0x46)
	kvmSetTSSAddr          = io(0x47)
	kvmSetIdentityMapAddr  = iow[uint64](0x48)
	kvmCreateIRQChip       = io(0x60)
	kvmIRQLine             = iow[irqLevel](0x61)
	kvmGetIRQChip          = iowr[IRQChip](0x62)
	kvmSetIRQChip          = ior[IRQChip](0x63)
	kvmSetGSIRouting       = iow[irqRoutingHeader](0x6a)
	kvmIRQFD               = iow[irqfd](0x76)
	kvmCreatePIT2          = iow[pitConfig](0x77)
	kvmIOEventFD           = iow[ioeventfd](0x79)
	kvmSetClock            = iow[ClockData](0x7b)
	kvmGetClock            = ior[ClockData](0x7c)
	kvmSignalMSI           = iow[msi](0xa5)
	kvmEnableCap           = iow[enableCap](0xa3)
	kvmCreateDevice        = iowr[createDevice](0xe0)
)

// Ioctls of what KVM_CREATE_DEVICE returns.
var kvmSetDeviceAttr = iow[deviceAttr](0xe1)

// Ioctls of a vCPU.
var (
	kvmRun           = io(0x80)
	kvmGetRegs       = ior[Regs](0x81)
	kvmSetRegs       = iow[Regs](0x82)
	kvmGetSregs      = ior[Sregs](0x83)
	kvmSetSregs      = iow[Sregs](0x84)
	kvmGetMSRs       = iowr[msrsHeader](0x88)
	kvmSetMSRs       = iow[msrsHeader](0x89)
	kvmGetFPU        = ior[FPU](0x8c)
	kvmSetFPU        = iow[FPU](0x8d)
	kvmGetLAPIC      = ior[LAPICState](0x8e)
	kvmSetLAPIC      = iow[LAPICState](0x8f)
	kvmSetCPUID2     = iow[cpuidHeader](0x90)
	kvmGetMPState    = ior[mpState](0x98)
	kvmSetMPState    = iow[mpState](0x99)
	kvmNMI           = io(0x9a)
	kvmGetVCPUEvents = ior[VCPUEvents](0x9f)
	kvmSetVCPUEvents = iow[VCPUEvents](0xa0)
	kvmGetTSCKHz     = io(0xa3)
	kvmKVMClockCtrl  = io(0xad)
	kvmGetStatsFD    = io(0xce)
)
