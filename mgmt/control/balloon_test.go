package control_test

import (
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

func (l *lab) setBalloon(m *ashlarv1.SetVirtualMachineBalloonRequest) (*ashlarv1.VirtualMachine, error) {
	res, err := l.machines.SetVirtualMachineBalloon(ctxOf(l.t), req(m))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

// target is what the guest is asked for.
func (l *lab) target(name string) int64 {
	l.t.Helper()
	res, err := l.machines.GetVirtualMachineBalloon(ctxOf(l.t), req(&ashlarv1.GetVirtualMachineBalloonRequest{Name: name}))
	if err != nil {
		l.t.Fatal(err)
	}
	return res.Msg.TargetBytes
}

func TestBalloon(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	_, err := l.machines.GetVirtualMachineBalloon(ctxOf(t), req(&ashlarv1.GetVirtualMachineBalloonRequest{Name: vm.Name}))
	wantError(t, err, connect.CodeFailedPrecondition, "WRONG_STATE", "is stopped: start it")
	for _, n := range []int64{-4096, 1, vm.MemoryBytes, vm.MemoryBytes - protocol.BalloonLeaves + 4096} {
		_, err := l.setBalloon(&ashlarv1.SetVirtualMachineBalloonRequest{Name: vm.Name, BalloonBytes: n})
		wantError(t, err, connect.CodeInvalidArgument, "INVALID_FIELD", "balloon_bytes")
	}
	_, err = l.setBalloon(&ashlarv1.SetVirtualMachineBalloonRequest{Name: vm.Name, Etag: "x"})
	wantError(t, err, connect.CodeAborted, "ETAG_MISMATCH", "has changed")

	// A stopped machine begins with it.
	got, err := l.setBalloon(&ashlarv1.SetVirtualMachineBalloonRequest{Name: vm.Name, Etag: vm.Etag, BalloonBytes: 1 << 20})
	if err != nil || got.BalloonBytes != 1<<20 || got.Etag == vm.Etag {
		t.Fatalf("set = %v, %v", got, err)
	}
	l.mustStart(vm.Name)
	if n := l.target(vm.Name); n != 1<<20 || l.core.Calls(hostcall.GuestSetBalloon) != 0 {
		t.Errorf("started with %d", n)
	}
	// One that runs is asked, paused or not, and keeps it over control's end and a reset.
	l.mustPause(vm.Name)
	if _, err := l.setBalloon(&ashlarv1.SetVirtualMachineBalloonRequest{Name: vm.Name, BalloonBytes: 2 << 20}); err != nil {
		t.Fatal(err)
	}
	if n := l.target(vm.Name); n != 2<<20 {
		t.Errorf("target = %d", n)
	}
	l.restartControl()
	if op := l.reset(vm.Name); op.Error != nil {
		t.Fatal(op)
	}
	if n := l.target(vm.Name); n != 2<<20 || l.get(vm.Name).BalloonBytes != 2<<20 {
		t.Errorf("after a reset: target = %d, machine = %v", n, l.get(vm.Name))
	}
	when := time.Now().Truncate(time.Second)
	l.core.Give(vm.Uid, 1<<20, map[string]uint64{"free_bytes": 1 << 63}, when)
	res, err := l.machines.GetVirtualMachineBalloon(ctxOf(t), req(&ashlarv1.GetVirtualMachineBalloonRequest{Name: vm.Name}))
	if err != nil || res.Msg.ActualBytes != 1<<20 || res.Msg.Statistics["free_bytes"] != 1<<63-1 || !res.Msg.StatisticsTime.AsTime().Equal(when) {
		t.Errorf("balloon = %v, %v", res, err)
	}
	// Where core cannot be asked, the same request again makes up for it.
	l.core.Cut(hostcall.GuestSetBalloon)
	four := &ashlarv1.SetVirtualMachineBalloonRequest{Name: vm.Name, BalloonBytes: 4 << 20}
	_, err = l.setBalloon(four)
	wantError(t, err, connect.CodeUnavailable, "CORE_UNAVAILABLE", "try again")
	l.core.Stop()
	if err := l.core.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err = l.setBalloon(four); err == nil || time.Now().After(end) {
			break
		}
	}
	if err != nil || l.target(vm.Name) != 4<<20 {
		t.Errorf("again: %v, target = %d", err, l.target(vm.Name))
	}
}

// What is set while a guest is being started reaches it when it runs.
func TestBalloonDuringStart(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	l.whileStarting(vm, hostcall.GuestSetBalloon, func() error {
		_, err := l.setBalloon(&ashlarv1.SetVirtualMachineBalloonRequest{Name: vm.Name, BalloonBytes: 1 << 20})
		return err
	})
	if n := l.target(vm.Name); n != 1<<20 {
		t.Errorf("target = %d", n)
	}
}

// whileStarting starts vm, and does something in between of which core is to hear by
// method when the guest runs, not before.
func (l *lab) whileStarting(vm *ashlarv1.VirtualMachine, method hostcall.Method, do func() error) {
	l.t.Helper()
	release := l.core.Hold(hostcall.GuestStart)
	res, err := l.machines.StartVirtualMachine(ctxOf(l.t), req(&ashlarv1.StartVirtualMachineRequest{Name: vm.Name}))
	if err != nil {
		l.t.Fatal(err)
	}
	l.until(vm.Name, "running to core", func(vm *ashlarv1.VirtualMachine) bool { return vm.StartTime != nil })
	l.core.Tell(hostcall.GuestStatus{ID: vm.Uid, State: hostcall.Starting})
	l.until(vm.Name, "being started", func(vm *ashlarv1.VirtualMachine) bool { return vm.StartTime == nil })
	if err := do(); err != nil {
		l.t.Fatal(err)
	}
	if n := l.core.Calls(method); n != 0 {
		l.t.Errorf("%d calls for a guest that does not run", n)
	}
	l.core.Tell(hostcall.GuestStatus{ID: vm.Uid, State: hostcall.Running, Started: time.Now()})
	release()
	if op := l.done(res, nil); op.Error != nil {
		l.t.Fatal(op)
	}
}
