package guest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
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
	if err := startAlone(cmd); err != nil {
		return process{}, fmt.Errorf("start VMM: %w", err)
	}
	return process{cmd: cmd}, nil
}

// startAlone starts cmd with a core scheduling cookie of its own, which all threads of it
// inherit, those of vhost too: threads with another one, or none, never run on the other
// threads of a core that one of these is on (the kernel's Documentation/admin-guide/
// hw-vuln/core-scheduling.rst).
func startAlone(cmd *exec.Cmd) error {
	started := make(chan error, 1)
	go func() {
		// Not undone: the thread has the cookie, which it cannot give back, and ends
		// with the goroutine.
		runtime.LockOSThread()
		err := unix.Prctl(unix.PR_SCHED_CORE, unix.PR_SCHED_CORE_CREATE, 0, unix.PR_SCHED_CORE_SCOPE_THREAD, 0)
		if err != nil && !errors.Is(err, unix.ENODEV) { // the host's cores have one thread each
			started <- fmt.Errorf("keep other guests off its cores (CONFIG_SCHED_CORE): %w", err)
			return
		}
		started <- cmd.Start()
	}()
	return <-started
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

// letLock lets process pid, a child, lock as much memory as it likes (RLIMIT_MEMLOCK): its
// guest's is of a pool, and its rings have the kernel pin that, or devices of the host's reach
// it. The jail takes that back, but for what devices that come later need (protocol.Spec's
// LockedMemory).
func letLock(pid int) error {
	limit := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if err := unix.Prlimit(pid, unix.RLIMIT_MEMLOCK, &limit, nil); err != nil {
		return fmt.Errorf("let VMM lock memory: %w", err)
	}
	return nil
}

// sacrifice has the kernel, where the host has no memory left, end process pid before it ends
// a program of the host's (proc_pid_oom_score_adj(5)): a quarter of the memory is on its head.
func sacrifice(pid int) error {
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("250"), 0o600); err != nil {
		return fmt.Errorf("let VMM be ended first: %w", err)
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
