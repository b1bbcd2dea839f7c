package jail

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// seccompSetFilter makes seccomp(SECCOMP_SET_MODE_FILTER). It returns the
// number of a thread that could not take the filter, 0 for none.
//
// The pointers are sound: the kernel copies struct sock_fprog and the
// program it points to during the call, and both are alive until after it.
func seccompSetFilter(prog []unix.SockFilter, flags uintptr) (int, error) {
	fprog := &unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	tid, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(fprog)))
	runtime.KeepAlive(prog)
	if errno != 0 {
		return 0, errno
	}
	return int(tid), nil
}
