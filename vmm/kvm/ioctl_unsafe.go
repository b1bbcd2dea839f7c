package kvm

import (
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What is unsafe here: addresses of Go values go to the kernel. Each is of the
// type whose size is in the ioctl's number (or, for tables with a count in
// front, of a type with room for as many entries as the count says), and is
// used only during the call. ioctlPtr keeps it alive until then.

// The three kinds of ioctl with an argument: unsafe.Sizeof is all they use.
func ior[T any](nr uintptr) uintptr  { var t T; return ioc(dirRead, nr, unsafe.Sizeof(t)) }
func iow[T any](nr uintptr) uintptr  { var t T; return ioc(dirWrite, nr, unsafe.Sizeof(t)) }
func iowr[T any](nr uintptr) uintptr { var t T; return ioc(dirRead|dirWrite, nr, unsafe.Sizeof(t)) }

// ioctl calls an ioctl whose argument is a number.
func ioctl(f *os.File, req, arg uintptr) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), req, arg)
	runtime.KeepAlive(f)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// ioctlUntold is ioctl without Go's scheduler being told.
func ioctlUntold(f *os.File, req, arg uintptr) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_IOCTL, f.Fd(), req, arg)
	runtime.KeepAlive(f)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// ioctlPtr calls an ioctl whose argument is a structure.
func ioctlPtr[T any](f *os.File, req uintptr, arg *T) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), req, uintptr(unsafe.Pointer(arg)))
	runtime.KeepAlive(f)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func do[T any](f *os.File, req uintptr, arg *T) error {
	_, err := ioctlPtr(f, req, arg)
	return err
}

func getSupportedCPUID(f *os.File, t *cpuidTable) error { return do(f, kvmGetSupportedCPUID, t) }

func setUserMemoryRegion(f *os.File, r *userMemoryRegion) error {
	return do(f, kvmSetUserMemoryRegion, r)
}

// getDirtyLog hands the kernel the address of bitmap inside a structure: the
// pinner keeps it where it is.
func getDirtyLog(f *os.File, slot uint32, bitmap []uint64) error {
	var p runtime.Pinner
	defer p.Unpin()
	p.Pin(&bitmap[0])
	return do(f, kvmGetDirtyLog, &dirtyLog{slot: slot, dirtyMap: uint64(uintptr(unsafe.Pointer(&bitmap[0])))})
}

// setDeviceFile hands the kernel the address of fd inside a structure, as getDirtyLog does.
func setDeviceFile(f *os.File, a deviceAttr, fd int32) error {
	var p runtime.Pinner
	defer p.Unpin()
	p.Pin(&fd)
	a.addr = uint64(uintptr(unsafe.Pointer(&fd)))
	return do(f, kvmSetDeviceAttr, &a)
}

func createKVMDevice(f *os.File, c *createDevice) error { return do(f, kvmCreateDevice, c) }
func setIdentityMapAddr(f *os.File, a uint64) error     { return do(f, kvmSetIdentityMapAddr, &a) }
func enableCapability(f *os.File, c *enableCap) error   { return do(f, kvmEnableCap, c) }
func createPIT2(f *os.File, c *pitConfig) error         { return do(f, kvmCreatePIT2, c) }
func getIRQChip(f *os.File, c *IRQChip) error           { return do(f, kvmGetIRQChip, c) }
func setIRQChip(f *os.File, c *IRQChip) error           { return do(f, kvmSetIRQChip, c) }
func getClock(f *os.File, c *ClockData) error           { return do(f, kvmGetClock, c) }
func setClock(f *os.File, c *ClockData) error           { return do(f, kvmSetClock, c) }
func setGSIRouting(f *os.File, t *routingTable) error   { return do(f, kvmSetGSIRouting, t) }
func setIRQFD(f *os.File, a *irqfd) error               { return do(f, kvmIRQFD, a) }
func setIRQLine(f *os.File, l *irqLevel) error          { return do(f, kvmIRQLine, l) }
func setIOEventFD(f *os.File, a *ioeventfd) error       { return do(f, kvmIOEventFD, a) }
func signalMSI(f *os.File, m *msi) error                { return do(f, kvmSignalMSI, m) }
func getRegs(f *os.File, r *Regs) error                 { return do(f, kvmGetRegs, r) }
func setRegs(f *os.File, r *Regs) error                 { return do(f, kvmSetRegs, r) }
func getSregs(f *os.File, s *Sregs) error               { return do(f, kvmGetSregs, s) }
func setSregs(f *os.File, s *Sregs) error               { return do(f, kvmSetSregs, s) }
func getFPU(f *os.File, s *FPU) error                   { return do(f, kvmGetFPU, s) }
func setFPU(f *os.File, s *FPU) error                   { return do(f, kvmSetFPU, s) }
func getLAPIC(f *os.File, l *LAPICState) error          { return do(f, kvmGetLAPIC, l) }
func setLAPIC(f *os.File, l *LAPICState) error          { return do(f, kvmSetLAPIC, l) }
func setCPUID2(f *os.File, t *cpuidTable) error         { return do(f, kvmSetCPUID2, t) }
func getMSRs(f *os.File, t *msrTable) (int, error)      { return ioctlPtr(f, kvmGetMSRs, t) }
func setMSRs(f *os.File, t *msrTable) (int, error)      { return ioctlPtr(f, kvmSetMSRs, t) }
func getMPState(f *os.File, s *mpState) error           { return do(f, kvmGetMPState, s) }
func setMPState(f *os.File, s *mpState) error           { return do(f, kvmSetMPState, s) }
func getVCPUEvents(f *os.File, e *VCPUEvents) error     { return do(f, kvmGetVCPUEvents, e) }
func setVCPUEvents(f *os.File, e *VCPUEvents) error     { return do(f, kvmSetVCPUEvents, e) }
