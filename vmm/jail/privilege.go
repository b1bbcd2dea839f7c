package jail

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Secure bits (capabilities(7)): root's user number means nothing any more,
// and that cannot be changed back.
const secureBits = 1<<0 | 1<<1 | // SECBIT_NOROOT and its lock
	1<<2 | 1<<3 | // SECBIT_NO_SETUID_FIXUP and its lock
	1<<5 | // SECBIT_KEEP_CAPS's lock
	1<<6 | 1<<7 // SECBIT_NO_CAP_AMBIENT_RAISE and its lock

// dropPrivilege empties the capability sets of every thread and changes user
// and group for good.
func dropPrivilege(uid, gid uint32) error {
	if err := DropBounding(nil); err != nil {
		return err
	}
	if err := syscall.Setgroups(nil); err != nil {
		return fmt.Errorf("drop groups: %w", err)
	}
	if err := syscall.Setresgid(int(gid), int(gid), int(gid)); err != nil {
		return fmt.Errorf("become group %d: %w", gid, err)
	}
	// Changing the user clears the effective set, and with it the right to
	// set the secure bits: keep the permitted set over the change.
	if err := allThreads("keep capabilities", unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0); err != nil {
		return err
	}
	if err := syscall.Setresuid(int(uid), int(uid), int(uid)); err != nil {
		return fmt.Errorf("become user %d: %w", uid, err)
	}
	if err := setCapabilities(1 << unix.CAP_SETPCAP); err != nil {
		return err
	}
	if err := allThreads("set secure bits", unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, secureBits, 0); err != nil {
		return err
	}
	return setCapabilities(0)
}

// DropBounding takes every capability but those in keep (CAP_ numbers) out of
// the bounding set of every thread: not even a program started later can have
// one of them. It needs CAP_SETPCAP.
func DropBounding(keep map[int]bool) error {
	for c := 0; c <= unix.CAP_LAST_CAP; c++ {
		if keep[c] {
			continue
		}
		has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0)
		if err != nil || has == 0 {
			continue // unknown to this kernel, or gone already
		}
		if err := allThreads(fmt.Sprintf("drop capability %d", c), unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(c), 0); err != nil {
			return err
		}
	}
	return nil
}

// KeepOnly reduces the effective and permitted sets of every thread to the
// capabilities in keep, drops the others from the bounding set, and leaves
// nothing inheritable.
func KeepOnly(keep map[int]bool) error {
	if err := DropBounding(keep); err != nil {
		return err
	}
	var set uint64
	for c := range keep {
		if has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0); err == nil && has == 1 {
			set |= 1 << c
		}
	}
	return setCapabilities(set)
}
