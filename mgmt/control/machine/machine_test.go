package machine

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ashlar-hv/ashlar/mgmt/control/feed"
	"github.com/ashlar-hv/ashlar/mgmt/control/image"
	"github.com/ashlar-hv/ashlar/mgmt/control/link"
	"github.com/ashlar-hv/ashlar/mgmt/control/operation"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// away is a Core that is not there.
type away struct{}

func (away) Do(context.Context, hostcall.Call) (hostcall.Message, error) {
	return hostcall.Message{}, link.ErrDown
}
func (away) File(context.Context, hostcall.Call) (*os.File, error) { return nil, link.ErrDown }
func (away) Sync(context.Context) error                            { return link.ErrDown }
func (away) WaitUp(ctx context.Context) error                      { <-ctx.Done(); return link.ErrDown }

func (c tardy) WaitUp(context.Context) error { return nil }
func (c tardy) Do(_ context.Context, call hostcall.Call) (hostcall.Message, error) {
	c.g.Changed(hostcall.GuestStatus{ID: call.ID, State: hostcall.Running})
	return hostcall.Message{}, context.DeadlineExceeded
}

var uid = strings.Repeat("a", 32)

func manager(t testing.TB, vms ...store.VM) *Manager {
	t.Helper()
	return managerWith(t, nil, vms...)
}

func managerWith(t testing.TB, kernels []store.Image, vms ...store.VM) *Manager {
	t.Helper()
	s, err := store.Open(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	err = s.Update(func(tx *store.Tx) error {
		for _, im := range kernels {
			if err := store.Images.Put(tx, im); err != nil {
				return err
			}
		}
		for _, vm := range vms {
			if err := store.VMs.Put(tx, vm); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	log, f := slog.New(slog.DiscardHandler), feed.New()
	ops, open, err := operation.Load(s, f, log)
	if err != nil {
		t.Fatal(err)
	}
	images, err := image.Load(s, away{}, f, log)
	if err != nil {
		t.Fatal(err)
	}
	g, err := Load(s, away{}, f, images, ops, open, log)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// The same request again, before the first one has been answered, waits for it.
func TestRepeatedWhileAccepted(t *testing.T) {
	g := manager(t, store.VM{ID: "demo", UID: uid, Kernel: "k"})
	ticket := Ticket{Key: "k", Digest: "d"}
	m := g.byUID[uid]
	m.deciding.Lock()
	// Stored, not yet known to the registry.
	if err := g.store.Update(func(tx *store.Tx) error { return ticket.put(tx, "new") }); err != nil {
		t.Fatal(err)
	}
	answer := make(chan error)
	go func() {
		_, err := g.Start(Order{Name: "virtualMachines/demo", Ticket: ticket})
		answer <- err
	}()
	select {
	case err := <-answer:
		t.Errorf("answered while the first one is being accepted: %v", err)
		m.deciding.Unlock()
	case <-time.After(50 * time.Millisecond):
		m.deciding.Unlock()
		<-answer
	}
}

// A name is free when watchers have heard that its machine is gone, not before.
func TestForgetTellsFirst(t *testing.T) {
	var vms []store.VM
	for i := range 100 {
		vms = append(vms, store.VM{ID: fmt.Sprintf("vm-%d", i), UID: fmt.Sprintf("%032x", i)})
	}
	g := manager(t, vms...)
	for _, rec := range vms {
		forgotten := make(chan error)
		go func() { forgotten <- g.byUID[rec.UID].forget() }()
		for free := false; !free; runtime.Gosched() {
			g.mu.Lock()
			free = g.byID[rec.ID] == nil
			state, _ := g.feed.Snapshot()
			g.mu.Unlock()
			if free && slices.ContainsFunc(state, func(c feed.Change) bool { return c.Name == Prefix+rec.ID }) {
				t.Errorf("%s is free, watchers have not heard of it", rec.ID)
			}
		}
		if err := <-forgotten; err != nil {
			t.Fatal(err)
		}
	}
}
