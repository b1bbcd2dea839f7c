//go:build roottest

package room

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// probe tells, from inside of a room, what it sees.
func probe() {
	seen := map[string]any{"args": os.Args, "env": os.Environ(), "pid": os.Getpid(), "uid": os.Getuid(), "gid": os.Getgid()}
	groups, _ := os.Getgroups()
	seen["groups"] = len(groups)
	var files []string
	filepath.WalkDir("/", func(path string, _ os.DirEntry, _ error) error {
		files = append(files, path)
		return nil
	})
	seen["files"] = files
	for name, path := range map[string]string{"root": "/x", "ro": "/core/x", "state": "/state/x"} {
		seen["write "+name] = os.WriteFile(path, nil, 0o600) == nil
	}
	seen["fds"] = openFiles()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	unix.Capget(&header, &caps[0])
	seen["caps"] = fmt.Sprint(caps)
	bounding := 0
	for c := range unix.CAP_LAST_CAP + 1 {
		if has, _ := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0); has == 1 {
			bounding++
		}
	}
	seen["bounding"] = bounding
	seen["nnp"], _ = unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	interfaces, _ := net.Interfaces()
	seen["interfaces"] = len(interfaces)
	json.NewEncoder(os.Stdout).Encode(seen)
}

// openFiles lists the descriptors that were handed over.
func openFiles() []int {
	var list []int
	for fd := range 64 {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 {
			list = append(list, fd)
		}
	}
	return list
}
