package main

import (
	"os"
	"sync/atomic"
	"unsafe" // an address to align to, a pointer that lives for one call, and registers in a mapping

	"golang.org/x/sys/unix"
)

// aligned makes a buffer that O_DIRECT takes.
func aligned(n int) []byte {
	b := make([]byte, n+4096)
	skip := -uintptr(unsafe.Pointer(&b[0])) & 4095
	return b[skip:][:n]
}

// rangeIoctl gives a block device a request that takes an offset and a size.
func rangeIoctl(f *os.File, request uint, off, n uint64) error {
	r := [2]uint64{off, n}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(request), uintptr(unsafe.Pointer(&r))); e != 0 {
		return e
	}
	return nil
}

// register is the one of 32 bits at an offset, a multiple of 4, of a device's mapped BAR.
func register(bar []byte, off int) *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Pointer(&bar[off : off+4 : off+4][0]))
}

// addressOf is where b begins, for /proc/self/pagemap.
func addressOf(b []byte) uintptr { return uintptr(unsafe.Pointer(&b[0])) }
