package jail

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// threadFlags is how the Go runtime makes a thread (runtime/os_linux.go);
// CLONE_THREAD among them means that it is no process.
const threadFlags = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND |
	unix.CLONE_SYSVSEM | unix.CLONE_THREAD | unix.CLONE_SETTLS

// prSetVMA is PR_SET_VMA (linux/prctl.h): names for memory areas.
const prSetVMA = 0x53564d41

// Runtime returns the rules that every Go program needs, this process being it.
func Runtime() []Rule { return RuntimeOf(os.Getpid()) }

// RuntimeOf is Runtime for the process that knows itself as pid.
func RuntimeOf(pid int) []Rule {
	return []Rule{
		Allow(unix.SYS_READ, "files, event descriptors, the runtime's wake-up"),
		Allow(unix.SYS_WRITE, "files, event descriptors, messages on descriptor 2"),
		Allow(unix.SYS_FUTEX, "locks and sleeping threads of the scheduler"),
		Allow(unix.SYS_EPOLL_PWAIT, "network poller"),
		Allow(unix.SYS_EPOLL_CTL, "network poller"),
		Allow(unix.SYS_CLOSE, "closing what is open"),
		Allow(unix.SYS_NANOSLEEP, "scheduler's background thread"),
		Allow(unix.SYS_CLOCK_GETTIME, "time, where the clock cannot be read in user space"),
		Allow(unix.SYS_GETTIMEOFDAY, "time, where the clock cannot be read in user space"),
		Allow(unix.SYS_SCHED_YIELD, "scheduler"),
		Allow(unix.SYS_SCHED_GETAFFINITY, "number of processors, looked at again now and then", Equal(0, 0)),
		Allow(unix.SYS_PREAD64, "cgroup CPU limit, held open by the runtime; disk images"),
		Allow(unix.SYS_MMAP, "heap and stacks, never executable", Masked(2, unix.PROT_EXEC, 0)),
		Allow(unix.SYS_MUNMAP, "heap"),
		Allow(unix.SYS_MADVISE, "giving memory back", Equal(2, unix.MADV_DONTNEED)),
		Allow(unix.SYS_MADVISE, "the runtime's own tables, of a heap over 1 GiB", Equal(2, unix.MADV_HUGEPAGE)),
		Allow(unix.SYS_MADVISE, "the runtime's own tables, where the heap comes to a multiple of 32 GiB", Equal(2, unix.MADV_NOHUGEPAGE)),
		Allow(unix.SYS_PRCTL, "names for memory areas", Equal(0, prSetVMA)),
		Allow(unix.SYS_CLONE, "threads, no processes", Equal(0, threadFlags)),
		Allow(unix.SYS_GETTID, "thread start, signals to threads"),
		Allow(unix.SYS_GETPID, "signals to threads"),
		Allow(unix.SYS_TGKILL, "preempting goroutines of its own", Equal(0, uint64(pid))),
		Allow(unix.SYS_RT_SIGACTION, "signal handlers"),
		Allow(unix.SYS_RT_SIGPROCMASK, "signal masks of threads"),
		Allow(unix.SYS_RT_SIGRETURN, "end of a signal handler"),
		Allow(unix.SYS_SIGALTSTACK, "signal stack of each thread"),
		Allow(unix.SYS_RESTART_SYSCALL, "the kernel's own, after a stop"),
		Allow(unix.SYS_GETRANDOM, "map seeds, random numbers"),
		Allow(unix.SYS_FCNTL, "descriptor flags", Equal(1, unix.F_GETFL)),
		Allow(unix.SYS_FCNTL, "descriptor flags", Equal(1, unix.F_SETFL)),
		Allow(unix.SYS_FCNTL, "close on exec", Equal(1, unix.F_SETFD)),
		Allow(unix.SYS_FCNTL, "second descriptors, as net.FileConn makes", Equal(1, unix.F_DUPFD_CLOEXEC)),
		Allow(unix.SYS_EXIT, "end of a thread"),
		Allow(unix.SYS_EXIT_GROUP, "end of the process"),
	}
}

// Messages returns the rules for talking over connected and listening Unix
// sockets that are open already (vmm/seqpacket), and for accepting on them.
func Messages() []Rule {
	return []Rule{
		Allow(unix.SYS_RECVMSG, "messages with descriptors"),
		Allow(unix.SYS_SENDMSG, "messages with descriptors"),
		Allow(unix.SYS_ACCEPT4, "the next connection on a socket that listens"),
	}
}

// Connections returns the rules for making connections of sockets that are open already
// (net.FileConn), or that other rules let be made, besides Messages.
func Connections() []Rule {
	return []Rule{
		Allow(unix.SYS_GETSOCKNAME, "net.FileConn, accept"),
		Allow(unix.SYS_GETPEERNAME, "net.FileConn"),
		Allow(unix.SYS_GETSOCKOPT, "kind of a socket, what has become of it"),
		Allow(unix.SYS_SHUTDOWN, "end of one direction"),
	}
}

// Files returns the rules for work on regular files that are open already.
func Files() []Rule {
	return []Rule{
		Allow(unix.SYS_PWRITE64, "images, the store"),
		Allow(unix.SYS_FSTAT, "size and kind of an open file"),
		Allow(unix.SYS_FSYNC, "the store, when it has grown"),
		Allow(unix.SYS_FDATASYNC, "images, the store"),
		Allow(unix.SYS_FTRUNCATE, "the store grows"),
		Allow(unix.SYS_FALLOCATE, "holes of images, which keep their size", Equal(1, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE)),
	}
}

// NoPaths returns rules that let every attempt to open a path fail with
// ENOENT instead of killing: for programs with libraries that look for
// configuration files and can live without.
func NoPaths() []Rule {
	const reason = "a library looks for a file that does not exist in here"
	return []Rule{
		Refuse(unix.SYS_OPENAT, syscall.ENOENT, reason),
		Refuse(unix.SYS_READLINKAT, syscall.ENOENT, reason),
		Refuse(unix.SYS_FACCESSAT, syscall.ENOENT, reason),
		Refuse(unix.SYS_FACCESSAT2, syscall.ENOENT, reason),
		Refuse(unix.SYS_STATX, syscall.ENOENT, reason),
		Refuse(unix.SYS_NEWFSTATAT, syscall.ENOENT, reason),
	}
}
