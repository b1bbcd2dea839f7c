package vhost

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctl passes a pointer to arg, one of the mirrored structs of this package.
// The kernel reads or writes no more than the size in the number, or than
// nregions says for the memory table, and keeps no pointer after the call.
func ioctl[T any](f *os.File, number uintptr, arg *T) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), number, uintptr(unsafe.Pointer(arg)))
	if errno != 0 {
		return errno
	}
	return nil
}
