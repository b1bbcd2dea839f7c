//go:build roottest

// These tests need root: package roottest runs them. CGO_ENABLED=0, as for all
// programs that enter a jail.

package jail

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const caseVariable = "ASHLAR_JAIL_TEST"

// A roomCase runs inside the room, in a process of its own. With LogOnly the
// filter lets everything pass, which shows that the walls hold without it.
type roomCase struct {
	run     func() error
	logOnly bool
	confine bool // Confine instead of Enter
	// killed: the system call filter must end the process.
	killed bool
	filter Filter
}

var roomCases = map[string]roomCase{
	"goroutines, threads, timers": {run: busy, filter: Filter{Rules: pipes}},
	"identity":                    {run: identity, logOnly: true},
	"all threads confined":        {run: threadsConfined, logOnly: true},
	"no path opens": {logOnly: true, run: func() error {
		for _, p := range []string{"/etc/passwd", "/proc/self/status", "/dev/null", "/dev/kvm", "/new"} {
			if f, err := os.OpenFile(p, os.O_RDWR|os.O_CREATE, 0o600); err == nil {
				return fmt.Errorf("opened %s", f.Name())
			}
		}
		if d, err := os.ReadDir("/"); err == nil && len(d) > 0 {
			return fmt.Errorf("root has %v", d)
		}
		if _, err := os.Open("../../../../etc/passwd"); err == nil {
			return errors.New("left the root")
		}
		return nil
	}},
	"no mount, chroot, namespace, user": {logOnly: true, run: func() error {
		return allFail(map[string]error{
			"mount":     unix.Mount("none", "/", "tmpfs", 0, ""),
			"chroot":    unix.Chroot("/"),
			"unshare":   unix.Unshare(unix.CLONE_NEWNET),
			"setuid":    syscall.Setuid(0),
			"setgroups": syscall.Setgroups([]int{0}),
			"sethost":   unix.Sethostname([]byte("x")),
			"nofile":    unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1 << 20, Max: 1 << 20}),
		})
	}},
	"no network": {logOnly: true, run: func() error {
		if c, err := net.DialTimeout("tcp", "127.0.0.1:80", time.Second); err == nil {
			c.Close()
			return errors.New("connected")
		}
		if fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0); err == nil {
			return fmt.Errorf("raw socket %d", fd)
		}
		return nil
	}},
	"limits": {logOnly: true, run: func() error {
		for range defaultFiles + 1 {
			if _, _, err := os.Pipe(); err != nil {
				return nil
			}
		}
		return errors.New("no bound on descriptors")
	}},
	"confined by somebody else": {confine: true, run: busy, filter: Filter{Rules: pipes}},
	"path allowed": {
		confine: true, logOnly: true, filter: Filter{Paths: []Path{{Name: os.TempDir(), Write: true}}},
		run: func() error {
			if _, err := os.Open("/etc/passwd"); err == nil {
				return errors.New("opened another path")
			}
			f, err := os.CreateTemp("", "jail")
			if err != nil {
				return err
			}
			return os.Remove(f.Name())
		},
	},
	"refused call returns its errno": {
		filter: Filter{Rules: NoPaths()},
		run: func() error {
			if _, err := os.Open("/x"); !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("open: %w, want ENOENT", err)
			}
			return nil
		},
	},
	"local time": {run: func() error {
		_ = time.Now().String()
		return nil
	}},
	"killed by open":   {killed: true, run: func() error { _, err := os.Open("/x"); return err }},
	"killed by socket": {killed: true, run: func() error { _, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0); return err }},
	"killed by ptrace": {killed: true, run: func() error { return unix.PtraceAttach(1) }},
	"killed by fork": {killed: true, run: func() error {
		_, _, errno := unix.RawSyscall(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0)
		return errno
	}},
	"killed by exec":  {killed: true, run: func() error { return unix.Exec("/x", nil, nil) }},
	"killed by mount": {killed: true, run: func() error { return unix.Mount("none", "/", "tmpfs", 0, "") }},
	"killed by ioctl": {killed: true, run: func() error { _, err := unix.IoctlGetInt(1, unix.TIOCINQ); return err }},
	"killed by executable memory": {killed: true, run: func() error {
		_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
		return err
	}},
	"killed in another thread": {killed: true, run: func() error {
		done := make(chan error)
		go func() {
			runtime.LockOSThread()
			_, err := os.Open("/x")
			done <- err
		}()
		return <-done
	}},
	"ioctl with the allowed request": {
		filter: Filter{Rules: append([]Rule{
			Allow(unix.SYS_IOCTL, "test", Equal(1, unix.TIOCGWINSZ)),
			Allow(unix.SYS_IOCTL, "test", Equal(1, unix.TIOCINQ)),
		}, pipes...)},
		run: func() error {
			r, _, err := os.Pipe()
			if err != nil {
				return err
			}
			_, err = unix.IoctlGetInt(int(r.Fd()), unix.TIOCINQ)
			return err
		},
	},
}

