// Package mounts makes the tree that programs on the host expect: the kernel's
// file systems (mount(2), Documentation/filesystems), the cgroup v2 hierarchy
// (Documentation/admin-guide/cgroup-v2.rst) and a few settings of the kernel
// (Documentation/admin-guide/sysctl).
package mounts

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A Mount is a file system and where it goes.
type Mount struct {
	Type, Target string
	Flags        uintptr
	Data         string
	// Optional: a kernel or machine may lack it, which is no problem.
	Optional bool
}

const strict = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// Table lists what is mounted, in order.
var Table = []Mount{
	{Type: "proc", Target: "/proc", Flags: strict},
	{Type: "sysfs", Target: "/sys", Flags: strict},
	{Type: "devtmpfs", Target: "/dev", Flags: unix.MS_NOSUID | unix.MS_NOEXEC, Data: "mode=0755"},
	{Type: "devpts", Target: "/dev/pts", Flags: unix.MS_NOSUID | unix.MS_NOEXEC, Data: "newinstance,mode=0620,ptmxmode=0666"},
	{Type: "tmpfs", Target: "/run", Flags: strict, Data: "mode=0755,size=64m"},
	{Type: "tmpfs", Target: "/tmp", Flags: strict, Data: "mode=1777,size=64m"},
	{Type: "cgroup2", Target: "/sys/fs/cgroup", Flags: strict, Data: "nsdelegate,memory_recursiveprot"},
	{Type: "securityfs", Target: "/sys/kernel/security", Flags: strict},
	{Type: "pstore", Target: "/sys/fs/pstore", Flags: strict, Optional: true},
	// Read-only: whoever writes there can make a machine not start again.
	{Type: "efivarfs", Target: "/sys/firmware/efi/efivars", Flags: strict | unix.MS_RDONLY, Optional: true},
}

// All mounts the table; it goes on after failures and returns them joined.
func All(table []Mount) error {
	var errs []error
	for _, m := range table {
		if err := m.mount(); err != nil && !m.Optional {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (m Mount) mount() error {
	// Folders below /sys exist already or cannot be made.
	if err := os.MkdirAll(m.Target, 0o755); err != nil {
		return fmt.Errorf("mount %s: %w", m.Type, err)
	}
	if err := unix.Mount(m.Type, m.Target, m.Type, m.Flags, m.Data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.Type, m.Target, err)
	}
	return nil
}

// PivotableRoot puts a mount of the root over the root. The initramfs itself
// has no parent mount, and so pivot_root(2) refuses to leave it; from here on
// every program can, in a mount namespace of its own.
func PivotableRoot() error {
	const stage = "/root.new"
	if err := os.Mkdir(stage, 0o700); err != nil {
		return fmt.Errorf("make the root pivotable: %w", err)
	}
	for _, step := range []func() error{
		func() error { return unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, "") },
		func() error { return unix.Mount("/", stage, "", unix.MS_BIND|unix.MS_REC, "") },
		func() error { return unix.Chdir(stage) },
		func() error { return unix.Mount(".", "/", "", unix.MS_MOVE, "") },
		func() error { return unix.Chroot(".") },
		func() error { return unix.Chdir("/") },
		func() error { return os.Remove(stage) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("make the root pivotable: %w", err)
		}
	}
	return nil
}
