package jailtest

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// most is one more than the highest descriptor that a process may have.
const most = 1024

// abuse writes, sizes, maps, drains and shuts each descriptor that the process has, in
// all ways that its filter lets begin. Whoever started the process finds out what came of it.
func abuse() string {
	junk := make([]byte, 64<<10)
	for i := range junk {
		junk[i] = byte(i*7 + 1)
	}
	n := 0
	for fd := most - 1; fd >= 0; fd-- {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil {
			continue
		}
		n++
		// What would wait for others must not.
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err == nil {
			_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags|unix.O_NONBLOCK)
		}
		abuseOne(fd, junk)
	}
	if n < 5 {
		return fmt.Sprintf("has %d descriptors only", n)
	}
	return Harmless
}

func abuseOne(fd int, junk []byte) {
	// Nothing of this has to work: what matters is what others see of it.
	_ = unix.Ftruncate(fd, 1<<50)
	for _, at := range []int64{0, 1 << 20, 1 << 40, -1} {
		_, _ = unix.Pwrite(fd, junk, at)
		_, _ = unix.Pread(fd, make([]byte, 64), at)
	}
	_, _ = unix.Write(fd, junk[:8]) // an eventfd takes just that
	_, _ = unix.Write(fd, junk)
	_ = unix.Fsync(fd)
	_ = unix.Sendmsg(fd, junk[:4096], unix.UnixRights(fd, fd, fd), nil, unix.MSG_DONTWAIT)
	_ = unix.Sendmsg(fd, []byte(`{"id":1,"status":{"state":"running","pid":-1}}`), nil, nil, unix.MSG_DONTWAIT)
	for _, prot := range []int{unix.PROT_READ, unix.PROT_READ | unix.PROT_WRITE} {
		if b, err := unix.Mmap(fd, 0, 4096, prot, unix.MAP_SHARED); err == nil {
			_ = unix.Munmap(b)
		}
	}
}
