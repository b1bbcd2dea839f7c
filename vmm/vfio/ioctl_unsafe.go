package vfio

import (
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What is unsafe here: addresses of Go values go to the kernel, which uses them during the
// call alone, and no more of them than the size that is in each says, which is that of the type.

// ioctlPtr passes a structure, one of those that this package mirrors.
func ioctlPtr[T any](f *os.File, req uintptr, arg *T) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), req, uintptr(unsafe.Pointer(arg)))
	runtime.KeepAlive(f)
	if errno != 0 {
		return errno
	}
	return nil
}

// ioctl passes a number.
func ioctl(f *os.File, req, arg uintptr) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), req, arg)
	runtime.KeepAlive(f)
	if errno != 0 {
		return errno
	}
	return nil
}

// getDevice passes the name of a device and returns its descriptor.
func getDevice(f *os.File, name string) (int, error) {
	b, err := unix.BytePtrFromString(name)
	if err != nil {
		return 0, err
	}
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), groupGetDevice, uintptr(unsafe.Pointer(b)))
	runtime.KeepAlive(f)
	if errno != 0 {
		return 0, errno
	}
	return int(fd), nil
}

// setContainer passes the address of a descriptor.
func setContainer(group *os.File, container int32) error {
	return ioctlPtr(group, groupSetContainer, &container)
}

// size is unsafe.Sizeof, for the fields that tell the kernel.
func size[T any]() uint32 { var t T; return uint32(unsafe.Sizeof(t)) }
