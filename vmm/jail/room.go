package jail

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// emptyRoot replaces the root of this mount namespace by an empty read-only
// tmpfs and lets go of everything that was mounted before.
func emptyRoot() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	root, err := emptyFS()
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(root) }()
	old, err := mountPoints()
	if err != nil {
		return err
	}
	if err := unix.MoveMount(root, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount empty root: %w", err)
	}
	if err := unix.Fchdir(root); err != nil {
		return fmt.Errorf("enter empty root: %w", err)
	}
	switch err := unix.PivotRoot(".", "."); {
	case err == nil:
		// The old root now lies over the new one.
		if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
			return fmt.Errorf("detach old root: %w", err)
		}
	case errors.Is(err, unix.EINVAL):
		// The old root is the kernel's initramfs, which cannot be moved away.
		// Everything mounted on it is let go; what remains lies below the new
		// root, out of reach of a process that cannot mount or chroot.
		detach(old)
		if err := unix.Chroot("."); err != nil {
			return fmt.Errorf("change root: %w", err)
		}
	default:
		return fmt.Errorf("pivot root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter empty root: %w", err)
	}
	return nil
}

// emptyFS makes an empty, read-only tmpfs that is mounted nowhere yet.
func emptyFS() (int, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open tmpfs (CONFIG_TMPFS): %w", err)
	}
	defer func() { _ = unix.Close(fs) }()
	for _, o := range [][2]string{{"source", "ashlar-jail"}, {"mode", "0555"}, {"size", "4k"}, {"nr_inodes", "1"}} {
		if err := unix.FsconfigSetString(fs, o[0], o[1]); err != nil {
			return -1, fmt.Errorf("set tmpfs option %s=%s: %w", o[0], o[1], err)
		}
	}
	if err := unix.FsconfigSetFlag(fs, "ro"); err != nil {
		return -1, fmt.Errorf("set tmpfs read-only: %w", err)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("create tmpfs: %w", err)
	}
	root, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC,
		unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return -1, fmt.Errorf("mount tmpfs: %w", err)
	}
	return root, nil
}

// mountPoints lists what is mounted below the root (proc_pid_mountinfo(5)),
// the last mounted first.
func mountPoints() ([]string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	var points []string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) > 4 && f[4] != "/" {
			points = append(points, unescape(f[4]))
		}
	}
	for i, j := 0, len(points)-1; i < j; i, j = i+1, j-1 {
		points[i], points[j] = points[j], points[i]
	}
	return points, nil
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// detach lets go of mounts. The process's root is still the old one here, so
// the names mean what they did. A mount below one that is gone already fails,
// which is what is wanted.
func detach(points []string) {
	for _, p := range points {
		_ = unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
}
