// Package room builds the empty room that the control domain works in: a root
// with nothing in it but a program and the few folders it is given, seen by a
// process without any privilege (namespaces(7), pivot_root(2), capabilities(7)).
//
// A room is entered in two stages. init starts itself again, as the user of the room and
// in namespaces that belong to that user (jail.Attributes); that process calls Enter,
// which builds the room around itself and becomes the program.
package room

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Bind shows a folder of the host in the room.
type Bind struct {
	Source, Target string
	Writable       bool
}

// A Room says what is in it.
type Room struct {
	// Stage is an empty folder on which the room is built, the user's to reach. It does not
	// appear in the room, nor does what is mounted there appear outside.
	Stage string
	// Program is the host's path of the program; it is a static one.
	Program string
	Binds   []Bind
	// UID is the user and group that the program runs as.
	UID int
	// Files is how many descriptors stay open, beginning with 0.
	Files int
}

// inside is the program's path in the room.
func (r Room) inside() string { return "/" + filepath.Base(r.Program) }

// Enter builds the room around the calling process, which must have been started with
// jail.Attributes of UID, and becomes the program, with an empty environment. It returns
// only on failure; the process is then fit for nothing but to end.
func (r Room) Enter() error {
	// Privileges are those of a thread, and this one is it that becomes the program.
	runtime.LockOSThread()
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"build", r.build},
		{"pivot", r.pivot},
		{"close descriptors", func() error {
			return unix.CloseRange(uint(r.Files), ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
		}},
		{"drop privileges", r.drop},
		{"start program", func() error { return syscall.Exec(r.inside(), []string{filepath.Base(r.Program)}, nil) }},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("enter room of %s: %s: %w", r.Program, step.name, err)
		}
	}
	return nil
}

const strict = unix.MS_NOSUID | unix.MS_NODEV

// build mounts what belongs into the room below the stage.
func (r Room) build() error {
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("keep mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", r.Stage, "tmpfs", strict|unix.MS_NOEXEC, "size=64k,nr_inodes=32,mode=0755"); err != nil {
		return fmt.Errorf("mount the root on %s: %w", r.Stage, err)
	}
	f, err := os.OpenFile(r.Stage+r.inside(), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o555)
	if err != nil {
		return err
	}
	f.Close()
	if err := bind(r.Program, r.Stage+r.inside(), unix.MS_RDONLY); err != nil {
		return err
	}
	for _, b := range r.Binds {
		target := filepath.Join(r.Stage, b.Target)
		if err := os.MkdirAll(target, 0o755); err != nil {
			return err
		}
		flags := uintptr(unix.MS_NOEXEC)
		if !b.Writable {
			flags |= unix.MS_RDONLY
		}
		if err := bind(b.Source, target, flags); err != nil {
			return err
		}
	}
	return nil
}

func bind(source, target string, flags uintptr) error {
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", source, err)
	}
	// Flags take effect only on a second call.
	if err := unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|strict|flags, ""); err != nil {
		return fmt.Errorf("bind %s: set flags: %w", source, err)
	}
	return nil
}

// pivot makes the stage the root, forgets the host's, and closes the room to
// writing.
func (r Room) pivot() error {
	if err := unix.Chdir(r.Stage); err != nil {
		return err
	}
	// Both at the same place: the old root ends up on top of the new one.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_RDONLY|strict|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("make the root read-only: %w", err)
	}
	return nil
}

// drop gives up every privilege, for good.
func (r Room) drop() error {
	for c := uintptr(0); ; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if err == unix.EINVAL && c > unix.CAP_LAST_CAP {
			break // one past the last that this kernel knows
		}
		if err != nil && err != unix.EINVAL {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	if err := unix.Setgroups(nil); err != nil {
		return fmt.Errorf("leave groups: %w", err)
	}
	if err := unix.Setresgid(r.UID, r.UID, r.UID); err != nil {
		return fmt.Errorf("become group %d: %w", r.UID, err)
	}
	if err := unix.Setresuid(r.UID, r.UID, r.UID); err != nil {
		return fmt.Errorf("become user %d: %w", r.UID, err)
	}
	// The ambient set goes with the others.
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	return nil
}
