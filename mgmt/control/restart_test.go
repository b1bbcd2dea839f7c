package control_test

import (
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

func TestCoreRestart(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	l.mustStart(vm.Name)
	l.core.Stop()
	_, err := l.machines.CreateVirtualMachine(ctxOf(t), req(spec("other")))
	wantError(t, err, connect.CodeUnavailable, "CORE_UNAVAILABLE", "core is restarting, try again")
	_, err = l.hosts.GetHost(ctxOf(t), req(&ashlarv1.GetHostRequest{}))
	wantError(t, err, connect.CodeUnavailable, "CORE_UNAVAILABLE", "core is restarting, try again")
	if got := l.get(vm.Name); got.State != ashlarv1.VirtualMachine_STATE_RUNNING {
		t.Errorf("while core is away: %v", got)
	}
	// The guest ends while nobody looks; a stop that was asked for is done all the same.
	res, err := l.machines.StopVirtualMachine(ctxOf(t), req(&ashlarv1.StopVirtualMachineRequest{Name: vm.Name}))
	if err != nil {
		t.Fatal(err)
	}
	l.core.Exit(vm.Uid, "halted", "")
	if err := l.core.Start(); err != nil {
		t.Fatal(err)
	}
	if op := l.wait(res.Msg.Name); op.Error != nil {
		t.Errorf("stop = %v", op)
	}
	l.until(vm.Name, "halted", func(vm *ashlarv1.VirtualMachine) bool {
		return vm.StopReason == ashlarv1.VirtualMachine_STOP_REASON_HALTED && !vm.DesiredRunning
	})
}

// A start that core's end has cut off is looked into, not repeated blindly.
func TestStartCutOff(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	l.core.Cut(hostcall.GuestStart)
	l.mustStart(vm.Name)
	if n := l.core.Calls(hostcall.GuestStart); n != 1 {
		t.Errorf("started %d times", n)
	}
}

// A creation that core's end has cut off leaves nothing behind.
func TestCreateCutOff(t *testing.T) {
	l := newLab(t)
	l.upload("kernel", 1000)
	l.upload("disk", 1024)
	l.core.Cut(hostcall.GuestCreate)
	create := spec("demo")
	create.RequestId = "0b0d3b8e-5f43-4b5e-9a6a-0b3f1d5c7e12"
	_, err := l.machines.CreateVirtualMachine(ctxOf(t), req(create))
	wantError(t, err, connect.CodeUnavailable, "CORE_UNAVAILABLE", "core is restarting, try again")
	for i := 0; ; i++ {
		if _, err = l.machines.CreateVirtualMachine(ctxOf(t), req(create)); err == nil {
			break
		}
		if i == 500 {
			t.Fatalf("still: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if guests, _ := l.core.Count(); guests != 1 {
		t.Errorf("%d guests", guests)
	}
}

// What was going on when control ended goes on when it is back.
func TestControlRestart(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	l.mustStart(vm.Name)
	l.core.Stubborn(true)
	res, err := l.machines.StopVirtualMachine(ctxOf(t), req(&ashlarv1.StopVirtualMachineRequest{Name: vm.Name, GracePeriod: durationpb.New(time.Second)}))
	if err != nil {
		t.Fatal(err)
	}
	l.until(vm.Name, "stopping", func(vm *ashlarv1.VirtualMachine) bool {
		return vm.State == ashlarv1.VirtualMachine_STATE_STOPPING
	})
	l.restartControl()
	if op := l.wait(res.Msg.Name); op.Error != nil {
		t.Errorf("stop = %v", op)
	}
	if got := l.get(vm.Name); got.StopReason != ashlarv1.VirtualMachine_STOP_REASON_KILLED || got.Uid != vm.Uid {
		t.Errorf("machine = %v", got)
	}

	release := l.core.Hold(hostcall.GuestDelete)
	defer release()
	del, err := l.machines.DeleteVirtualMachine(ctxOf(t), req(&ashlarv1.DeleteVirtualMachineRequest{Name: vm.Name}))
	if err != nil {
		t.Fatal(err)
	}
	l.until(vm.Name, "deleting", func(vm *ashlarv1.VirtualMachine) bool { return l.core.Calls(hostcall.GuestDelete) == 1 })
	l.restartControl()
	release()
	if op := l.wait(del.Msg.Name); op.Error != nil {
		t.Errorf("delete = %v", op)
	}
	if guests, _ := l.core.Count(); guests != 0 {
		t.Errorf("%d guests", guests)
	}
}

// A guest that ran goes on when control is away, and what happened meanwhile is seen.
func TestRunsOn(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	l.mustStart(vm.Name)
	l.restartControl()
	if got := l.get(vm.Name); got.State != ashlarv1.VirtualMachine_STATE_RUNNING || !got.DesiredRunning {
		t.Errorf("machine = %v", got)
	}
	if n := l.core.Calls(hostcall.GuestStart); n != 1 {
		t.Errorf("started %d times", n)
	}
	l.stop()
	l.core.Exit(vm.Uid, "triple-fault", "at 0x10")
	l.startControl()
	if got := l.get(vm.Name); got.StopReason != ashlarv1.VirtualMachine_STOP_REASON_TRIPLE_FAULT || got.StopMessage != "at 0x10" {
		t.Errorf("machine = %v", got)
	}
}

func TestHostReboot(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	l.mustStart(vm.Name)
	l.stop()
	l.core.Reboot()
	l.startControl()
	got := l.until(vm.Name, "settled", func(vm *ashlarv1.VirtualMachine) bool { return vm.StopMessage != "" })
	if got.State != ashlarv1.VirtualMachine_STATE_STOPPED || got.StopReason != ashlarv1.VirtualMachine_STOP_REASON_NOT_STARTED || got.DesiredRunning {
		t.Errorf("machine = %v", got)
	}
	if n := l.core.Calls(hostcall.GuestStart); n != 1 {
		t.Errorf("started %d times", n)
	}
	l.mustStart(vm.Name)
}

// Operations of one machine are done in order; those of another one do not wait.
func TestOrder(t *testing.T) {
	l := newLab(t)
	one := l.withMachine("one")
	if _, err := l.machines.CreateVirtualMachine(ctxOf(t), req(spec("two"))); err != nil {
		t.Fatal(err)
	}
	release := l.core.Hold(hostcall.GuestStart)
	first, err := l.machines.StartVirtualMachine(ctxOf(t), req(&ashlarv1.StartVirtualMachineRequest{Name: one.Name}))
	if err != nil {
		t.Fatal(err)
	}
	stop, err := l.machines.StopVirtualMachine(ctxOf(t), req(&ashlarv1.StopVirtualMachineRequest{Name: one.Name, Force: true}))
	if err != nil {
		t.Fatalf("stop after a start under way: %v", err)
	}
	queued, err := l.machines.StartVirtualMachine(ctxOf(t), req(&ashlarv1.StartVirtualMachineRequest{Name: one.Name}))
	if err != nil {
		t.Fatalf("start after a stop in the queue: %v", err)
	}
	if _, err := l.operations.CancelOperation(ctxOf(t), req(&ashlarv1.CancelOperationRequest{Name: queued.Msg.Name})); err != nil {
		t.Fatal(err)
	}
	if op := l.wait(queued.Msg.Name); op.Error.GetCode() != "CANCELLED" {
		t.Errorf("cancelled before it began: %v", op)
	}
	if op := l.done(l.machines.DeleteVirtualMachine(ctxOf(t), req(&ashlarv1.DeleteVirtualMachineRequest{Name: "virtualMachines/two"}))); op.Error != nil {
		t.Errorf("another machine: %v", op)
	}
	release()
	if op := l.wait(first.Msg.Name); op.Error != nil {
		t.Errorf("start: %v", op)
	}
	if op := l.wait(stop.Msg.Name); op.Error != nil {
		t.Errorf("stop: %v", op)
	}
	list, err := l.operations.ListOperations(ctxOf(t), req(&ashlarv1.ListOperationsRequest{}))
	if err != nil || len(list.Msg.Operations) != 4 || list.Msg.Operations[3].Name != first.Msg.Name {
		t.Errorf("operations, newest first: %v, %v", list, err)
	}
	_, err = l.operations.WaitOperation(ctxOf(t), req(&ashlarv1.WaitOperationRequest{Name: "operations/none"}))
	wantError(t, err, connect.CodeNotFound, "NO_SUCH_RESOURCE", "operations/none")
}

// A deletion that was cancelled before control ended does not go on after it.
func TestCancelledBeforeRestart(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	l.mustStart(vm.Name)
	release := l.core.Hold(hostcall.GuestKill)
	defer release()
	del, err := l.machines.DeleteVirtualMachine(ctxOf(t), req(&ashlarv1.DeleteVirtualMachineRequest{Name: vm.Name, Force: true}))
	if err != nil {
		t.Fatal(err)
	}
	l.until(vm.Name, "being ended", func(*ashlarv1.VirtualMachine) bool { return l.core.Calls(hostcall.GuestKill) == 1 })
	if _, err := l.operations.CancelOperation(ctxOf(t), req(&ashlarv1.CancelOperationRequest{Name: del.Msg.Name})); err != nil {
		t.Fatal(err)
	}
	l.restartControl()
	release()
	if op := l.wait(del.Msg.Name); op.Error.GetCode() != "CANCELLED" {
		t.Errorf("delete = %v, want CANCELLED", op)
	}
	if guest, _ := l.core.Has(vm.Uid); !guest {
		t.Error("the guest and its disks are gone")
	}
}

// A stop that was cancelled before control ended leaves the guest wanted.
func TestCancelledStopBeforeRestart(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	l.mustStart(vm.Name)
	l.core.Stubborn(true)
	release := l.core.Hold(hostcall.GuestPowerButton)
	defer release()
	stop, err := l.machines.StopVirtualMachine(ctxOf(t), req(&ashlarv1.StopVirtualMachineRequest{Name: vm.Name, GracePeriod: durationpb.New(time.Hour)}))
	if err != nil {
		t.Fatal(err)
	}
	l.until(vm.Name, "asked", func(*ashlarv1.VirtualMachine) bool { return l.core.Calls(hostcall.GuestPowerButton) == 1 })
	if _, err := l.operations.CancelOperation(ctxOf(t), req(&ashlarv1.CancelOperationRequest{Name: stop.Msg.Name})); err != nil {
		t.Fatal(err)
	}
	l.restartControl()
	release()
	if op := l.wait(stop.Msg.Name); op.Error.GetCode() != "CANCELLED" {
		t.Errorf("stop = %v, want CANCELLED", op)
	}
	if vm := l.get(vm.Name); vm.State != ashlarv1.VirtualMachine_STATE_RUNNING || !vm.DesiredRunning {
		t.Errorf("after a cancelled stop = %v", vm)
	}
}

// A start that an earlier control has asked for, and that fails after control is back,
// fails the operation too, with core's reason.
func TestStartFailsAfterRestart(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	l.core.Refuse(hostcall.GuestStart, &hostcall.Error{Code: hostcall.InvalidArgument, Field: "guest.kernel", Message: "is no bzImage"})
	release := l.core.Hold(hostcall.GuestStart)
	defer release()
	start, err := l.machines.StartVirtualMachine(ctxOf(t), req(&ashlarv1.StartVirtualMachineRequest{Name: vm.Name}))
	if err != nil {
		t.Fatal(err)
	}
	l.until(vm.Name, "called", func(*ashlarv1.VirtualMachine) bool { return l.core.Calls(hostcall.GuestStart) == 1 })
	l.core.Tell(hostcall.GuestStatus{ID: vm.Uid, State: hostcall.Starting, Started: time.Now()})
	l.restartControl()
	release()
	time.Sleep(50 * time.Millisecond) // it sees that the guest is being started
	l.core.Tell(hostcall.GuestStatus{ID: vm.Uid, State: hostcall.Stopped})
	if op := l.wait(start.Msg.Name); op.Error.GetCode() != "INVALID_ARGUMENT" || op.Error.GetMessage() != "boot.kernel: is no bzImage" {
		t.Errorf("start = %v, want core's refusal", op)
	}
	if vm := l.get(vm.Name); vm.State != ashlarv1.VirtualMachine_STATE_STOPPED || vm.DesiredRunning {
		t.Errorf("machine = %v", vm)
	}
}

// A stop that is cancelled while core is away leaves all as it was.
func TestCancelWhileCoreIsAway(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	l.mustStart(vm.Name)
	l.core.Stop()
	stop, err := l.machines.StopVirtualMachine(ctxOf(t), req(&ashlarv1.StopVirtualMachineRequest{Name: vm.Name}))
	if err != nil {
		t.Fatal(err)
	}
	l.until(vm.Name, "unwanted", func(vm *ashlarv1.VirtualMachine) bool { return !vm.DesiredRunning })
	if _, err := l.operations.CancelOperation(ctxOf(t), req(&ashlarv1.CancelOperationRequest{Name: stop.Msg.Name})); err != nil {
		t.Fatal(err)
	}
	if op := l.wait(stop.Msg.Name); op.Error.GetCode() != "CANCELLED" {
		t.Errorf("stop = %v, want CANCELLED", op)
	}
	if vm := l.get(vm.Name); !vm.DesiredRunning {
		t.Errorf("after a cancelled stop = %v", vm)
	}
}

// A machine that is made while core is making a list is not taken for a lost one.
func TestCreateDuringList(t *testing.T) {
	l := newLab(t)
	one := l.withMachine("one")
	release := l.core.Hold(hostcall.GuestList)
	defer release()
	lists := l.core.Calls(hostcall.GuestList)
	start, err := l.machines.StartVirtualMachine(ctxOf(t), req(&ashlarv1.StartVirtualMachineRequest{Name: one.Name}))
	if err != nil {
		t.Fatal(err)
	}
	l.until(one.Name, "listed", func(*ashlarv1.VirtualMachine) bool { return l.core.Calls(hostcall.GuestList) > lists })
	made := make(chan error, 1)
	go func() {
		_, err := l.machines.CreateVirtualMachine(ctxOf(t), req(spec("two")))
		made <- err
	}()
	l.until(one.Name, "joined", func(*ashlarv1.VirtualMachine) bool { return l.core.Calls(hostcall.GuestCreate) == 2 })
	time.Sleep(100 * time.Millisecond) // the older list comes after the machine was made
	release()
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	if op := l.wait(start.Msg.Name); op.Error != nil {
		t.Errorf("start = %v", op)
	}
	if vm := l.get("virtualMachines/two"); vm.StopMessage != "" {
		t.Errorf("new machine = %v", vm)
	}
}
