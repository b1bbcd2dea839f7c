package guest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"

	"github.com/ashlar-hv/ashlar/drivers/cgroup"
	"github.com/ashlar-hv/ashlar/vmm/jail"
	"golang.org/x/sys/unix"
)

// A process is a VMM's: a child of core's, or one adopted.
type process struct {
	cmd   *exec.Cmd // nil where adopted
	pidfd *os.File  // nil where a child
}

// startVMM starts program as user and group uid in group, with the listening socket and
// the result file as vmm/protocol says. All three files stay the caller's.
func startVMM(program string, uid uint32, group *cgroup.Group, listen, result, messages *os.File) (process, error) {
	dir, err := group.File()
	if err != nil {
		return process{}, fmt.Errorf("start VMM: %w", err)
	}
	defer dir.Close()
	cmd := exec.Command(program)
	cmd.Env = []string{}
	cmd.Dir = "/"
	// A file, not a pipe: writing works on when core is gone.
	cmd.Stdout, cmd.Stderr = messages, messages
	cmd.ExtraFiles = []*os.File{listen, result} // protocol.ListenFD, protocol.ResultFD
	cmd.SysProcAttr = jail.Attributes(uid, uid)
	cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	if err := cmd.Start(); err != nil {
		return process{}, fmt.Errorf("start VMM: %w", err)
	}
	return process{cmd: cmd}, nil
}

// limitFiles bounds the files that process pid, a child, can write: a VMM in the
// guest's hands must not take the pool from the others by way of its disks and
// its log.
func limitFiles(pid int, size int64) error {
	limit := unix.Rlimit{Cur: uint64(size), Max: uint64(size)}
	if err := unix.Prlimit(pid, unix.RLIMIT_FSIZE, &limit, nil); err != nil {
		return fmt.Errorf("limit files of VMM to %d bytes: %w", size, err)
	}
	return nil
}

// adoptProcess returns the process pid if it is the one that began at start.
func adoptProcess(pid int, start uint64) (process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return process{}, fmt.Errorf("adopt process %d: %w", pid, err)
	}
	// From here on the number cannot be another's. Is it the right one?
	p := process{pidfd: os.NewFile(uintptr(fd), fmt.Sprintf("pidfd-%d", pid))}
	began, err := startTime(pid)
	if err == nil && began != start {
		err = fmt.Errorf("adopt process %d: is another one", pid)
	}
	if err != nil {
		p.pidfd.Close()
		return process{}, err
	}
	return p, nil
}

// wait returns when the process has ended.
func (p *process) wait() error {
	if p.cmd != nil {
		err := p.cmd.Wait()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return nil // how it ended is how's business
		}
		return err
	}
	defer p.pidfd.Close()
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return fmt.Errorf("wait for process: %w", err)
	}
	// A pidfd becomes readable when its process has ended (pidfd_open(2)).
	return raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
	})
}

// how says how a child ended, after wait.
func (p *process) how() string {
	if p.cmd == nil || p.cmd.ProcessState == nil {
		return ""
	}
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() && status.Signal() == unix.SIGSYS {
		return "It made a system call that its jail forbids."
	}
	return fmt.Sprintf("It ended with %s.", p.cmd.ProcessState)
}

// listenAt makes the listening socket of a VMM at path.
func listenAt(path string) (*os.File, error) {
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("make control socket: %w", err)
	}
	defer func() { _ = l.Close() }()
	l.SetUnlinkOnClose(false)
	f, err := l.File()
	if err != nil {
		return nil, fmt.Errorf("make control socket: %w", err)
	}
	return f, nil
}
