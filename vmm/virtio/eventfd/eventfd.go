// Package eventfd makes the descriptors that kick a queue or stop a worker:
// eventfd(2), as files.
package eventfd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

var one = binary.NativeEndian.AppendUint64(nil, 1)

// New makes an eventfd with counter 0. A blocking one is for the kernel to
// read (io_uring, vhost); one that is not is read by a goroutine through the
// runtime's poller, which keeps no thread waiting.
func New(name string, blocking bool) (*os.File, error) {
	flags := unix.EFD_CLOEXEC
	if !blocking {
		flags |= unix.EFD_NONBLOCK
	}
	fd, err := unix.Eventfd(0, flags)
	if err != nil {
		return nil, fmt.Errorf("make eventfd %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Signal adds 1 to the counter of f. A nil f is nobody to signal.
func Signal(f *os.File) error {
	if f == nil {
		return nil
	}
	if _, err := f.Write(one); err != nil && !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("signal %s: %w", f.Name(), err)
	}
	return nil
}

// Raise is Signal for an f that nobody closes meanwhile. The scheduler is not told of
// the system call, which never waits: its thread that watches over system calls sleeps on.
func Raise(f *os.File) error {
	if f == nil {
		return nil
	}
	if err := write(f.Fd()); err != nil && !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("signal %s: %w", f.Name(), err)
	}
	return nil
}

// Wait sleeps until the counter of f, which is not a blocking one, is not 0,
// and clears it.
func Wait(f *os.File) error {
	var b [8]byte
	if _, err := f.Read(b[:]); err != nil {
		return fmt.Errorf("wait for %s: %w", f.Name(), err)
	}
	return nil
}
