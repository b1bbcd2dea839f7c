package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/initramfs/layout"
	"github.com/ashlar-hv/ashlar/initramfs/power"
)

// Deadlines on the way down.
const (
	guestPatience   = 45 * time.Second // core gives guests 30 s, then ends them
	controlPatience = 5 * time.Second
	unmountPatience = 5 * time.Second
	downLimit       = 75 * time.Second // whatever hangs: the machine goes down after this
)

// ignoreSignals keeps signals from ending PID 1: Go's runtime would do so.
func ignoreSignals() {
	signal.Ignore(unix.SIGHUP, unix.SIGPIPE, unix.SIGQUIT, unix.SIGABRT, unix.SIGALRM, unix.SIGVTALRM,
		unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGSYS, unix.SIGTRAP, unix.SIGXCPU, unix.SIGXFSZ)
}

// watchPower waits for a request to go down: the power button, or a signal.
// SIGUSR1 and SIGUSR2 power off, SIGTERM and SIGINT (Ctrl-Alt-Del) restart, as
// with other small inits.
func (m *machine) watchPower() {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGUSR1, unix.SIGUSR2, unix.SIGTERM, unix.SIGINT)
	buttons := make(chan struct{}, 4)
	m.spawn("power", func() { m.watchButtons(buttons) })
	hurry, inHurry := context.WithCancel(context.Background())
	var once sync.Once
	for {
		restart, why := false, "the power button was pressed"
		select {
		case <-buttons:
		case s := <-signals:
			restart = s == unix.SIGTERM || s == unix.SIGINT
			why = "signal " + unix.SignalName(s.(syscall.Signal))
		}
		first := false
		once.Do(func() {
			first = true
			m.spawn("power", func() { m.goDown(hurry, restart, why) })
		})
		if !first {
			m.log.Printf("power", "%s again: not waiting any longer", why)
			inHurry()
		}
	}
}

// watchButtons opens each input device that has a power button, as they appear.
func (m *machine) watchButtons(pressed chan<- struct{}) {
	var mu sync.Mutex
	open := map[string]bool{}
	wake, stop := m.hub.Listen("input")
	defer stop()
	for {
		mu.Lock()
		for _, name := range power.Buttons("/sys") {
			if open[name] {
				continue
			}
			f, err := os.Open(filepath.Join("/dev/input", name))
			if err != nil {
				continue // its node comes with the next event
			}
			open[name] = true
			m.spawn("power", func() {
				_ = power.Watch(f, func() { pressed <- struct{}{} })
				f.Close()
				mu.Lock()
				defer mu.Unlock()
				delete(open, name)
			})
		}
		mu.Unlock()
		select {
		case <-wake:
		case <-time.After(time.Minute):
		}
	}
}

// goDown stops everything in order and switches the machine off, or restarts it.
func (m *machine) goDown(hurry context.Context, restart bool, why string) {
	what, final := "powering off", power.Off
	if restart {
		what, final = "restarting", power.Restart
	}
	m.log.Printf("power", "%s: stopping guests, then %s", why, what)
	close(m.down)
	done := make(chan struct{})
	m.spawn("power", func() {
		defer close(done)
		m.stopServices(hurry)
		m.releaseData()
	})
	select {
	case <-done:
	case <-time.After(downLimit):
		m.log.Printf("power", "something hangs: going down all the same")
	}
	m.log.Printf("power", "%s after %.1f s of running", what, uptimeSeconds())
	m.log.Close(time.Second)
	err := final()
	// There is no machine without this: the kernel restarts it when init ends.
	fmt.Fprintf(os.Stderr, "init: %v\n", err)
	os.Exit(1)
}

// goingDown reports whether the machine goes down.
func (m *machine) goingDown() bool {
	select {
	case <-m.down:
		return true
	default:
		return false
	}
}

// stopServices has core stop the guests, and then stops control. Both are kept
// from starting again.
func (m *machine) stopServices(hurry context.Context) {
	core, control := m.services()
	if core != nil {
		ctx, cancel := context.WithTimeout(hurry, guestPatience)
		if !core.Stop(ctx) {
			m.log.Printf("power", "guests did not stop in time: ending them")
		}
		m.stopOrphans(ctx)
		cancel()
	}
	if control != nil {
		ctx, cancel := context.WithTimeout(hurry, controlPatience)
		control.Stop(ctx)
		cancel()
	}
	// What core left behind, whole; and whatever else there is.
	_ = os.WriteFile(filepath.Join(layout.GuestCgroup, "cgroup.kill"), []byte("1"), 0)
	_ = syscall.Kill(-1, unix.SIGKILL)
}

// stopOrphans has core stop guests that run although core does not: it had died
// and waited to be started again.
func (m *machine) stopOrphans(ctx context.Context) {
	b, err := os.ReadFile(filepath.Join(layout.GuestCgroup, "cgroup.events"))
	if err != nil || !strings.Contains("\n"+string(b), "\npopulated 1\n") {
		return
	}
	m.log.Printf("power", "guests run without core: starting it to stop them")
	p, err := m.startCoreProgram(layout.CoreStop)
	if err != nil {
		m.log.Printf("power", "start core: %v", err)
		return
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		_ = p.Signal(unix.SIGKILL)
	}
}

// releaseData writes everything to the data disk and lets go of it.
func (m *machine) releaseData() {
	unix.Sync()
	if m.host().DataDevice == "" {
		return
	}
	deadline := time.Now().Add(unmountPatience)
	for {
		err := unix.Unmount(layout.DataDir, 0)
		if err == nil {
			m.log.Printf("power", "data disk unmounted")
			return
		}
		if time.Now().After(deadline) {
			m.log.Printf("power", "unmount the data disk: %v; making it read-only", err)
			if err := unix.Mount("", layout.DataDir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
				m.log.Printf("power", "make the data disk read-only: %v", err)
			}
			return
		}
		time.Sleep(50 * time.Millisecond) // what was killed is still going
	}
}
