package machine

import (
	"context"
	"encoding/json"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// tardy is a Core that starts the guest and does not get round to say so.
type tardy struct {
	away
	g *Manager
}

// FuzzObserve lets core say anything about guests.
func FuzzObserve(f *testing.F) {
	f.Add([]byte(`[{"id":"` + uid + `","state":"running","addresses":["a","b"],"started":"2026-01-01T00:00:00Z"}]`))
	f.Add([]byte(`[{"id":"` + uid + `","state":"stopped","reason":"reset"}]`))
	f.Add([]byte(`[{"id":"` + uid + `","state":"?","pid":-1}, {"id":""}]`))
	f.Add([]byte(`[]`))
	g := manager(f, store.VM{ID: "demo", UID: uid, NICs: []store.NIC{{Network: "n", MAC: "02:00:00:00:00:01"}}, DesiredRunning: true})
	f.Fuzz(func(t *testing.T, doc []byte) {
		var guests []hostcall.GuestStatus
		if json.Unmarshal(doc, &guests) != nil {
			return
		}
		g.Synced(guests)
		for _, st := range guests {
			g.Changed(st)
		}
		list := g.List()
		if len(list) != 1 || list[0].Uid != uid || list[0].Etag == "" {
			t.Fatalf("list = %v", list)
		}
		if !proto.Equal(g.byID["demo"].Proto(), list[0]) {
			t.Error("the same machine looks different twice")
		}
	})
}

// Control that ends while core is away leaves the operation for its next start.
func TestEndWhileAway(t *testing.T) {
	g := manager(t, store.VM{ID: "demo", UID: uid, Kernel: "k"})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { g.Run(ctx) })
	op, err := g.Start(Order{Name: "virtualMachines/demo"})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	wg.Wait()
	if rec := op.Record(); rec.Done {
		t.Errorf("operation ended: %v", rec)
	}
	var rec store.Operation
	err = g.store.View(func(tx *store.Tx) (err error) {
		rec, _, err = store.Operations.Get(tx, op.Record().ID)
		return err
	})
	if err != nil || rec.Done || rec.Kind != kindStart {
		t.Errorf("stored: %v, %v", rec, err)
	}
	op.Cancel()
	if op.Context().Err() == nil || !op.Cancelled() {
		t.Error("not cancelled")
	}
	if !refuse.IsDown(refuse.Down()) {
		t.Error("Down is not down")
	}
}

// A guest that runs after its reset is wanted, also where core was late to answer.
func TestAgainTardy(t *testing.T) {
	kernel := store.Image{ID: "k", UID: strings.Repeat("b", 32), Complete: true}
	g := managerWith(t, []store.Image{kernel}, store.VM{ID: "demo", UID: uid, Kernel: "k", DesiredRunning: true})
	g.core, g.ctx = tardy{g: g}, t.Context()
	m := g.byUID[uid]
	m.observe(hostcall.GuestStatus{ID: uid, State: hostcall.Stopped, Reason: "reset"}, true)
	m.again(t.Context())
	if vm := m.Proto(); vm.State != ashlarv1.VirtualMachine_STATE_RUNNING || !vm.DesiredRunning {
		t.Errorf("after its reset = %v", vm)
	}
}

// The end waits for a machine that is being launched, and for its goroutine.
func TestRunWaitsForLaunch(t *testing.T) {
	g := manager(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		g.Run(ctx)
		close(done)
	}()
	running := func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.ctx != nil
	}
	for !running() {
		runtime.Gosched()
	}
	g.mu.Lock()
	cancel()
	select {
	case <-done:
		t.Error("Run has ended while a machine was being launched")
	case <-time.After(100 * time.Millisecond):
	}
	g.mu.Unlock()
	<-done
}
