package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A watch finds out when a VMM first enters a guest, by no means of the VMM's own: it
// runs under a seccomp filter that lets every system call pass but ioctl KVM_RUN,
// of which it tells a listener (seccomp_unotify(2)). The filter costs each system
// call of any VMM the same few instructions.
type watch struct {
	mine, theirs *os.File
	listener     *os.File // after first
}

func newWatch() (*watch, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	return &watch{mine: os.NewFile(uintptr(fds[0]), "watch"), theirs: os.NewFile(uintptr(fds[1]), "watched")}, nil
}

// close ends the watch. A VMM that waits at its KVM_RUN goes on with an error: end it
// before.
func (w *watch) close() {
	w.mine.Close()
	w.theirs.Close()
	if w.listener != nil {
		w.listener.Close()
	}
}

// wrap makes the command line of a program, and the files it gets besides; a watch
// that is nil changes nothing. The program's own files come first, and are two for
// Ashlar's, none for QEMU: the place of the watch's follows from the argument.
func (w *watch) wrap(payload, program string) ([]string, []*os.File) {
	if w == nil {
		return []string{program}, nil
	}
	fd := 3
	if program == vmmProgram {
		fd = 5
	}
	return []string{filepath.Join(payload, "inside"), "watch", strconv.Itoa(fd), program}, []*os.File{w.theirs}
}

// watched is the wrapper: it puts itself under the filter and becomes the program.
func watched(args []string) error {
	if len(args) < 2 {
		return errors.New("watch: want a descriptor and a program")
	}
	fd, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	// The filter holds for this thread, which is the one that becomes the program.
	runtime.LockOSThread()
	listener, err := watchKVMRun()
	if err != nil {
		return err
	}
	unix.CloseOnExec(fd)
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return err
	}
	if err := unix.Sendmsg(fd, []byte(strconv.FormatInt(now.Nano(), 10)), unix.UnixRights(listener), nil, 0); err != nil {
		return fmt.Errorf("send the listener: %w", err)
	}
	return fmt.Errorf("exec %s: %w", args[1], unix.Exec(args[1], args[1:], []string{}))
}

// first waits for the first KVM_RUN, and returns the time since the program's exec.
func (w *watch) first() (time.Duration, error) {
	w.theirs.Close()
	b, oob := make([]byte, 64), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := unix.Recvmsg(int(w.mine.Fd()), b, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return 0, fmt.Errorf("receive the listener: %w", err)
	}
	began, err := strconv.ParseInt(string(b[:n]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the wrapper ended: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		return 0, fmt.Errorf("receive the listener: %d messages: %w", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return 0, err
	}
	w.listener = os.NewFile(uintptr(fds[0]), "listener")
	if err := waitNotification(fds[0], startLimit); err != nil {
		return 0, err
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0, err
	}
	return time.Duration(now.Nano() - began), nil
}
