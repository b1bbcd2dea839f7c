//go:build roottest

package guest

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// told are the states of a guest that the manager has told of, in order.
func (b *bench) told(id string) []hostcall.GuestState {
	b.mu.Lock()
	defer b.mu.Unlock()
	var states []hostcall.GuestState
	for _, s := range b.events {
		if s.ID == id && (len(states) == 0 || states[len(states)-1] != s.State) {
			states = append(states, s.State)
		}
	}
	return states
}

// letGo is the end of a core: it lets go of a VMM, and touches nothing more.
func (b *bench) letGo(t *testing.T, guest string) {
	t.Helper()
	b.Manager.mu.Lock()
	b.Manager.closed = true // a VMM talks to one core at a time
	b.Manager.mu.Unlock()
	b.lookup(guest).client.close()
	b.Manager.c.RunDir, b.Manager.c.EndDir, b.Manager.c.Cgroup = t.TempDir(), t.TempDir(), t.TempDir()
	b.restart(t)
}

func TestPause(t *testing.T) {
	b := newBench(t)
	guest := b.start(t, 1, "vm")
	for range 2 { // a second one is no error
		if err := b.Pause(t.Context(), guest); err != nil {
			t.Fatalf("Pause: %v", err)
		}
	}
	if s := b.status(t, guest); s.State != hostcall.Paused || s.PID == 0 {
		t.Errorf("status = %+v, want paused", s)
	}
	if err := b.PowerButton(t.Context(), guest); code(err) != hostcall.FailedPrecondition {
		t.Errorf("PowerButton of a paused guest: %v", err)
	}
	if err := b.NMI(t.Context(), guest); code(err) != hostcall.FailedPrecondition {
		t.Errorf("NMI to a paused guest: %v", err)
	}
	if err := b.Start(t.Context(), guest, b.guest("vm")); code(err) != hostcall.FailedPrecondition {
		t.Errorf("Start of a paused guest: %v", err)
	}
	if err := b.Delete(guest); code(err) != hostcall.FailedPrecondition {
		t.Errorf("Delete of a paused guest: %v", err)
	}
	if f, err := b.Console(t.Context(), guest); err != nil {
		t.Errorf("Console of a paused guest: %v", err)
	} else {
		f.Close()
	}
	if _, err := b.Counters(t.Context(), guest); err != nil {
		t.Errorf("Counters of a paused guest: %v", err)
	}
	if err := b.SetBalloon(t.Context(), guest, -4096); code(err) != hostcall.InvalidArgument {
		t.Errorf("SetBalloon to less than nothing: %v", err)
	}
	if err := b.SetBalloon(t.Context(), guest, 1<<20); err != nil {
		t.Errorf("SetBalloon of a paused guest: %v", err)
	}
	if got, err := b.Balloon(t.Context(), guest); err != nil || got.TargetBytes != 1<<20 {
		t.Errorf("Balloon = %+v, %v", got, err)
	}
	if h, err := b.Histograms(t.Context(), guest); err != nil || len(h["disk0.read"]) != 2 {
		t.Errorf("Histograms of a paused guest = %v, %v", h, err)
	}
	b.letGo(t, guest)
	if s := b.status(t, guest); s.State != hostcall.Paused {
		t.Errorf("adopted as %+v, want paused", s)
	}
	for range 2 {
		if err := b.Resume(t.Context(), guest); err != nil {
			t.Fatalf("Resume: %v", err)
		}
	}
	if err := b.NMI(t.Context(), guest); err != nil {
		t.Errorf("NMI: %v", err)
	}
	if err := b.ResizeDisk(t.Context(), guest, 0, 16<<20); err != nil {
		t.Errorf("ResizeDisk: %v", err)
	}
	limits := &protocol.DiskLimits{BytesPerSecond: 1 << 20}
	if err := b.SetDiskLimits(t.Context(), guest, 0, limits); err != nil {
		t.Errorf("SetDiskLimits: %v", err)
	}
	if err := b.SetDiskLimits(t.Context(), guest, 1, limits); code(err) != hostcall.InvalidArgument {
		t.Errorf("SetDiskLimits of a disk that there is not: %v", err)
	}
	if err := b.PowerButton(t.Context(), guest); err != nil {
		t.Errorf("PowerButton: %v", err)
	}
	b.wait(t, guest, hostcall.Stopped)
	want := []hostcall.GuestState{hostcall.Starting, hostcall.Running, hostcall.Paused, hostcall.Running, hostcall.Stopped}
	if got := b.told(guest); !slices.Equal(got, want) {
		t.Errorf("told of %v, want %v", got, want)
	}
	if err := b.Pause(t.Context(), guest); code(err) != hostcall.FailedPrecondition {
		t.Errorf("Pause of a stopped guest: %v", err)
	}
}

