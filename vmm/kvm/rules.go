package kvm

import (
	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/jail"
)

// Rules are the ioctls that a made machine goes on using, for the process's
// filter of system calls. Making VMs, vCPUs, memory slots and controllers is
// not among them: a machine is made before its process is confined.
func Rules() []jail.Rule {
	ioctl := func(req uintptr, reason string) jail.Rule {
		return jail.Allow(unix.SYS_IOCTL, reason, jail.Equal(1, uint64(req)))
	}
	return []jail.Rule{
		ioctl(kvmRun, "running the guest"),
		ioctl(kvmCheckExtension, "is a capability there? asked again before each use"),
		ioctl(kvmIRQLine, "the ACPI interrupt"),
		ioctl(kvmIRQFD, "a guest masks and unmasks an MSI-X vector"),
		ioctl(kvmSetGSIRouting, "a guest writes an MSI-X table entry"),
		ioctl(kvmIOEventFD, "a guest moves a BAR with doorbells"),
		ioctl(kvmGetRegs, "is a halted vCPU's interrupt flag clear?"),
		ioctl(kvmSetRegs, "first instruction, after the kernel was loaded"),
		ioctl(kvmSetSregs, "first state, after the kernel was loaded"),
		ioctl(kvmGetSregs, "first state, after the kernel was loaded"),
		ioctl(kvmGetMPState, "is a vCPU halted?"),
		ioctl(kvmSetMPState, "a vCPU that the guest has given up waits to be started"),
		ioctl(kvmKVMClockCtrl, "telling the guest that it was paused"),
		ioctl(kvmGetLAPIC, "does a vCPU take NMIs at its second local interrupt pin?"),
		ioctl(kvmNMI, "an operator's NMI"),
		jail.Allow(unix.SYS_PREAD64, "KVM's counters"),
	}
}
