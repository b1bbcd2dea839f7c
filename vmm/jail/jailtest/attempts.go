package jailtest

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Ends of an Attempt.
const (
	// Killed: the filter of system calls ends the process, with SIGSYS.
	Killed = "killed"
	// Refused begins what an Attempt returns for a call that was made and failed.
	Refused = "refused: "
	// Fatal: the Go runtime ends the process (exit status 2), for want of threads.
	Fatal = "exit status 2"
	// Starved: the kernel ends the process at the limit of its control group, which a
	// process that is not in one of its own must not try.
	Starved = "no memory left"
	// Harmless: everything could be done, and nothing came of it that anybody else notices.
	Harmless = "harmless"
)

// An Attempt is what somebody tries who has taken over a VMM, and how it ends. Each
// takes a process of its own: most do not survive it.
type Attempt struct {
	// Name is made of lower-case words, the first of which says what is attacked.
	Name string
	// Want is its end.
	Want string
	do   func() string
}

// Do makes the attempt and returns how it ended, which is not Killed.
func (a Attempt) Do() string {
	runtime.LockOSThread()
	return a.do()
}

// Attempts are all there are.
func Attempts() []Attempt {
	var all []Attempt
	for _, f := range forbidden {
		all = append(all, Attempt{Name: f.name, Want: Killed, do: func() string { return call(f.nr, f.args...) }})
	}
	for _, family := range families {
		all = append(all, Attempt{Name: "socket of family " + family.name, Want: Killed,
			do: func() string { return call(unix.SYS_SOCKET, family.number, unix.SOCK_DGRAM, 0) }})
	}
	return append(all, others...)
}

// Find returns the Attempt of that name.
func Find(name string) (Attempt, error) {
	for _, a := range Attempts() {
		if a.Name == name {
			return a, nil
		}
	}
	return Attempt{}, fmt.Errorf("there is no attempt %q", name)
}

// call makes a system call, of whose arguments those that are missing are 0. None is a
// pointer that means anything: where a filter lets the call pass it fails otherwise.
func call(nr uintptr, args ...uintptr) string {
	var a [6]uintptr
	copy(a[:], args)
	r, _, errno := unix.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
	if errno != 0 {
		return Refused + unix.ErrnoName(errno)
	}
	return fmt.Sprintf("returned %d", r)
}

// others are those that the filter lets begin.
var others = []Attempt{
	{"kill a process by its thread", Refused + "ESRCH", func() string { return call(unix.SYS_TGKILL, 1, 1<<22-1, uintptr(unix.SIGKILL)) }},
	{"exhaust descriptors", Refused + "EMFILE", func() string { return exhaust(unix.SYS_EVENTFD2) }},
	{"exhaust descriptors by socket pairs", Refused + "EMFILE", exhaustPairs},
	{"socket send to a path", Refused + "EISCONN", func() string { return sendTo("/run/ashlar/core/core.sock") }},
	{"socket send to an abstract name", Refused + "EISCONN", func() string { return sendTo("@other") }},
	{"socket accept on what is none", Refused + "ENOTSOCK", func() string { return call(unix.SYS_ACCEPT4, 2) }},
	{"exhaust threads", Fatal, exhaustThreads},
	{"exhaust memory", Starved, exhaustMemory},
	{"abuse every descriptor", Harmless, abuse},
}

// sendTo tries to send to another socket than the one that a pair has at its other end.
func sendTo(name string) string {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err.Error()
	}
	return ended(unix.Sendmsg(fds[0], []byte("{}"), nil, &unix.SockaddrUnix{Name: name}, 0))
}

// ended puts an error of a call as call does.
func ended(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return Refused + unix.ErrnoName(errno)
	}
	return fmt.Sprintf("returned %v", err)
}

// enough is more than a process may have of anything.
const enough = 1 << 16

func exhaust(nr uintptr) string {
	for range enough {
		if s := call(nr); strings.HasPrefix(s, Refused) {
			return s
		}
	}
	return "has all of them"
}

func exhaustThreads() string {
	// One after the other: the runtime's last words tell of every goroutine, and who says too much is killed for it.
	has := make(chan bool)
	for range enough {
		go func() {
			runtime.LockOSThread()
			has <- true
			select {}
		}()
		<-has
	}
	return "has all of them"
}

func exhaustMemory() string {
	var all [][]byte
	for range enough {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		all = append(all, b)
	}
	return fmt.Sprintf("has %d MiB", len(all))
}

func exhaustPairs() string {
	for range enough {
		if _, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return ended(err)
		}
	}
	return "has all of them"
}
