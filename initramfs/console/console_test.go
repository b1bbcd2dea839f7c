package console

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestPrintfReachesConsolesAndKernel(t *testing.T) {
	var kmsg, one, two buffer
	l := New(&kmsg, &one, &two)
	l.Printf("network", "eth0 has %s", "10.0.2.15/24")
	l.Close(time.Second)
	if got, want := kmsg.String(), "<6>ashlar: network: eth0 has 10.0.2.15/24\n"; got != want {
		t.Errorf("kmsg = %q, want %q", got, want)
	}
	for _, c := range []*buffer{&one, &two} {
		if got := c.String(); !strings.HasPrefix(got, "[") || !strings.HasSuffix(got, "] network: eth0 has 10.0.2.15/24\r\n") {
			t.Errorf("console = %q", got)
		}
	}
}

func TestAfterClose(t *testing.T) {
	var kmsg, screen buffer
	l := New(&kmsg, &screen)
	for range 2 {
		l.Close(time.Second)
		l.Printf("x", "late")
	}
	if screen.String() != "" || strings.Count(kmsg.String(), "late") != 2 {
		t.Errorf("console = %q, kmsg = %q", screen.String(), kmsg.String())
	}
}

func TestTerminalCodesAreTakenOut(t *testing.T) {
	var kmsg, screen buffer
	l := New(&kmsg, &screen)
	l.Printf("x", "a\x1b[2Jb\u009bc\nd")
	l.Close(time.Second)
	if got, want := kmsg.String(), "<6>ashlar: x: a?[2Jb?c?d\n"; got != want {
		t.Errorf("kmsg = %q, want %q", got, want)
	}
	if strings.ContainsAny(screen.String(), "\x1b\u009b") {
		t.Errorf("console = %q holds terminal codes", screen.String())
	}
}

type stuck struct{ release chan struct{} }

func (s stuck) Write(p []byte) (int, error) { <-s.release; return len(p), nil }

func TestStuckConsoleDoesNotBlock(t *testing.T) {
	s := stuck{make(chan struct{})}
	defer close(s.release)
	l := New(&buffer{}, s)
	done := make(chan struct{})
	go func() {
		for i := range 2 * queueLength {
			l.Printf("x", "%d", i)
		}
		l.Close(10 * time.Millisecond)
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("a console that does not drain blocks the log")
	}
}

func TestActive(t *testing.T) {
	file := filepath.Join(t.TempDir(), "active")
	if diff := cmp.Diff([]string{"console"}, active(file)); diff != "" {
		t.Errorf("without the file (-want +got):\n%s", diff)
	}
	if err := os.WriteFile(file, []byte("tty0 ttyS0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"tty0", "ttyS0"}, active(file)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRelayBoundsWhatAProgramSays(t *testing.T) {
	var kmsg buffer
	l := New(&kmsg)
	var in strings.Builder
	for i := range 5 * burst {
		fmt.Fprintf(&in, "line %d\n", i)
	}
	in.WriteString(strings.Repeat("y", 10*maxLine))
	l.Relay("prog: ", strings.NewReader(in.String()))
	lines := strings.Count(kmsg.String(), "\n")
	if lines < burst || lines > burst+20 {
		t.Errorf("%d lines passed, want about %d", lines, burst)
	}
	if !strings.HasPrefix(kmsg.String(), "<6>prog: line 0\n") {
		t.Errorf("kmsg starts with %.40q", kmsg.String())
	}
}

func TestBucket(t *testing.T) {
	now := time.Unix(1000, 0)
	b := bucket{tokens: 1, last: now}
	if ok, _ := b.take(now); !ok {
		t.Error("the first line is refused")
	}
	for range 3 {
		if ok, _ := b.take(now); ok {
			t.Error("a line passes an empty bucket")
		}
	}
	if ok, lost := b.take(now.Add(refill)); !ok || lost != 3 {
		t.Errorf("take after a refill = %v, %d, want true, 3", ok, lost)
	}
}
