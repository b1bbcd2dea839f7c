package machine

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Disks work through io_uring, which asks no filter: calls that would reach
// further are not to be left to a process that a guest has taken over.
func TestRules(t *testing.T) {
	allowed := make(map[uint32]bool)
	for _, r := range Rules() {
		if r.Syscall == unix.SYS_IOCTL && len(r.Args) == 0 {
			t.Errorf("every ioctl is allowed (%s)", r.Reason)
		}
		allowed[r.Syscall] = true
	}
	for _, nr := range []uint32{
		unix.SYS_FALLOCATE, unix.SYS_PREADV, unix.SYS_PWRITEV, unix.SYS_READV, unix.SYS_WRITEV, unix.SYS_LSEEK,
		unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_REGISTER,
	} {
		if allowed[nr] {
			t.Errorf("system call %d is allowed, which nothing needs", nr)
		}
	}
}

// What slots need besides is bound to what it is for.
func TestHotplugRules(t *testing.T) {
	for _, r := range HotplugRules() {
		if r.Syscall == unix.SYS_IO_URING_SETUP {
			t.Errorf("rings can be made (%s)", r.Reason)
		}
		if len(r.Args) == 0 && r.Syscall != unix.SYS_LSEEK {
			t.Errorf("system call %d is allowed with any arguments (%s)", r.Syscall, r.Reason)
		}
	}
}
