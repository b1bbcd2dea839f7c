package jail

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// What a Path without Write and with Write may be used for.
const (
	readRights = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	// Truncating came with ABI 3: see rightsOf.
	writeRights = readRights | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE |
		unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_DIR |
		unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR
)

// rightsOf returns every right that the kernel's Landlock ABI can take away
// (landlock(7), "Compatibility"). A host's kernel has at least ABI 5.
func rightsOf(abi int) (fs, net, scope uint64) {
	fs = unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1 // all of ABI 1
	if abi >= 2 {
		fs |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if abi >= 3 {
		fs |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= 4 {
		net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	if abi >= 5 {
		fs |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	if abi >= 6 {
		// Not LANDLOCK_SCOPE_SIGNAL: each thread gets a domain of its own, and
		// the Go scheduler signals between threads. Signals to other
		// processes are stopped by the PID namespace and by seccomp.
		scope = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
	}
	return fs, net, scope
}

// restrictPaths leaves the process no path but paths, no TCP port to bind or
// connect, no abstract socket. Descriptors that are open stay as they are.
func restrictPaths(paths []Path) error {
	abi, err := landlockABI()
	if err != nil {
		return fmt.Errorf("probe Landlock (CONFIG_SECURITY_LANDLOCK, and landlock in the lsm= list): %w", err)
	}
	fs, net, scope := rightsOf(abi)
	rules, err := landlockCreate(fs, net, scope)
	if err != nil {
		return fmt.Errorf("create Landlock rules: %w", err)
	}
	defer func() { _ = unix.Close(rules) }()
	for _, p := range paths {
		if err := allowPath(rules, p, fs); err != nil {
			return fmt.Errorf("allow %s: %w", p.Name, err)
		}
	}
	return allThreads("enter Landlock domain", unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(rules), 0, 0)
}

// allowPath adds p to rules, with at most the rights in handled.
func allowPath(rules int, p Path, handled uint64) error {
	fd, err := unix.Open(p.Name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	rights := uint64(readRights)
	if p.Write {
		rights = writeRights
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	return landlockAllow(rules, fd, rights&handled)
}
