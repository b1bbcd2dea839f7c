// Package jail makes the empty room that an Ashlar process works in: no path to
// open, no privilege to use, no system call beyond a written list.
//
// It follows namespaces(7), pivot_root(2), capabilities(7), landlock(7) and
// seccomp(2). Whoever starts the process makes its namespaces (Attributes);
// Enter does the rest from inside. Confine is its second half alone, for a
// process whose room was made by somebody else.
//
// Both act on every thread of the process, which Go can do only without cgo.
//
// # After Enter
//
// What still works: every descriptor that was open, goroutines and new
// threads, memory (never executable), timers, clocks (UTC: there is no
// /etc/localtime), event descriptors, the network poller where it has been used
// before, and what the Rules of the Config allow. Everything else kills the process: opening any path, sockets,
// new processes, other uses of ioctl. Whatever opens something lazily (a log
// file, a device) has to be opened before.
package jail

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	defaultFiles   = 1024
	defaultThreads = 256
)

// A Config says what a process becomes.
type Config struct {
	// UID and GID are the user and group it runs as, never 0.
	UID, GID uint32
	// Files bounds its descriptors (RLIMIT_NOFILE); 0 means 1024.
	Files uint64
	// Threads bounds the threads of its user (RLIMIT_NPROC); 0 means 256.
	Threads uint64
	// Locked bounds the bytes that devices and it may pin (RLIMIT_MEMLOCK); usually 0.
	Locked uint64
	// Filter says which system calls and paths are left.
	Filter Filter
}

// A Filter says which system calls and paths a process is left with.
type Filter struct {
	// Rules are allowed besides those of the Go runtime (Runtime).
	Rules []Rule
	// Paths may be opened, with all that lies below them; none by default.
	Paths []Path
	// LogOnly lets every system call pass and writes those that would have
	// killed the process to the kernel's audit log: for finding out what a
	// program needs, never for a host.
	LogOnly bool
	// Trace has calls of the rules for which it is true stop for the process's tracer
	// (ptrace(2), PTRACE_O_TRACESECCOMP), which is told 1 and the place of the rule, the
	// Runtime's being first. For tests: without a tracer such a call fails.
	Trace func(Rule) bool
}

// A Path is a place in the file system that stays within reach (Landlock).
type Path struct {
	Name string
	// Write allows to create, change and remove files below it.
	Write bool
}

// Enter puts the calling process into an empty room. The process must have
// been started with the Attributes of c's user and group. The steps, in this order:
// an empty read-only root, resource limits, no capabilities (bounding set
// included), the user and group of c, then Confine.
//
// An error means that the process is in some state between: it must exit.
func Enter(c Config) error {
	if c.UID == 0 || c.GID == 0 {
		return errors.New("enter jail: uid and gid must not be 0")
	}
	if err := emptyRoot(); err != nil {
		return fmt.Errorf("enter jail: %w", err)
	}
	if err := limit(c); err != nil {
		return fmt.Errorf("enter jail: %w", err)
	}
	if err := dropPrivilege(c.UID, c.GID); err != nil {
		return fmt.Errorf("enter jail: %w", err)
	}
	if err := Confine(c.Filter); err != nil {
		return fmt.Errorf("enter jail: %w", err)
	}
	return nil
}

// Confine takes away what a process without privilege has left: gaining any
// (no_new_privs), being traced or dumped, paths outside f.Paths (Landlock) and
// system calls outside f.Rules (seccomp). It holds for all threads.
func Confine(f Filter) error {
	rules := append(Runtime(), f.Rules...)
	for i := range rules {
		if f.Trace != nil && f.Trace(rules[i]) {
			rules[i].trace = uint16(i + 1)
		}
	}
	prog, err := assemble(rules, f.LogOnly)
	if err != nil {
		return fmt.Errorf("confine: %w", err)
	}
	// The first use of local time reads /etc/localtime. Let that happen now:
	// afterwards a log line with a time would be the end of the process.
	_, _ = time.Now().Zone()
	if err := allThreads("set no_new_privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); err != nil {
		return fmt.Errorf("confine: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("confine: set not dumpable: %w", err)
	}
	if err := restrictPaths(f.Paths); err != nil {
		return fmt.Errorf("confine: %w", err)
	}
	if err := installFilter(prog); err != nil {
		return fmt.Errorf("confine: %w", err)
	}
	return nil
}

// limit sets the resource limits, soft and hard.
func limit(c Config) error {
	files, threads := c.Files, c.Threads
	if files == 0 {
		files = defaultFiles
	}
	if threads == 0 {
		threads = defaultThreads
	}
	for _, l := range []struct {
		name     string
		resource int
		value    uint64
	}{
		{"RLIMIT_NOFILE", unix.RLIMIT_NOFILE, files},
		{"RLIMIT_NPROC", unix.RLIMIT_NPROC, threads},
		{"RLIMIT_CORE", unix.RLIMIT_CORE, 0},
		{"RLIMIT_MEMLOCK", unix.RLIMIT_MEMLOCK, c.Locked},
		{"RLIMIT_MSGQUEUE", unix.RLIMIT_MSGQUEUE, 0},
		{"RLIMIT_RTPRIO", unix.RLIMIT_RTPRIO, 0},
		{"RLIMIT_NICE", unix.RLIMIT_NICE, 0},
	} {
		if err := unix.Setrlimit(l.resource, &unix.Rlimit{Cur: l.value, Max: l.value}); err != nil {
			return fmt.Errorf("set %s to %d: %w", l.name, l.value, err)
		}
	}
	return nil
}

// allThreads makes a system call in every thread of the process.
func allThreads(what string, trap, a1, a2, a3 uintptr) error {
	_, _, errno := syscall.AllThreadsSyscall(trap, a1, a2, a3)
	if errno == syscall.ENOTSUP {
		return fmt.Errorf("%s: %w: build with CGO_ENABLED=0, which changing all threads needs", what, errno)
	}
	if errno != 0 {
		return fmt.Errorf("%s: %w", what, errno)
	}
	return nil
}
