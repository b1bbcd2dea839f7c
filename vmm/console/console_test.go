package console

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type typed struct {
	mu   sync.Mutex
	b    []byte
	room int
}

func (d *typed) Accept(b []byte) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := min(len(b), d.room)
	d.b, d.room = append(d.b, b[:n]...), d.room-n
	return n
}

func TestReplayAndFollow(t *testing.T) {
	h := New(16)
	w := h.Writer(nil)
	fmt.Fprint(w, "forgotten, 0123456789abcdef")
	v, err := h.Attach()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	got := make([]byte, 16)
	if _, err := io.ReadFull(v, got); err != nil || string(got) != "0123456789abcdef" {
		t.Fatalf("replay = %q, %v", got, err)
	}
	fmt.Fprint(w, "more")
	if _, err := io.ReadFull(v, got[:4]); err != nil || string(got[:4]) != "more" {
		t.Fatalf("follow = %q, %v", got[:4], err)
	}
	fmt.Fprint(w, "last")
	h.Close()
	if b, err := io.ReadAll(v); err != nil || string(b) != "last" {
		t.Errorf("at the end = %q, %v", b, err)
	}
	if _, err := h.Attach(); err == nil {
		t.Error("Attach after Close succeeded")
	}
}

func TestSlowViewer(t *testing.T) {
	h := New(1 << 10)
	v, err := h.Attach()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	w := h.Writer(nil)
	start := time.Now()
	line := bytes.Repeat([]byte("x"), 1000)
	for range 4000 {
		w.Write(line)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("4 MB with a viewer that does not read took %v", d)
	}
	fmt.Fprint(w, "the end")
	go h.Close()
	b, err := io.ReadAll(v)
	if err != nil || !bytes.HasSuffix(b, []byte("the end")) || len(b) >= 4000*1000 {
		t.Errorf("slow viewer got %d bytes, %v, want fewer than all and the end", len(b), err)
	}
}

func TestStuckViewer(t *testing.T) {
	h := New(1 << 20)
	v, err := h.Attach()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	h.Writer(nil).Write(make([]byte, 1<<20))
	start := time.Now()
	h.Close()
	if d := time.Since(start); d > 4*drain {
		t.Errorf("Close took %v with a viewer that never reads", d)
	}
}

func TestInput(t *testing.T) {
	h := New(64)
	defer h.Close()
	a, b := &typed{room: 3}, &typed{room: 100}
	h.SetInput(a)
	v, err := h.Attach()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	fmt.Fprint(v, "hello")
	want := func(d *typed, s string) {
		t.Helper()
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
			d.mu.Lock()
			got := string(d.b)
			d.mu.Unlock()
			if got == s {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("typed = %q, want %q", got, s)
			}
		}
	}
	want(a, "hel")
	h.Writer(b).Write([]byte("$ ")) // now this one is typed at
	want(b, "lo")
}

// gone waits until the Hub has let go of all viewers.
func gone(t *testing.T, h *Hub) {
	t.Helper()
	ended := make(chan struct{})
	go func() {
		h.wg.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		h.mu.Lock()
		defer h.mu.Unlock()
		t.Fatalf("%d viewers, want the one that left forgotten", len(h.viewers))
	}
}

// Viewers leave a guest that prints nothing.
func TestLeave(t *testing.T) {
	for _, tt := range []struct {
		name string
		room int // for the input of the viewer
	}{{"with nothing to say", 10}, {"with input that the guest does not take", 1}} {
		t.Run(tt.name, func(t *testing.T) {
			h := New(64)
			defer h.Close()
			h.SetInput(&typed{room: tt.room})
			for range 10 {
				v, err := h.Attach()
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprint(v, "x")
				v.Close()
			}
			gone(t, h)
		})
	}
}

// A viewer that has sent all its input still gets output.
func TestHalfClosed(t *testing.T) {
	h := New(64)
	v, err := h.Attach()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if err := unix.Shutdown(int(v.Fd()), unix.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * look)
	fmt.Fprint(h.Writer(nil), "still here")
	got := make([]byte, 10)
	if _, err := io.ReadFull(v, got); err != nil || string(got) != "still here" {
		t.Errorf("output = %q, %v", got, err)
	}
	h.Close()
}

// A viewer that has left is forgotten.
func TestLeaveWhilePrinting(t *testing.T) {
	h := New(64)
	a := &typed{room: 10}
	h.SetInput(a)
	v, err := h.Attach()
	if err != nil {
		t.Fatal(err)
	}
	v.Close()
	w := h.Writer(nil)
	for range 10 {
		fmt.Fprint(w, "gone")
		time.Sleep(gather)
	}
	h.mu.Lock()
	n := len(h.viewers)
	h.mu.Unlock()
	if n != 0 {
		t.Errorf("%d viewers, want the one that left forgotten", n)
	}
	h.Close()
}

func TestLog(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("before\n"); err != nil {
		t.Fatal(err)
	}
	h := New(64 << 10)
	if err := h.Log(f, 1000); err != nil {
		t.Fatal(err)
	}
	w := h.Writer(nil)
	for i := range 300 {
		fmt.Fprintf(w, "line %d\n", i)
		if i%50 == 0 {
			time.Sleep(3 * gather)
		}
	}
	h.Close()
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > 5096 || !strings.HasSuffix(string(b), "line 298\nline 299\n") || strings.Contains(string(b), "before") {
		t.Errorf("log of %d bytes:\n%s", len(b), b)
	}
}

// A log on a full disk goes on when there is room again.
func TestLogOnFullDisk(t *testing.T) {
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	room, err := os.Create(t.TempDir() + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer room.Close()
	h := New(64)
	if err := h.Log(f, 1000); err != nil {
		t.Fatal(err)
	}
	w := h.Writer(nil)
	fmt.Fprint(w, "lost\n")
	time.Sleep(20 * gather)
	if err := unix.Dup3(int(room.Fd()), int(f.Fd()), unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(w, "kept\n")
	h.Close()
	if b, err := os.ReadFile(room.Name()); err != nil || string(b) != "kept\n" {
		t.Errorf("log = %q, %v", b, err)
	}
}
