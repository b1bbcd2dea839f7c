package work

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Alone says that the process does nothing but its load. Then the scheduler is not told of the load's
// system calls: its thread that watches over those of which it is told sets timers, and
// there were 18 exits for a read of a guest instead of 4.
var Alone bool

// call makes a system call that may wait.
func call(trap, a1, a2, a3, a4, a5 uintptr) (uintptr, unix.Errno) {
	for {
		var n uintptr
		var errno unix.Errno
		if Alone {
			n, _, errno = unix.RawSyscall6(trap, a1, a2, a3, a4, a5, 0)
		} else {
			n, _, errno = unix.Syscall6(trap, a1, a2, a3, a4, a5, 0)
		}
		if errno != unix.EINTR {
			return n, errno
		}
	}
}

// transfer makes a system call on b, which is no memory of a stack.
func transfer(trap uintptr, fd int, b []byte, off int64) (int, error) {
	n, errno := call(trap, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), uintptr(off), 0)
	runtime.KeepAlive(b)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// A socket is a connection past the runtime's poller.
type socket struct{ f *os.File }

// fast is c, or, where the process is alone, c past the poller, which close closes. c is of no use for data
// any more then.
func fast(c net.Conn) (rw io.ReadWriter, closing func(), err error) {
	if !Alone {
		return c, func() {}, nil
	}
	filer, ok := c.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, nil, fmt.Errorf("a %T has no file", c)
	}
	f, err := filer.File()
	if err != nil {
		return nil, nil, err
	}
	fd := int(f.Fd())
	limit := unix.NsecToTimeval(stall.Nanoseconds())
	for _, err := range []error{
		unix.SetNonblock(fd, false),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit),
	} {
		if err != nil {
			f.Close()
			return nil, nil, err
		}
	}
	return &socket{f}, func() { f.Close() }, nil
}

func (s *socket) Read(b []byte) (int, error) {
	n, err := transfer(unix.SYS_READ, int(s.f.Fd()), b, 0)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, stalled(err)
}

func (s *socket) Write(b []byte) (int, error) {
	for done := 0; ; {
		n, err := transfer(unix.SYS_WRITE, int(s.f.Fd()), b[done:], 0)
		if done += n; err != nil || done == len(b) {
			return done, stalled(err)
		}
	}
}

// stalled tells of a limit that has passed as a connection with a deadline would.
func stalled(err error) error {
	if errors.Is(err, unix.EAGAIN) {
		return os.ErrDeadlineExceeded
	}
	return err
}
