package control_test

import (
	"context"
	"math"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

func (l *lab) pause(name string) *ashlarv1.Operation {
	l.t.Helper()
	return l.done(l.machines.PauseVirtualMachine(ctxOf(l.t), req(&ashlarv1.PauseVirtualMachineRequest{Name: name})))
}

func (l *lab) mustPause(name string) {
	l.t.Helper()
	if op := l.pause(name); op.Error != nil || op.Kind != "pause" || op.Target != name {
		l.t.Fatalf("pause = %v", op)
	}
	if vm := l.get(name); vm.State != ashlarv1.VirtualMachine_STATE_PAUSED || !vm.DesiredRunning || vm.StartTime == nil {
		l.t.Fatalf("paused machine = %v", vm)
	}
}

func (l *lab) resume(name string) *ashlarv1.Operation {
	l.t.Helper()
	return l.done(l.machines.ResumeVirtualMachine(ctxOf(l.t), req(&ashlarv1.ResumeVirtualMachineRequest{Name: name})))
}

func (l *lab) reset(name string) *ashlarv1.Operation {
	l.t.Helper()
	return l.done(l.machines.ResetVirtualMachine(ctxOf(l.t), req(&ashlarv1.ResetVirtualMachineRequest{Name: name})))
}

func (l *lab) nmi(m *ashlarv1.SendVirtualMachineNmiRequest) error {
	_, err := l.machines.SendVirtualMachineNmi(ctxOf(l.t), req(m))
	return err
}

func TestPauseAndResume(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	for verb, call := range map[string]func() error{
		"pause": func() error {
			_, err := l.machines.PauseVirtualMachine(ctxOf(t), req(&ashlarv1.PauseVirtualMachineRequest{Name: vm.Name}))
			return err
		},
		"resume": func() error {
			_, err := l.machines.ResumeVirtualMachine(ctxOf(t), req(&ashlarv1.ResumeVirtualMachineRequest{Name: vm.Name}))
			return err
		},
		"reset": func() error {
			_, err := l.machines.ResetVirtualMachine(ctxOf(t), req(&ashlarv1.ResetVirtualMachineRequest{Name: vm.Name}))
			return err
		},
		"nmi": func() error { return l.nmi(&ashlarv1.SendVirtualMachineNmiRequest{Name: vm.Name}) },
		"counters": func() error {
			_, err := l.machines.GetVirtualMachineCounters(ctxOf(t), req(&ashlarv1.GetVirtualMachineCountersRequest{Name: vm.Name}))
			return err
		},
	} {
		t.Run(verb+" of a stopped machine", func(t *testing.T) {
			wantError(t, call(), connect.CodeFailedPrecondition, "WRONG_STATE", "is stopped: ")
		})
	}
	l.mustStart(vm.Name)
	_, err := l.machines.ResumeVirtualMachine(ctxOf(t), req(&ashlarv1.ResumeVirtualMachineRequest{Name: vm.Name}))
	wantError(t, err, connect.CodeFailedPrecondition, "WRONG_STATE", "is running: nothing to resume")

	l.mustPause(vm.Name)
	_, err = l.machines.PauseVirtualMachine(ctxOf(t), req(&ashlarv1.PauseVirtualMachineRequest{Name: vm.Name}))
	wantError(t, err, connect.CodeFailedPrecondition, "WRONG_STATE", "is paused: nothing to pause")
	_, err = l.machines.StartVirtualMachine(ctxOf(t), req(&ashlarv1.StartVirtualMachineRequest{Name: vm.Name}))
	wantError(t, err, connect.CodeFailedPrecondition, "WRONG_STATE", "is paused: resume it")
	_, err = l.machines.DeleteVirtualMachine(ctxOf(t), req(&ashlarv1.DeleteVirtualMachineRequest{Name: vm.Name}))
	wantError(t, err, connect.CodeFailedPrecondition, "WRONG_STATE", "is paused: stop it first, or delete it with force")
	err = l.nmi(&ashlarv1.SendVirtualMachineNmiRequest{Name: vm.Name})
	wantError(t, err, connect.CodeFailedPrecondition, "WRONG_STATE", "is paused: resume it")

	before := l.get(vm.Name)
	l.restartControl()
	if got := l.get(vm.Name); got.State != ashlarv1.VirtualMachine_STATE_PAUSED || got.Etag != before.Etag {
		t.Errorf("after control's restart = %v, want %v", got, before)
	}
	l.core.Stop()
	if err := l.core.Start(); err != nil {
		t.Fatal(err)
	}
	if op := l.resume(vm.Name); op.Error != nil || op.Kind != "resume" {
		t.Errorf("resume = %v", op)
	}
	if got := l.get(vm.Name); got.State != ashlarv1.VirtualMachine_STATE_RUNNING || !got.StartTime.AsTime().Equal(before.StartTime.AsTime()) {
		t.Errorf("resumed machine = %v, want it running since %v", got, before.StartTime.AsTime())
	}
}

// The verbs keep etag and request_id as their siblings do.
func TestPauseOnce(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	l.mustStart(vm.Name)
	_, err := l.machines.PauseVirtualMachine(ctxOf(t), req(&ashlarv1.PauseVirtualMachineRequest{Name: vm.Name, Etag: vm.Etag}))
	wantError(t, err, connect.CodeAborted, "ETAG_MISMATCH", "has changed")
	err = l.nmi(&ashlarv1.SendVirtualMachineNmiRequest{Name: vm.Name, Etag: vm.Etag})
	wantError(t, err, connect.CodeAborted, "ETAG_MISMATCH", "has changed")
	pause := &ashlarv1.PauseVirtualMachineRequest{Name: vm.Name, Etag: l.get(vm.Name).Etag, RequestId: "0b0d3b8e-5f43-4b5e-9a6a-0b3f1d5c7e21"}
	one := l.done(l.machines.PauseVirtualMachine(ctxOf(t), req(pause)))
	two := l.done(l.machines.PauseVirtualMachine(ctxOf(t), req(pause)))
	if one.Name != two.Name || l.core.Calls(hostcall.GuestPause) != 1 {
		t.Errorf("the same request twice: %v, %v", one, two)
	}
	if op := l.resume(vm.Name); op.Error != nil {
		t.Fatal(op)
	}
	nmi := &ashlarv1.SendVirtualMachineNmiRequest{Name: vm.Name, RequestId: "0b0d3b8e-5f43-4b5e-9a6a-0b3f1d5c7e22"}
	for range 2 {
		if err := l.nmi(nmi); err != nil {
			t.Fatal(err)
		}
	}
	if n := l.core.Calls(hostcall.GuestNMI); n != 1 {
		t.Errorf("%d NMIs by the same request twice", n)
	}
	nmi.Etag = "x"
	wantError(t, l.nmi(nmi), connect.CodeInvalidArgument, "INVALID_FIELD", "another request")
	nmi.RequestId, nmi.Etag = "", ""
	for range 2 {
		if err := l.nmi(nmi); err != nil {
			t.Fatal(err)
		}
	}
	if n := l.core.Calls(hostcall.GuestNMI); n != 3 {
		t.Errorf("%d NMIs, want 3", n)
	}
	l.core.Refuse(hostcall.GuestNMI, &hostcall.Error{Code: hostcall.FailedPrecondition, Message: "no processor takes NMIs"})
	wantError(t, l.nmi(nmi), connect.CodeFailedPrecondition, "CORE_REFUSED", "no processor takes NMIs")
	l.core.Refuse(hostcall.GuestNMI, nil)
	l.core.Cut(hostcall.GuestNMI)
	wantError(t, l.nmi(nmi), connect.CodeUnavailable, "CORE_UNAVAILABLE", "was sent or not")
}

// A paused guest is resumed to be stopped; with force it is ended as it is.
func TestStopPaused(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	l.mustStart(vm.Name)
	l.mustPause(vm.Name)
	if op := l.done(l.machines.StopVirtualMachine(ctxOf(t), req(&ashlarv1.StopVirtualMachineRequest{Name: vm.Name}))); op.Error != nil {
		t.Errorf("stop = %v", op)
	}
	if got := l.get(vm.Name); got.StopReason != ashlarv1.VirtualMachine_STOP_REASON_POWERED_OFF || l.core.Calls(hostcall.GuestResume) != 1 {
		t.Errorf("stopped machine = %v", got)
	}

	l.mustStart(vm.Name)
	l.mustPause(vm.Name)
	if op := l.done(l.machines.StopVirtualMachine(ctxOf(t), req(&ashlarv1.StopVirtualMachineRequest{Name: vm.Name, Force: true}))); op.Error != nil {
		t.Errorf("forced stop = %v", op)
	}
	if got := l.get(vm.Name); got.StopReason != ashlarv1.VirtualMachine_STOP_REASON_KILLED || l.core.Calls(hostcall.GuestResume) != 1 {
		t.Errorf("machine = %v", got)
	}

	// A stop that is cancelled leaves the guest running, which it had to be for it.
	l.core.Stubborn(true)
	l.mustStart(vm.Name)
	l.mustPause(vm.Name)
	res, err := l.machines.StopVirtualMachine(ctxOf(t), req(&ashlarv1.StopVirtualMachineRequest{Name: vm.Name, GracePeriod: durationpb.New(time.Hour)}))
	if err != nil {
		t.Fatal(err)
	}
	pressed := l.core.Calls(hostcall.GuestPowerButton)
	l.until(vm.Name, "asked", func(*ashlarv1.VirtualMachine) bool { return l.core.Calls(hostcall.GuestPowerButton) >= max(pressed, 2) })
	_, err = l.machines.PauseVirtualMachine(ctxOf(t), req(&ashlarv1.PauseVirtualMachineRequest{Name: vm.Name}))
	wantError(t, err, connect.CodeFailedPrecondition, "WRONG_STATE", "is being stopped by operations/")
	if err := l.nmi(&ashlarv1.SendVirtualMachineNmiRequest{Name: vm.Name}); err != nil {
		t.Errorf("NMI to a guest that is being stopped: %v", err)
	}
	if _, err := l.operations.CancelOperation(ctxOf(t), req(&ashlarv1.CancelOperationRequest{Name: res.Msg.Name})); err != nil {
		t.Fatal(err)
	}
	l.wait(res.Msg.Name)
	if got := l.get(vm.Name); got.State != ashlarv1.VirtualMachine_STATE_RUNNING || !got.DesiredRunning {
		t.Errorf("after a cancelled stop = %v", got)
	}
	l.mustPause(vm.Name)
	if op := l.done(l.machines.DeleteVirtualMachine(ctxOf(t), req(&ashlarv1.DeleteVirtualMachineRequest{Name: vm.Name, Force: true}))); op.Error != nil {
		t.Errorf("forced delete: %v", op.Error)
	}
}

func TestResetByOperator(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	l.mustStart(vm.Name)
	for n, paused := range []bool{false, true, false} {
		before := l.get(vm.Name).StartTime.AsTime()
		if paused {
			l.mustPause(vm.Name)
		}
		if op := l.reset(vm.Name); op.Error != nil || op.Kind != "reset" {
			t.Fatalf("reset = %v", op)
		}
		got := l.get(vm.Name)
		if got.State != ashlarv1.VirtualMachine_STATE_RUNNING || !got.DesiredRunning || !got.StartTime.AsTime().After(before) {
			t.Errorf("after a reset = %v, want it running anew since %v", got, before)
		}
		if r, s := l.core.Calls(hostcall.GuestReset), l.core.Calls(hostcall.GuestStart); r != n+1 || s != n+2 {
			t.Errorf("%d resets, %d starts, want %d and %d", r, s, n+1, n+2)
		}
	}
}

// A reset that core's or control's end has cut off is done once.
func TestResetCutOff(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	l.mustStart(vm.Name)
	l.core.Cut(hostcall.GuestReset)
	if op := l.reset(vm.Name); op.Error != nil {
		t.Errorf("reset = %v", op)
	}
	if r, s := l.core.Calls(hostcall.GuestReset), l.core.Calls(hostcall.GuestStart); r != 1 || s != 2 {
		t.Errorf("%d resets, %d starts, want 1 and 2", r, s)
	}
	for _, at := range []hostcall.Method{hostcall.GuestReset, hostcall.GuestStart} {
		resets, starts := l.core.Calls(hostcall.GuestReset), l.core.Calls(at)
		release := l.core.Hold(at)
		res, err := l.machines.ResetVirtualMachine(ctxOf(t), req(&ashlarv1.ResetVirtualMachineRequest{Name: vm.Name}))
		if err != nil {
			t.Fatal(err)
		}
		l.until(vm.Name, "at it", func(*ashlarv1.VirtualMachine) bool { return l.core.Calls(at) == starts+1 })
		l.restartControl()
		release()
		if op := l.wait(res.Msg.Name); op.Error != nil {
			t.Errorf("reset over control's restart in %s = %v", at, op)
		}
		if got := l.get(vm.Name); got.State != ashlarv1.VirtualMachine_STATE_RUNNING || !got.DesiredRunning {
			t.Errorf("machine = %v", got)
		}
		if n := l.core.Calls(hostcall.GuestReset); n != resets+1 {
			t.Errorf("control's restart in %s: %d resets, want 1", at, n-resets)
		}
	}
}

// A guest that ends by itself just before its reset has ended.
func TestResetOvertaken(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	l.mustStart(vm.Name)
	release := l.core.Hold(hostcall.GuestPause)
	defer release()
	pause, err := l.machines.PauseVirtualMachine(ctxOf(t), req(&ashlarv1.PauseVirtualMachineRequest{Name: vm.Name}))
	if err != nil {
		t.Fatal(err)
	}
	l.until(vm.Name, "pausing", func(*ashlarv1.VirtualMachine) bool { return l.core.Calls(hostcall.GuestPause) == 1 })
	reset, err := l.machines.ResetVirtualMachine(ctxOf(t), req(&ashlarv1.ResetVirtualMachineRequest{Name: vm.Name}))
	if err != nil {
		t.Fatal(err)
	}
	l.core.Exit(vm.Uid, "powered-off", "")
	release()
	for _, name := range []string{pause.Msg.Name, reset.Msg.Name} {
		if op := l.wait(name); op.Error.GetCode() != "FAILED_PRECONDITION" {
			t.Errorf("operation = %v, want it to fail for the guest's end", op)
		}
	}
	if got := l.get(vm.Name); got.State != ashlarv1.VirtualMachine_STATE_STOPPED || got.StopReason != ashlarv1.VirtualMachine_STOP_REASON_POWERED_OFF || got.DesiredRunning {
		t.Errorf("machine = %v", got)
	}
}

// The console of a paused guest is open, and stays so.
func TestConsolePaused(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	l.mustStart(vm.Name)
	l.core.Print(vm.Uid, "before")
	l.mustPause(vm.Name)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	stream := l.machines.Console(ctx)
	if err := stream.Send(&ashlarv1.ConsoleRequest{Name: vm.Name}); err != nil {
		t.Fatal(err)
	}
	if m, err := stream.Receive(); err != nil || string(m.Output) != "before" {
		t.Fatalf("console = %v, %v", m, err)
	}
	if op := l.resume(vm.Name); op.Error != nil {
		t.Fatal(op)
	}
	l.core.Print(vm.Uid, "after")
	if m, err := stream.Receive(); err != nil || string(m.Output) != "after" {
		t.Errorf("console = %v, %v", m, err)
	}
}

func TestCounters(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	l.mustStart(vm.Name)
	if err := l.nmi(&ashlarv1.SendVirtualMachineNmiRequest{Name: vm.Name}); err != nil {
		t.Fatal(err)
	}
	l.mustPause(vm.Name)
	res, err := l.machines.GetVirtualMachineCounters(ctxOf(t), req(&ashlarv1.GetVirtualMachineCountersRequest{Name: vm.Name}))
	if err != nil {
		t.Fatal(err)
	}
	c := res.Msg
	if c.Name != vm.Name || !c.StartTime.AsTime().Equal(l.get(vm.Name).StartTime.AsTime()) || c.ReadTime.AsTime().Sub(c.StartTime.AsTime()) != time.Second {
		t.Errorf("counters = %v", c)
	}
	if c.Devices["disk0.reads"] != 7 || c.Devices["disk0.read_bytes"] != math.MaxInt64 {
		t.Errorf("counters of devices = %v", c.Devices)
	}
	if h := c.Latencies["disk0.read"]; len(c.Latencies) != 1 || !slices.Equal(h.GetCounts(), []int64{0, 0, 3, 4}) {
		t.Errorf("latencies = %v", c.Latencies)
	}
	if len(c.Cpus) != 2 || c.Cpus[0].Counters["nmi_injections"] != 1 || c.Cpus[1].Counters["exits"] != 2 {
		t.Errorf("counters of processors = %v", c.Cpus)
	}
	l.core.Stop()
	_, err = l.machines.GetVirtualMachineCounters(ctxOf(t), req(&ashlarv1.GetVirtualMachineCountersRequest{Name: vm.Name}))
	wantError(t, err, connect.CodeUnavailable, "CORE_UNAVAILABLE", "core is restarting, try again")
}
