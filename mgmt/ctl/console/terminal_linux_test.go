package console_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/mgmt/ctl/console"
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
	return m, u
}

// settings are those of a terminal.
func settings(t *testing.T, f *os.File) unix.Termios {
	t.Helper()
	s, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *s
}

func TestTerminal(t *testing.T) {
	h, host := guest(t)
	master, user := openPTY(t)
	if !console.IsTerminal(user) {
		t.Fatal("IsTerminal() = false")
	}
	before := settings(t, user)
	s := &screen{}
	term, err := console.Raw(user, s, func() {})
	if err != nil {
		t.Fatal(err)
	}
	if raw := settings(t, user); raw.Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) != 0 {
		t.Error("the terminal is not raw")
	}
	v := newViewer(host, term)
	v.Input, v.Detach = user, true
	end := view(t, v)
	h.Print("demo", "\x1b[?1049hlogin: ")
	eventually(t, "output", func() bool { return strings.Contains(s.String(), "login: ") })
	if _, err := master.WriteString("root\r\x03"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "input", func() bool { return h.Typed("demo") == "root\r\x03" })
	if _, err := master.WriteString("\x1d"); err != nil {
		t.Fatal(err)
	}
	if err := <-end; !errors.Is(err, console.ErrDetached) {
		t.Errorf("Run() = %v, want ErrDetached", err)
	}
	term.Restore()
	term.Restore()
	if after := settings(t, user); after != before {
		t.Errorf("settings after = %+v, want %+v", after, before)
	}
	if !strings.HasSuffix(s.String(), "\x1b[?1049l\x1b[0m\x1b>") {
		t.Errorf("the screen ends with %q: the alternate screen is not left", s.String())
	}
}

func TestTerminalRestoredOnSignal(t *testing.T) {
	_, user := openPTY(t)
	before := settings(t, user)
	ended := make(chan struct{})
	term, err := console.Raw(user, &screen{}, func() { close(ended) })
	if err != nil {
		t.Fatal(err)
	}
	defer term.Restore()
	if err := unix.Kill(os.Getpid(), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatal("the signal did not end it")
	}
	if after := settings(t, user); after != before {
		t.Errorf("settings after = %+v, want %+v", after, before)
	}
}
