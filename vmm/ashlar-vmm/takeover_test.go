package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/internal/tinykernel"
	"github.com/ashlar-hv/ashlar/vmm/jail/jailtest"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// takenOver is the argument of this program where it is a VMM that somebody takes over once
// it is in its jail and the guest runs.
const takenOver = "taken-over"

// takenOverMain does what such a VMM does, where this process is one.
func takenOverMain() {
	if len(os.Args) != 3 || os.Args[1] != takenOver {
		return
	}
	a, err := jailtest.Find(os.Args[2])
	if err == nil {
		var s *server
		if s, err = newServer(); err == nil {
			_, err = s.configured()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for end := a.Do(); ; time.Sleep(10 * time.Millisecond) {
		// The pipe may be full, and wait for nobody, after what was done to it.
		if _, err := fmt.Fprintf(os.Stderr, "\nend: %s\n", end); err == nil {
			os.Exit(0)
		}
	}
}

// attempt has a VMM be taken over, and returns how that ended.
func attempt(t *testing.T, name string, edit func(*protocol.Spec)) (string, *vmm) {
	t.Helper()
	v := startProgram(t, "/proc/self/exe", takenOver, name)
	v.connect()
	if err := v.configure(tinykernel.Code{}.Spin(), edit); err != nil {
		t.Fatal(err)
	}
	err := v.cmd.Wait()
	if _, end, ok := strings.Cut(v.stderr.String(), "\nend: "); ok {
		end, _, _ = strings.Cut(end, "\n")
		return end, v
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == unix.SIGSYS {
		return jailtest.Killed, v
	}
	return fmt.Sprint(err), v
}

// TestTakenOver is the table of what somebody tries who has taken over a VMM, with all
// that the largest jail allows, and how each attempt ends.
func TestTakenOver(t *testing.T) {
	seen := make(map[string]bool)
	for _, a := range jailtest.Attempts() {
		if a.Want == jailtest.Starved {
			continue // in a control group: TestTakenOver of mgmt/core/guest
		}
		if seen[a.Name] {
			t.Errorf("%s stands there twice", a.Name)
		}
		seen[a.Name] = true
		t.Run(a.Name, func(t *testing.T) {
			if got, _ := attempt(t, a.Name, func(s *protocol.Spec) { s.HotplugSlots = 1 }); got != a.Want {
				t.Errorf("ends with %q, want %q", got, a.Want)
			}
		})
	}
}
