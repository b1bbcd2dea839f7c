package jail

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The pointers in this file are sound: each argument is a local variable of
// the layout that the kernel's header linux/landlock.h gives (x/sys mirrors
// it), alive over the call because its conversion stands in the call's
// argument list.

// landlockABI asks which version of Landlock the kernel has.
func landlockABI() (int, error) {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0, errno
	}
	return int(v), nil
}

// landlockCreate makes a rule set that takes the given rights away.
func landlockCreate(fs, net, scope uint64) (int, error) {
	attr := unix.LandlockRulesetAttr{Handled_access_fs: fs, Handled_access_net: net, Scoped: scope}
	// An older kernel refuses fields it does not know only when they are not
	// zero, which rightsOf sees to.
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return -1, errno
	}
	unix.CloseOnExec(int(fd))
	return int(fd), nil
}

// landlockAllow gives rights below the file that dir stands for.
func landlockAllow(rules, dir int, rights uint64) error {
	attr := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(dir)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(rules), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
