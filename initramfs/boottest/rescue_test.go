package boottest

import (
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A shell is the root shell of a machine in rescue mode.
type shell struct {
	t *testing.T
	c net.Conn
	n int
}

// run runs a line and returns what it printed.
func (s *shell) run(line string) string {
	s.t.Helper()
	s.n++
	// The quotes keep the echo of the line from being taken for the mark.
	mark := "END" + strconv.Itoa(s.n)
	if _, err := s.c.Write([]byte(line + "; echo END''" + strconv.Itoa(s.n) + "\n")); err != nil {
		s.t.Fatal(err)
	}
	var got strings.Builder
	b := make([]byte, 4096)
	s.c.SetReadDeadline(time.Now().Add(30 * time.Second))
	for {
		n, err := s.c.Read(b)
		got.Write(b[:n])
		if text := strings.ReplaceAll(got.String(), "\r", ""); strings.Contains(text, mark+"\n") {
			_, after, _ := strings.Cut(text, "\n") // the echo of the line
			before, _, _ := strings.Cut(after, mark+"\n")
			return strings.TrimPrefix(before, "$ ") // the prompt may come after the echo
		}
		if err != nil {
			s.t.Fatalf("shell: %v after %q", err, got.String())
		}
	}
}

// pid returns the process in a cgroup, once there is one other than not.
func (s *shell) pid(cgroup, not string) string {
	s.t.Helper()
	for range 20 {
		out := strings.Fields(s.run("cat /sys/fs/cgroup/" + cgroup + "/cgroup.procs"))
		if len(out) > 0 && out[0] != not {
			return out[0]
		}
		time.Sleep(500 * time.Millisecond)
	}
	s.t.Fatalf("no process in cgroup %s", cgroup)
	return ""
}

// TestRescue looks inside: it kills core and control, which come back, each by
// itself, and restarts the machine.
func TestRescue(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "shell")
	m := boot(t, "ashlar.config=none ashlar.rescue=ttyS1", join(userNetwork(),
		[]string{"-serial", "unix:" + socket + ",server=on,wait=off"})...)
	m.wait("ASHLAR READY ")
	m.says(true, "A root shell is open on ttyS1")
	m.says(false, "its commands are removed")
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := &shell{t: t, c: c}
	s.run("true") // the shell's first prompt

	core, control := s.pid("core", ""), s.pid("control", "")
	s.checkControl(control)
	for pid, want := range map[string]string{"1": "-900", core: "-900", control: "-900", "self": "0"} {
		if got := strings.TrimSpace(s.run("cat /proc/" + pid + "/oom_score_adj")); got != want {
			t.Errorf("oom_score_adj of process %s is %s, want %s", pid, got, want)
		}
	}
	s.checkDHCP()
	s.run("kill -9 " + core)
	next := s.pid("core", core)
	if got := s.pid("control", ""); got != control {
		t.Errorf("control is process %s after core was killed, was %s", got, control)
	}
	s.run("kill -9 " + control)
	s.pid("control", control)
	if got := s.pid("core", ""); got != next {
		t.Errorf("core is process %s after control was killed, was %s", got, next)
	}
	m.wait("control: killed by signal SIGKILL; starting it again in 100ms")
	m.says(true, "core: killed by signal SIGKILL; starting it again in 100ms")
	for _, line := range strings.Split(s.run("grep State /proc/[0-9]*/status"), "\n") {
		if strings.Contains(line, "zombie") {
			t.Errorf("not reaped: %s", line)
		}
	}
	s.c.Write([]byte("kill -15 1\n"))
	m.end() // -no-reboot makes QEMU end
	m.says(true, "signal SIGTERM: stopping guests, then restarting")
}

// checkControl looks at what control's process is left with.
func (s *shell) checkControl(pid string) {
	s.t.Helper()
	status := s.run("cat /proc/" + pid + "/status")
	for _, want := range []string{
		`Uid:\t900\t900\t900\t900\n`, `Gid:\t900\t900\t900\t900\n`, `Groups:\t ?\n`, `NSpid:\t\d+\t1\n`,
		`CapPrm:\t0+\n`, `CapEff:\t0+\n`, `CapBnd:\t0+\n`, `CapAmb:\t0+\n`, `NoNewPrivs:\t1\n`, `Seccomp:\t2\n`,
	} {
		if !regexp.MustCompile(want).MatchString(status) {
			s.t.Errorf("control's status lacks %s:\n%s", want, status)
		}
	}
	for _, ns := range []string{"mnt", "pid", "net", "ipc", "uts", "cgroup"} {
		own, ours := s.run("readlink /proc/"+pid+"/ns/"+ns), s.run("readlink /proc/1/ns/"+ns)
		if own == ours || !strings.HasPrefix(own, ns+":[") {
			s.t.Errorf("control's %s namespace is %q, the host's %q", ns, own, ours)
		}
	}
	if got := strings.Fields(s.run("ls /proc/" + pid + "/root/.")); len(got) != 3 {
		s.t.Errorf("control's root has %q, want the program and two folders", got)
	}
}

// checkDHCP looks at what the DHCP client's process is left with.
func (s *shell) checkDHCP() {
	s.t.Helper()
	status := s.run("for p in `pidof init`; do cat /proc/$p/status; done")
	for _, want := range []string{
		`Uid:\t901\t901\t901\t901\n`, `CapPrm:\t0000000000002000\n`, // CAP_NET_RAW is 13
	} {
		if !regexp.MustCompile(want).MatchString(status) {
			s.t.Errorf("no process of init has %s:\n%s", want, status)
		}
	}
}
