package main

import (
	"errors"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kvmRun is the request of ioctl KVM_RUN: _IO(0xAE, 0x80).
const kvmRun = 0xae<<8 | 0x80

// Places in struct seccomp_data.
const (
	dataNumber    = 0
	dataArgument1 = 24
)

// watchKVMRun puts the calling thread under the filter and returns its listener.
func watchKVMRun() (int, error) {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: dataNumber},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 3, K: unix.SYS_IOCTL},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: dataArgument1},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: kvmRun},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	// The kernel copies the filter during the call.
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER,
		uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(filter)
	if errno != 0 {
		return 0, fmt.Errorf("seccomp: %w", errno)
	}
	return int(fd), nil
}

// waitNotification waits until the listener has something to tell. Nothing answers
// it: whoever made the call waits until it is killed.
func waitNotification(fd int, limit time.Duration) error {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); {
		n, err := unix.Poll(p, int(time.Until(deadline).Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for KVM_RUN: %w", err)
		}
		if n > 0 && p[0].Revents&unix.POLLIN != 0 {
			return nil
		}
		if n > 0 {
			return errors.New("the VMM ended before it ran a vCPU")
		}
	}
	return fmt.Errorf("no KVM_RUN in %v", limit)
}
