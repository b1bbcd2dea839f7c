package process

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// The test binary is also the program that is started.
func TestMain(m *testing.M) {
	switch os.Getenv("PROCESS_TEST") {
	case "":
		os.Exit(m.Run())
	case "exit":
		n, _ := strconv.Atoi(os.Args[1])
		os.Exit(n)
	case "sleep":
		time.Sleep(time.Minute)
	case "stubborn":
		signal.Ignore(unix.SIGTERM)
		fmt.Println("ready")
		time.Sleep(time.Minute)
	case "orphan":
		syscall.ForkExec(os.Args[0], []string{"x", "0"}, &syscall.ProcAttr{Env: []string{"PROCESS_TEST=exit"}})
	}
}

var reaper = sync.OnceValue(NewReaper)

func start(t *testing.T, mode string, stdout uintptr, args ...string) *Process {
	t.Helper()
	p, err := reaper().Start("/proc/self/exe", append([]string{os.Args[0]}, args...), &syscall.ProcAttr{
		Env: []string{"PROCESS_TEST=" + mode}, Files: []uintptr{0, stdout, 2},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Signal(syscall.SIGKILL); <-p.Done() })
	return p
}

func TestEnd(t *testing.T) {
	if got, want := start(t, "exit", 1, "7").End(), "exit status 7"; got != want {
		t.Errorf("End = %q, want %q", got, want)
	}
	p := start(t, "sleep", 1)
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got, want := p.End(), "killed by signal SIGKILL"; got != want {
		t.Errorf("End = %q, want %q", got, want)
	}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Errorf("Signal after the end = %v, want nil", err)
	}
}

func TestManyAtOnce(t *testing.T) {
	var all []*Process
	for i := range 20 {
		all = append(all, start(t, "exit", 1, strconv.Itoa(i)))
	}
	for i, p := range all {
		if got, want := p.End(), fmt.Sprintf("exit status %d", i); got != want {
			t.Errorf("End = %q, want %q", got, want)
		}
	}
}

func TestStartOfWhatIsNotThere(t *testing.T) {
	_, err := reaper().Start("/nonexistent", []string{"x"}, &syscall.ProcAttr{})
	if err == nil || !strings.Contains(err.Error(), "start /nonexistent: no such file") {
		t.Errorf("Start = %v", err)
	}
}

// TestOrphansAreReaped makes this process the reaper of its descendants, as
// PID 1 is, and looks for zombies.
func TestOrphansAreReaped(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	start(t, "orphan", 1).End()
	deadline := time.Now().Add(10 * time.Second)
	for {
		b, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid()))
		if err != nil {
			t.Fatal(err)
		}
		if len(strings.Fields(string(b))) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("children %s are left", b)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestBackoff(t *testing.T) {
	b := Backoff{First: 100 * time.Millisecond, Limit: time.Second, Reset: 30 * time.Second}
	var got []string
	for _, up := range []time.Duration{0, 0, 0, time.Second, 0, 0, 31 * time.Second, 0} {
		got = append(got, b.Next(up).String())
	}
	want := []string{"100ms", "200ms", "400ms", "800ms", "1s", "1s", "100ms", "200ms"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestServiceRestartsAndStops(t *testing.T) {
	started := make(chan *Process, 10)
	var messages []string
	s := &Service{
		Name: "demo",
		Start: func() (*Process, error) {
			p := start(t, "sleep", 1)
			started <- p
			return p, nil
		},
		Report:  func(m string) { messages = append(messages, m) },
		Backoff: Backoff{First: time.Millisecond, Limit: time.Millisecond},
	}
	ended := make(chan struct{})
	go func() { s.Run(); close(ended) }()
	first := <-started
	first.Signal(syscall.SIGKILL)
	second := <-started
	if first.PID == second.PID {
		t.Error("the program was not started again")
	}
	if !s.Stop(context.Background()) {
		t.Error("Stop = false for a program that heeds SIGTERM")
	}
	<-ended
	if diff := cmp.Diff([]string{"demo: killed by signal SIGKILL; starting it again in 1ms"}, messages); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}

func TestServiceStopKillsTheStubborn(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s := &Service{
		Name:   "demo",
		Start:  func() (*Process, error) { return start(t, "stubborn", w.Fd()), nil },
		Report: func(string) {},
	}
	ended := make(chan struct{})
	go func() { s.Run(); close(ended) }()
	r.Read(make([]byte, 16)) // it ignores SIGTERM by now
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if s.Stop(ctx) {
		t.Error("Stop = true for a program that ignores SIGTERM")
	}
	<-ended
}