// TestPauseNotObeyed has a VMM that says yes and does not pause.
func TestPauseNotObeyed(t *testing.T) {
	b := newBench(t)
	guest := b.start(t, 1, "restless")
	if err := b.Pause(t.Context(), guest); code(err) != hostcall.Internal {
		t.Errorf("Pause: %v", err)
	}
	if s := b.status(t, guest); s.State != hostcall.Running {
		t.Errorf("status = %+v, want running", s)
	}
}

// TestResetGuest resets guests that run, are paused, and do not answer.
func TestResetGuest(t *testing.T) {
	b := newBench(t)
	for i, name := range []string{"vm", "paused", "stubborn"} {
		guest := b.start(t, i+1, name)
		if name == "paused" {
			if err := b.Pause(t.Context(), guest); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Reset(t.Context(), guest); err != nil {
			t.Errorf("%s: Reset: %v", name, err)
		}
		if s := b.status(t, guest); s.State != hostcall.Stopped || s.Reason != "reset" {
			t.Errorf("%s: status = %+v, want reset", name, s)
		}
		b.nothingLeft(t)
		if err := b.Reset(t.Context(), guest); code(err) != hostcall.FailedPrecondition {
			t.Errorf("%s: Reset of a stopped guest: %v", name, err)
		}
	}
}

func TestKillPaused(t *testing.T) {
	b := newBench(t)
	guest := b.start(t, 1, "vm")
	if err := b.Pause(t.Context(), guest); err != nil {
		t.Fatal(err)
	}
	if err := b.Kill(t.Context(), guest); err != nil {
		t.Fatal(err)
	}
	if s := b.status(t, guest); s.Reason != "killed" {
		t.Errorf("status = %+v", s)
	}
}

// TestShutdownPaused switches a host off with a paused guest: it can switch itself off.
func TestShutdownPaused(t *testing.T) {
	b := newBench(t)
	guest := b.start(t, 1, "vm")
	if err := b.Pause(t.Context(), guest); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	b.Shutdown(ctx)
	if s := b.status(t, guest); s.Reason != "powered-off" {
		t.Errorf("status = %+v, want powered-off", s)
	}
}

func TestCounters(t *testing.T) {
	b := newBench(t)
	guest := b.start(t, 1, "vm")
	c, err := b.Counters(t.Context(), guest)
	if err != nil {
		t.Fatal(err)
	}
	if c.Devices["disk0.reads"] != 7 || !slices.Equal(c.VCPUs["exits"], []uint64{1, 2}) || c.Started.IsZero() || c.Read.Before(c.Started) {
		t.Errorf("counters = %+v", c)
	}
	// The tap's own take the place of the VMM's; errors of both count.
	if c.Devices["nic0.rx_bytes"] >= 1<<60 || c.Devices["nic0.errors"] < 3 {
		t.Errorf("counters of the NIC = %v", c.Devices)
	}
}

// TestCountersLie has VMMs that tell too much, or what is no counter.
func TestCountersLie(t *testing.T) {
	b := newBench(t)
	for i, name := range []string{"chatty", "rude"} {
		guest, g := b.create(t, i+1), b.guest(name)
		g.NICs = nil
		if err := b.Start(t.Context(), guest, g); err != nil {
			t.Fatal(err)
		}
		if c, err := b.Counters(t.Context(), guest); code(err) != hostcall.Internal || c.Devices != nil || c.VCPUs != nil {
			t.Errorf("%s: counters = %v, %v", name, c, err)
		}
	}
}
