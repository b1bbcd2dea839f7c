package control_test

import (
	"context"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// A watch reads a Watch call.
type watch struct {
	t      *testing.T
	stream *connect.ServerStreamForClient[ashlarv1.WatchResponse]
	cancel context.CancelFunc
}

func (l *lab) watch(r *ashlarv1.WatchRequest) *watch {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	stream, err := l.watches.Watch(ctx, req(r))
	if err != nil {
		l.t.Fatal(err)
	}
	w := &watch{l.t, stream, cancel}
	l.t.Cleanup(w.close)
	return w
}

func (w *watch) close() {
	w.cancel()
	w.stream.Close()
}

func (w *watch) next() *ashlarv1.WatchResponse {
	w.t.Helper()
	if !w.stream.Receive() {
		w.t.Fatalf("watch ended: %v", w.stream.Err())
	}
	return w.stream.Msg()
}

// until reads up to the first message that fits.
func (w *watch) until(what string, fits func(*ashlarv1.WatchResponse) bool) []*ashlarv1.WatchResponse {
	w.t.Helper()
	var all []*ashlarv1.WatchResponse
	for range 1000 {
		r := w.next()
		all = append(all, r)
		if fits(r) {
			return all
		}
	}
	w.t.Fatalf("nothing about %s", what)
	return nil
}

func synced(r *ashlarv1.WatchResponse) bool { return r.Synced }

func TestWatch(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	all := l.watch(&ashlarv1.WatchRequest{})
	state := all.until("synced", synced)
	if len(state) != 4 || state[3].ResumeToken == "" || state[0].Kind != ashlarv1.WatchResponse_KIND_PUT {
		t.Errorf("first state: %v", state)
	}
	only := l.watch(&ashlarv1.WatchRequest{Collections: []string{"virtualMachines"}})
	if got := only.until("synced", synced); len(got) != 2 || got[0].GetVirtualMachine().GetName() != vm.Name {
		t.Errorf("first state of machines: %v", got)
	}
	l.mustStart(vm.Name)
	runs := func(r *ashlarv1.WatchResponse) bool {
		return r.GetVirtualMachine().GetState() == ashlarv1.VirtualMachine_STATE_RUNNING
	}
	seen := only.until("running", runs)
	all.until("running", runs)
	all.until("operation", func(r *ashlarv1.WatchResponse) bool { return r.GetOperation().GetDone() })

	// Gone for a while, a watcher hears what it has missed.
	token := seen[len(seen)-1].ResumeToken
	only.close()
	l.core.Exit(vm.Uid, "halted", "")
	l.until(vm.Name, "settled", func(vm *ashlarv1.VirtualMachine) bool {
		return vm.StopReason == ashlarv1.VirtualMachine_STOP_REASON_HALTED
	})
	back := l.watch(&ashlarv1.WatchRequest{Collections: []string{"virtualMachines"}, ResumeToken: token})
	missed := back.until("synced", synced)
	halted := false
	for _, r := range missed {
		halted = halted || r.GetVirtualMachine().GetStopReason() == ashlarv1.VirtualMachine_STOP_REASON_HALTED
		if r.Reset_ {
			t.Error("started anew")
		}
	}
	if !halted {
		t.Errorf("missed: %v", missed)
	}
	l.done(l.machines.DeleteVirtualMachine(ctxOf(t), req(&ashlarv1.DeleteVirtualMachineRequest{Name: vm.Name})))
	back.until("deletion", func(r *ashlarv1.WatchResponse) bool {
		return r.Kind == ashlarv1.WatchResponse_KIND_DELETED && r.GetVirtualMachine().GetName() == vm.Name
	})

	// After a restart of control a token is of no use: everything again.
	all.close()
	back.close()
	l.restartControl()
	anew := l.watch(&ashlarv1.WatchRequest{ResumeToken: token})
	if first := anew.next(); !first.Reset_ {
		t.Errorf("first message after a restart: %v", first)
	}
	anew.until("synced", synced)
}

func TestWatchWrong(t *testing.T) {
	l := newLab(t)
	for field, r := range map[string]*ashlarv1.WatchRequest{
		"resume_token":   {ResumeToken: "x"},
		"collections[1]": {Collections: []string{"images", "cats"}},
	} {
		stream, err := l.watches.Watch(ctxOf(t), req(r))
		if err != nil {
			t.Fatal(err)
		}
		for stream.Receive() {
			t.Errorf("received %v", stream.Msg())
		}
		wantError(t, stream.Err(), connect.CodeInvalidArgument, "INVALID_FIELD", field)
		stream.Close()
	}
}
