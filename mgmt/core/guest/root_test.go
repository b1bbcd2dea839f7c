//go:build roottest

package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/drivers/cgroup"
	"github.com/ashlar-hv/ashlar/mgmt/core/folder"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

func TestPowerButton(t *testing.T) {
	b := newBench(t)
	guest := b.start(t, 1, "vm1")
	s := b.status(t, guest)
	if s.State != hostcall.Running || s.PID == 0 || s.Started.IsZero() {
		t.Errorf("status = %+v", s)
	}
	proc, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID))
	if err != nil || !strings.Contains(string(proc), "Uid:\t100000\t100000\t100000\t100000\n") ||
		!strings.Contains(string(proc), "CapBnd:\t0000000000000000\n") || !strings.Contains(string(proc), "Seccomp:\t2\n") {
		t.Errorf("VMM: %v\n%s", err, proc)
	}
	if group, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", s.PID)); err != nil || string(group) != "0::/test-guests/"+guest+"\n" {
		t.Errorf("VMM is in cgroup %q, %v", group, err)
	}
	if err := b.Start(t.Context(), guest, b.guest("vm1")); code(err) != hostcall.FailedPrecondition {
		t.Errorf("second Start: %v", err)
	}
	if err := b.Delete(guest); code(err) != hostcall.FailedPrecondition {
		t.Errorf("Delete of a running guest: %v", err)
	}
	f, err := b.Console(t.Context(), guest)
	if err != nil {
		t.Fatalf("Console: %v", err)
	}
	if text, err := io.ReadAll(f); err != nil || string(text) != "hello from vm1" {
		t.Errorf("console = %q, %v", text, err)
	}
	f.Close()
	if f, err = b.ConnectSerial(t.Context(), guest, "agent.0"); err != nil {
		t.Fatalf("ConnectSerial: %v", err)
	}
	if text, err := io.ReadAll(f); err != nil || string(text) != "hello from vm1" {
		t.Errorf("serial port = %q, %v", text, err)
	}
	f.Close()
	if _, err := b.ConnectSerial(t.Context(), guest, "a/b"); code(err) != hostcall.InvalidArgument {
		t.Errorf("ConnectSerial to what is no name: %v", err)
	}
	if err := b.PowerButton(t.Context(), guest); err != nil {
		t.Fatalf("PowerButton: %v", err)
	}
	end := b.wait(t, guest, hostcall.Stopped)
	if end.Reason != "powered-off" || end.Message != "bye" {
		t.Errorf("end = %+v", end)
	}
	b.nothingLeft(t)
	if err := b.PowerButton(t.Context(), guest); code(err) != hostcall.FailedPrecondition {
		t.Errorf("PowerButton of a stopped guest: %v", err)
	}
	b.restart(t)
	if s := b.status(t, guest); s.Reason != "powered-off" {
		t.Errorf("status after a restart = %+v", s)
	}
	if err := b.Delete(guest); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if err := b.Kill(t.Context(), guest); code(err) != hostcall.NotFound {
		t.Errorf("Kill of a deleted guest: %v", err)
	}
}

func TestStartRefused(t *testing.T) {
	b := newBench(t)
	guest := b.create(t, 1)
	change := func(f func(*hostcall.Guest)) *hostcall.Guest {
		g := b.guest("vm")
		f(g)
		return g
	}
	tests := []struct {
		name  string
		guest *hostcall.Guest
		code  hostcall.Code
		field string
	}{
		{"by the VMM", b.guest("refused"), hostcall.InvalidArgument, "guest.kernel"},
		{"VMM dies", b.guest("dies"), hostcall.Internal, ""},
		{"VMM leaves its jail", b.guest("escapes"), hostcall.Internal, ""},
		{"no such kernel", change(func(g *hostcall.Guest) { g.Kernel = id(99) }), hostcall.NotFound, "guest.kernel"},
		{"kernel is no identifier", change(func(g *hostcall.Guest) { g.Kernel = "../../etc/passwd" }), hostcall.InvalidArgument, "guest.kernel"},
		{"no such initramfs", change(func(g *hostcall.Guest) { g.Initramfs = id(99) }), hostcall.NotFound, "guest.initramfs"},
		{"no such network", change(func(g *hostcall.Guest) { g.NICs[0].Network = "x" }), hostcall.InvalidArgument, "guest.nics[0].network"},
		{"too much memory", change(func(g *hostcall.Guest) { g.MemoryBytes = 2 << 30 }), hostcall.ResourceExhausted, "guest.memoryBytes"},
		{"odd memory", change(func(g *hostcall.Guest) { g.MemoryBytes = 64<<20 + 1 }), hostcall.InvalidArgument, "guest.memoryBytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := b.Start(t.Context(), guest, tt.guest)
			var e *hostcall.Error
			if !errors.As(err, &e) || e.Code != tt.code || e.Field != tt.field {
				t.Errorf("Start: %#v, want %s of %q", err, tt.code, tt.field)
			}
			if s := b.status(t, guest); s.State != hostcall.Stopped || s.Reason != "" {
				t.Errorf("status = %+v, want as before", s)
			}
			b.nothingLeft(t)
			if _, err := b.Log(guest); code(err) != hostcall.FailedPrecondition {
				t.Errorf("Log of a guest that has not come to run: %v", err)
			}
		})
	}
	if err := b.Start(t.Context(), guest, b.guest("vm")); err != nil {
		t.Fatal(err)
	}
	f, err := b.Log(guest)
	if err != nil {
		t.Fatalf("Log: %v", err)
	}
	f.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	b.Shutdown(ctx)
	if entries, err := os.ReadDir(filepath.Join(b.c.RunDir, "..", "guests", guest)); err != nil || slices.ContainsFunc(entries,
		func(e os.DirEntry) bool { return strings.HasSuffix(e.Name(), ".new") }) {
		t.Errorf("guest's folder: %v, %v", entries, err)
	}
}

