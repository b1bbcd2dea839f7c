package memory

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// A nodeMask has a bit for each NUMA node, in longs as the kernel's nodemask.
type nodeMask [(maxNode + 1) / 64]uint64

// MPOL_BIND and MPOL_PREFERRED_MANY of uapi/linux/mempolicy.h.
const (
	mpolBind          = 2
	mpolPreferredMany = 5
)

// mbind is mbind(2), which x/sys does not have. The kernel reads the mask,
// which lives to the end of the call, and changes no byte of the mapping, which off and n
// have been checked against. It reads maxnode-1 bits.
func (m *Memory) mbind(off, n uint64, mode uintptr, mask *nodeMask) error {
	_, _, errno := unix.Syscall6(unix.SYS_MBIND, uintptr(m.at(off)), uintptr(n), mode,
		uintptr(unsafe.Pointer(mask)), maxNode+2, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
