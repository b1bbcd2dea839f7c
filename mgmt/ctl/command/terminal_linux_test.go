package command

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openPTY makes a pair of pseudo-terminals, as pty(7) tells.
func openPTY(t *testing.T) (master, user *os.File) {
	t.Helper()
	m, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatalf("a pseudo-terminal is needed: %v", err)
	}
	t.Cleanup(func() { m.Close() })
	if err := unix.IoctlSetPointerInt(int(m.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(m.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	u, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	if err := unix.IoctlSetWinsize(int(u.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 25, Col: 160}); err != nil {
		t.Fatal(err)
	}
	return m, u
}

// TestConsoleOnTerminal attaches as a person does.
func TestConsoleOnTerminal(t *testing.T) {
	r := newRun(t)
	r.host.AddImage("kernel", 1)
	if code, _, errs := r.do(t.Context(), "vm", "create", "demo", "--kernel", "kernel", "--start"); code != 0 {
		t.Fatal(errs)
	}
	r.host.Print("demo", "login: ")
	master, user := openPTY(t)
	before, err := unix.IoctlGetTermios(int(user.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var out, errs screen
	done := make(chan int, 1)
	go func() {
		done <- Run(ctx, []string{"vm", "console", "demo"}, IO{In: user, Out: &out, Err: &errs, Getenv: func(k string) string { return r.env[k] }})
	}()
	eventually(t, "the prompt", func() bool { return strings.Contains(out.String(), "login: ") })
	if _, err := master.WriteString("root\r"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "input", func() bool { return r.host.Typed("demo") == "root\r" })
	if _, err := master.WriteString("\x1d"); err != nil {
		t.Fatal(err)
	}
	if code := <-done; code != 0 {
		t.Errorf("vm console = %d, want 0 after Ctrl-]", code)
	}
	for _, want := range []string{"Ctrl-] detaches", "goes on running", "ashlarctl vm console demo", "ashlarctl vm stop demo"} {
		if !strings.Contains(errs.String(), want) {
			t.Errorf("%q is not said:\n%s", want, errs.String())
		}
	}
	after, err := unix.IoctlGetTermios(int(user.Fd()), unix.TCGETS)
	if err != nil || *after != *before {
		t.Errorf("the terminal is not as it was: %+v, %v, want %+v", after, err, before)
	}
}

// TestProgressOnTerminal shows bars and progress lines where there is a
// terminal.
func TestProgressOnTerminal(t *testing.T) {
	r := newRun(t)
	master, user := openPTY(t)
	var seen screen
	copied := make(chan struct{})
	go func() { // ends when the last user closes
		defer close(copied)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			if err != nil {
				return
			}
			seen.Write(buf[:n])
		}
	}()
	run := func(args ...string) {
		t.Helper()
		var out screen
		if code := Run(t.Context(), args, IO{In: r.in, Out: &out, Err: user, Getenv: func(k string) string { return r.env[k] }}); code != 0 {
			t.Errorf("ashlarctl %s = %d", strings.Join(args, " "), code)
		}
	}
	run("image", "upload", r.tmp+"/Kernel_1.IMG")
	run("vm", "create", "demo", "--kernel", "kernel-1", "--start")
	user.Close()
	<-copied
	for _, want := range []string{"uploading kernel-1", "start it: 0% under way"} {
		if !strings.Contains(seen.String(), want) {
			t.Errorf("%q is not shown: %q", want, seen.String())
		}
	}
}