// TestFlood starts a VMM that writes more messages than there is room for.
func TestFlood(t *testing.T) {
	b := newBench(t)
	guest := b.start(t, 1, "floods")
	if s := b.wait(t, guest, hostcall.Stopped); s.Reason != hostcall.Lost {
		t.Errorf("status = %+v", s)
	}
	b.nothingLeft(t)
}

// TestGrow starts a VMM that looks whether it can take more of the pool than it
// was given.
func TestGrow(t *testing.T) {
	b := newBench(t)
	b.start(t, 1, "grows")
}

// TestEndKeptFirst looks what is on disk at the moment when the remains of a
// guest are cleared away: core could end there.
func TestEndKeptFirst(t *testing.T) {
	b := newBench(t)
	seen := make(chan error, 4)
	guest := id(1)
	b.c.Networks = spyNetworks{b.c.Networks, func() {
		_, err := os.Stat(filepath.Join(b.c.EndDir, guest))
		seen <- err
	}}
	b.restart(t)
	b.start(t, 1, "vm")
	if err := b.PowerButton(t.Context(), guest); err != nil {
		t.Fatal(err)
	}
	b.wait(t, guest, hostcall.Stopped)
	if err := <-seen; err != nil {
		t.Errorf("the end of a guest whose remains are gone: %v", err)
	}
}

// spyNetworks tells when a guest is cleared away.
type spyNetworks struct {
	Networks
	cleared func()
}

func (s spyNetworks) Deactivate(nics []folder.Interface) {
	s.cleared()
	s.Networks.Deactivate(nics)
}

// TestAdoptStarting finds a start that core did not live to finish: the guest is
// as it was before.
func TestAdoptStarting(t *testing.T) {
	b := newBench(t)
	guest := b.start(t, 1, "vm")
	if err := b.PowerButton(t.Context(), guest); err != nil {
		t.Fatal(err)
	}
	b.wait(t, guest, hostcall.Stopped)
	dir := filepath.Join(b.c.RunDir, guest)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(dir, recordName), []byte(`{"id":"`+guest+`","name":"vm","slot":7}`), 0o600)
	if _, err := cgroup.Create(filepath.Join(b.c.Cgroup, guest), cgroup.Limits{}); err != nil {
		t.Fatal(err)
	}
	b.restart(t)
	if s := b.status(t, guest); s.State != hostcall.Stopped || s.Reason != "powered-off" {
		t.Errorf("status = %+v, want the end before", s)
	}
	b.nothingLeft(t)
}

// TestAdoptMute adopts VMMs that do not answer: core waits for all of them no
// longer than for one.
func TestAdoptMute(t *testing.T) {
	b := newBench(t)
	const guests = 4
	for n := range guests {
		guest, g := b.create(t, n), b.guest("mute")
		g.NICs = nil
		if err := b.Start(t.Context(), guest, g); err != nil {
			t.Fatal(err)
		}
		b.lookup(guest).client.close()
	}
	b.Manager.c.RunDir, b.Manager.c.EndDir, b.Manager.c.Cgroup = t.TempDir(), t.TempDir(), t.TempDir()
	begin := time.Now()
	b.restart(t)
	if took := time.Since(begin); took > (guests-1)*callTimeout {
		t.Errorf("New took %v, want it to wait for all at once", took)
	}
	for n := range guests {
		if s := b.status(t, id(n)); s.State != hostcall.Running {
			t.Errorf("status = %+v", s)
		}
	}
}

func TestKill(t *testing.T) {
	b := newBench(t)
	for i, name := range []string{"vm", "stubborn"} {
		guest := b.start(t, i+1, name)
		if err := b.Kill(t.Context(), guest); err != nil {
			t.Errorf("%s: Kill: %v", name, err)
		}
		if s := b.status(t, guest); s.State != hostcall.Stopped || s.Reason != "killed" {
			t.Errorf("%s: status = %+v", name, s)
		}
		b.nothingLeft(t)
	}
}