func TestMain(m *testing.M) {
	if name := os.Getenv(caseVariable); name != "" {
		os.Exit(inside(name))
	}
	os.Exit(m.Run())
}

// inside runs a case in the started process.
func inside(name string) int {
	c := roomCases[name]
	c.filter.LogOnly = c.logOnly
	// Some threads that exist already have to come along.
	var started sync.WaitGroup
	for range 4 {
		started.Add(1)
		go func() {
			runtime.LockOSThread()
			started.Done()
			select {}
		}()
	}
	started.Wait()
	err := error(nil)
	if c.confine {
		err = Confine(c.filter)
	} else {
		err = Enter(Config{UID: 54321, GID: 54322, Filter: c.filter})
	}
	if err == nil {
		err = c.run()
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("inside: done")
	return 0
}

func TestRoom(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("needs root: namespaces and changing the user are made by core as root")
	}
	for name, c := range roomCases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), caseVariable+"="+name)
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			cmd.SysProcAttr = Attributes(54321, 54322)
			err := cmd.Run()
			var exit *exec.ExitError
			if c.killed {
				if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGSYS {
					t.Fatalf("ended with %v, want killed by SIGSYS; output:\n%s", err, out.String())
				}
				return
			}
			if err != nil || !strings.HasSuffix(out.String(), "inside: done\n") {
				t.Fatalf("ended with %v; output:\n%s", err, out.String())
			}
		})
	}
}

// pipes are for who first uses the network poller in the room, and what it polls here.
var pipes = []Rule{Allow(unix.SYS_EVENTFD2, "network poller's wake-up"), Allow(unix.SYS_EPOLL_CREATE1, "network poller, at its first use"), Allow(unix.SYS_PIPE2, "os.Pipe")}

// busy uses what a Go program uses: goroutines, threads, timers, pipes,
// collections.
func busy() error {
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			if i%2 == 0 {
				runtime.LockOSThread() // ends its thread
			}
			b := make([]byte, 1<<20)
			for j := range b {
				b[j] = byte(j)
			}
			time.Sleep(time.Millisecond)
		})
	}
	wg.Wait()
	runtime.GC()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	go func() { time.Sleep(5 * time.Millisecond); w.Write([]byte("x")); w.Close() }()
	if _, err := r.Read(make([]byte, 1)); err != nil {
		return err
	}
	return r.Close()
}

func identity() error {
	r, e, s := unix.Getresuid()
	gr, ge, gs := unix.Getresgid()
	if r != 54321 || e != 54321 || s != 54321 || gr != 54322 || ge != 54322 || gs != 54322 {
		return fmt.Errorf("user %d %d %d, group %d %d %d", r, e, s, gr, ge, gs)
	}
	if g, err := unix.Getgroups(); err != nil || len(g) != 0 {
		return fmt.Errorf("groups %v, %w", g, err)
	}
	if d, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || d != 0 {
		return fmt.Errorf("dumpable %d, %w", d, err)
	}
	return nil
}

// threadsConfined looks at threads old and new.
func threadsConfined() error {
	errs := make(chan error)
	for range 16 {
		go func() {
			runtime.LockOSThread()
			errs <- threadConfined()
		}()
	}
	for range 16 {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}

func threadConfined() error {
	if n, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err != nil || n != 1 {
		return fmt.Errorf("no_new_privs %d, %w", n, err)
	}
	if n, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0); err != nil || n != 2 {
		return fmt.Errorf("seccomp mode %d, %w", n, err)
	}
	for c := range unix.CAP_LAST_CAP + 1 {
		if n, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0); err != nil || n != 0 {
			return fmt.Errorf("capability %d in the bounding set: %d, %w", c, n, err)
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	if data != [2]unix.CapUserData{} {
		return fmt.Errorf("capabilities %+v", data)
	}
	return nil
}

// allFail reports the calls that did not fail.
func allFail(calls map[string]error) error {
	var errs []error
	for name, err := range calls {
		if err == nil {
			errs = append(errs, fmt.Errorf("%s worked", name))
		}
	}
	return errors.Join(errs...)
}
