package eventfd

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// write adds 1 to the counter of an eventfd. The kernel reads the 8 bytes of one, which
// are never written, and keeps no pointer.
func write(fd uintptr) error {
	_, _, errno := unix.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(unsafe.SliceData(one))), uintptr(len(one)))
	if errno != 0 {
		return errno
	}
	return nil
}
