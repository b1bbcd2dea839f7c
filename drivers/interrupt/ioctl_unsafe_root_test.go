//go:build roottest

package interrupt

import (
	"os"
	"unsafe" // the argument of an ioctl, which lives for one call

	"golang.org/x/sys/unix"
)

func ioctl(f *os.File, request int, argument []byte) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(request), uintptr(unsafe.Pointer(&argument[0]))); e != 0 {
		return e
	}
	return nil
}