func TestLost(t *testing.T) {
	b := newBench(t)
	guest := b.start(t, 1, "vm")
	p, err := os.FindProcess(b.status(t, guest).PID)
	if err != nil {
		t.Fatal(err)
	}
	p.Kill()
	if s := b.wait(t, guest, hostcall.Stopped); s.Reason != hostcall.Lost {
		t.Errorf("status = %+v, want lost", s)
	}
}

func TestConsoleLies(t *testing.T) {
	b := newBench(t)
	guest := b.start(t, 1, "lies")
	if f, err := b.Console(t.Context(), guest); err == nil {
		t.Errorf("Console: %v from a VMM that sends no stream", f.Name())
	}
	if f, err := b.ConnectSerial(t.Context(), guest, "agent.0"); err == nil {
		t.Errorf("ConnectSerial: %v from a VMM that sends no stream", f.Name())
	}
}

func TestSameMAC(t *testing.T) {
	b := newBench(t)
	b.start(t, 1, "vm")
	other := b.create(t, 2)
	if err := b.Start(t.Context(), other, b.guest("vm")); code(err) != hostcall.AlreadyExists {
		t.Errorf("Start with a MAC in use: %v", err)
	}
	if s := b.status(t, id(1)); s.State != hostcall.Running {
		t.Errorf("the first guest is %+v", s)
	}
}

func TestAdmission(t *testing.T) {
	b := newBench(t)
	b.c.Memory = func() (int64, error) { return 320 << 20, nil }
	b.restart(t)
	b.start(t, 1, "vm")
	other := b.create(t, 2)
	g := b.guest("vm2")
	g.NICs = nil
	g.MemoryBytes = 128 << 20
	if err := b.Start(t.Context(), other, g); code(err) != hostcall.ResourceExhausted {
		t.Errorf("Start over what is promised: %v", err)
	}
}

func TestAdopt(t *testing.T) {
	b := newBench(t)
	guest := b.start(t, 1, "vm")
	before := b.status(t, guest)
	// The end of the old core: it lets go of the VMM, and touches nothing more.
	b.lookup(guest).client.close()
	b.Manager.c.RunDir, b.Manager.c.EndDir, b.Manager.c.Cgroup = t.TempDir(), t.TempDir(), t.TempDir()
	b.restart(t)
	after := b.status(t, guest)
	if after.State != hostcall.Running || after.PID != before.PID || !after.Started.Equal(before.Started) {
		t.Errorf("adopted %+v, want %+v", after, before)
	}
	if err := b.PowerButton(t.Context(), guest); err != nil {
		t.Errorf("PowerButton of an adopted guest: %v", err)
	}
	if s := b.wait(t, guest, hostcall.Stopped); s.Reason != "powered-off" {
		t.Errorf("end = %+v", s)
	}
}

// TestAdoptDead finds the remains of guests that ended while core was away.
func TestAdoptDead(t *testing.T) {
	b := newBench(t)
	guest := b.create(t, 1)
	for name, rec := range map[string]string{
		"powered-off": `{"id":"` + guest + `","name":"vm","pid":999999,"startTime":1,"slot":7}`,
		"lost":        `{"id":"` + guest + `","name":"vm","pid":1,"startTime":12345,"slot":7}`,
		"":            `{"id":"` + guest + `","slot":-1}`,
	} {
		t.Run(name, func(t *testing.T) {
			b.removeEnd(guest)
			dir := filepath.Join(b.c.RunDir, guest)
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			os.WriteFile(filepath.Join(dir, recordName), []byte(rec), 0o600)
			if name == "powered-off" {
				os.WriteFile(filepath.Join(dir, resultName), []byte(`{"reason":"powered-off"}`), 0o600)
			}
			if _, err := cgroup.Create(filepath.Join(b.c.Cgroup, guest), cgroup.Limits{}); err != nil {
				t.Fatal(err)
			}
			b.restart(t)
			if s := b.status(t, guest); s.State != hostcall.Stopped || s.Reason != name {
				t.Errorf("status = %+v, want %q", s, name)
			}
			b.nothingLeft(t)
		})
	}
}

func TestShutdown(t *testing.T) {
	b := newBench(t)
	b.start(t, 1, "vm")
	guest := b.create(t, 2)
	g := b.guest("deaf")
	g.NICs = nil
	if err := b.Start(t.Context(), guest, g); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	b.Shutdown(ctx)
	if s := b.status(t, id(1)); s.Reason != "powered-off" {
		t.Errorf("vm: %+v", s)
	}
	if s := b.status(t, guest); s.Reason != "killed" {
		t.Errorf("deaf: %+v", s)
	}
	if err := b.Start(t.Context(), guest, g); code(err) != hostcall.Unavailable {
		t.Errorf("Start after Shutdown: %v", err)
	}
}
