package nvme

import (
	"fmt"
	"os"
	"runtime"
	"structs"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A command is struct nvme_passthru_cmd of linux/nvme_ioctl.h.
type command struct {
	_           structs.HostLayout
	opcode      uint8
	flags       uint8
	_           uint16
	nsid        uint32
	_, _        uint32 // cdw2, cdw3
	_           uint64 // metadata
	addr        uint64
	_           uint32 // length of metadata
	dataLen     uint32
	cdw10       uint32
	cdw11       uint32
	_, _, _, _  uint32 // cdw12 to cdw15
	timeoutMsec uint32
	result      uint32
}

// ioctlAdmin is NVME_IOCTL_ADMIN_CMD, _IOWR('N', 0x41, struct nvme_admin_cmd); ioctlReset
// NVME_IOCTL_RESET, _IO('N', 0x44) (asm-generic/ioctl.h).
const (
	ioctlAdmin = 3<<30 | unsafe.Sizeof(command{})<<16 | 'N'<<8 | 0x41
	ioctlReset = 'N'<<8 | 0x44
)

// admin carries out an admin command with data, which the controller reads or writes. The
// kernel waits for it: both stay where they are until the call returns, data because it is
// pinned, c because it is a pointer in the call.
func admin(f *os.File, c *command, data []byte) error {
	if len(data) > 0 {
		var pin runtime.Pinner
		defer pin.Unpin()
		pin.Pin(&data[0])
		c.addr, c.dataLen = uint64(uintptr(unsafe.Pointer(&data[0]))), uint32(len(data))
	}
	status, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), ioctlAdmin, uintptr(unsafe.Pointer(c)))
	runtime.KeepAlive(f)
	if errno != 0 {
		return errno
	}
	if status != 0 {
		return Status(status)
	}
	return nil
}

// reset resets the controller.
func reset(f *os.File) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), ioctlReset, 0)
	runtime.KeepAlive(f)
	if errno != 0 {
		return fmt.Errorf("reset controller: %w", errno)
	}
	return nil
}
