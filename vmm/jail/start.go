package jail

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Namespaces are those that a process in a jail has of its own.
const Namespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET |
	unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWTIME

// Attributes are what a process that is to Enter a jail, or to build a room of its
// own, is started with: user uid and group gid and no others (user_namespaces(7)),
// and namespaces that belong to that user. It is no root of the host's for a
// moment: what capabilities it has, until it gives them up, are good for its own
// namespaces alone. Its program has to be readable by everybody.
func Attributes(uid, gid uint32) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Setsid:      true, // no signal to the group of whoever started it reaches it
		Cloneflags:  Namespaces,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: int(uid), HostID: int(uid), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: int(gid), HostID: int(gid), Size: 1}},
		// Else the groups of whoever started it could not be left.
		GidMappingsEnableSetgroups: true,
		Credential:                 &syscall.Credential{Uid: uid, Gid: gid},
		AmbientCaps: []uintptr{
			unix.CAP_SYS_ADMIN,  // mounts, and the empty root
			unix.CAP_SYS_CHROOT, // the empty root where the old one cannot be pivoted away
			unix.CAP_SETPCAP,    // the bounding set and the secure bits
			unix.CAP_SETGID,     // no groups besides
		},
	}
}
