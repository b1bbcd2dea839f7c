//go:build roottest

package guest

import (
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// A panic that leaves the guest running is noted once, also by a core that comes later.
func TestPanicIsNoted(t *testing.T) {
	b := newBench(t)
	guest := b.start(t, 1, "panics")
	if s := b.status(t, guest); !s.Panicked.IsZero() {
		t.Errorf("status = %+v before the panic", s)
	}
	if err := b.NMI(t.Context(), guest); err != nil {
		t.Fatal(err)
	}
	told := func() (n int) {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, s := range b.events {
			if s.State == hostcall.Running && !s.Panicked.IsZero() {
				n++
			}
		}
		return n
	}
	for end := time.Now().Add(time.Minute); told() == 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("nobody was told: %+v", b.status(t, guest))
		}
	}
	if s := b.status(t, guest); s.State != hostcall.Running || s.Panicked.After(time.Now()) || s.Panicked.Before(s.Started) {
		t.Errorf("status = %+v", s)
	}
	if err := b.Pause(t.Context(), guest); err != nil {
		t.Fatal(err)
	}
	if n := told(); n != 1 {
		t.Errorf("told %d times", n)
	}
	b.letGo(t, guest)
	if s := b.status(t, guest); s.State != hostcall.Paused || s.Panicked.IsZero() {
		t.Errorf("status = %+v after core has started again", s)
	}
}

// A guest that its watchdog has ended begins the next run with that knowledge.
func TestWatchdogOfTheRunBefore(t *testing.T) {
	b := newBench(t)
	guest := b.start(t, 1, "starves")
	if err := b.PowerButton(t.Context(), guest); err != nil {
		t.Fatal(err)
	}
	if s := b.wait(t, guest, hostcall.Stopped); s.Reason != string(protocol.WatchdogExpired) {
		t.Fatalf("status = %+v", s)
	}
	b.restart(t)
	if err := b.Start(t.Context(), guest, b.guest("starved before")); err != nil {
		t.Fatal(err)
	}
	if s := b.status(t, guest); s.Before != string(protocol.WatchdogExpired) {
		t.Errorf("status = %+v", s)
	}
	b.letGo(t, guest)
	if s := b.status(t, guest); s.Before != string(protocol.WatchdogExpired) {
		t.Errorf("status = %+v after core has started again", s)
	}
}
