package control_test

import (
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

func (l *lab) setCPUs(name string, n int32, grace time.Duration) (*connect.Response[ashlarv1.Operation], error) {
	return l.machines.SetVirtualMachineCpus(ctxOf(l.t), req(&ashlarv1.SetVirtualMachineCpusRequest{Name: name, Cpus: n, GracePeriod: durationpb.New(grace)}))
}

// withPlaces makes a machine with one processor of four.
func (l *lab) withPlaces(id string) *ashlarv1.VirtualMachine {
	l.t.Helper()
	kernel := l.withMachine(id + "-other").Boot.Kernel
	res, err := l.machines.CreateVirtualMachine(ctxOf(l.t), req(&ashlarv1.CreateVirtualMachineRequest{
		VirtualMachineId: id, VirtualMachine: &ashlarv1.VirtualMachine{
			Cpus: 1, MaxCpus: 4, MemoryBytes: 64 << 20, Boot: &ashlarv1.Boot{Kernel: kernel},
			Processor: &ashlarv1.Processor{Sockets: 2, Threads: 2},
		},
	}))
	if err != nil {
		l.t.Fatal(err)
	}
	return res.Msg
}

// The number of processors changes in the record, in a guest that runs, and at the next
// start, and outlives control.
func TestSetCPUs(t *testing.T) {
	l := newLab(t)
	vm := l.withPlaces("demo")
	if op := l.done(l.setCPUs(vm.Name, 2, time.Minute)); op.Error != nil || op.Kind != "set-cpus" || l.core.Calls(hostcall.GuestSetVCPUs) != 0 {
		t.Fatalf("of a stopped machine: %v", op)
	}
	l.mustStart(vm.Name)
	if spec, _ := l.core.Spec(vm.Uid); spec.VCPUs != 2 || spec.MaxVCPUs != 4 {
		t.Errorf("started with %d of %d", spec.VCPUs, spec.MaxVCPUs)
	}
	l.core.Cut(hostcall.GuestSetVCPUs) // core ends before it answers
	if op := l.done(l.setCPUs(vm.Name, 4, time.Minute)); op.Error != nil {
		t.Fatal(op)
	}
	l.restartControl()
	if got := l.get(vm.Name); got.Cpus != 4 || got.PresentCpus != 4 || got.MaxCpus != 4 {
		t.Errorf("machine = %v", got)
	}
	if op := l.done(l.setCPUs(vm.Name, 3, time.Minute)); op.Error != nil || l.get(vm.Name).PresentCpus != 3 {
		t.Errorf("3 of 4: %v, %v", op, l.get(vm.Name))
	}
	// Of itself a guest may give up more.
	l.core.GiveUp(vm.Uid, 1)
	if got := l.get(vm.Name); got.Cpus != 3 || got.PresentCpus != 1 {
		t.Errorf("machine = %v", got)
	}
	if op := l.reset(vm.Name); op.Error != nil {
		t.Fatal(op)
	}
	if spec, _ := l.core.Spec(vm.Uid); spec.VCPUs != 3 || l.get(vm.Name).PresentCpus != 3 {
		t.Errorf("after a reset: %d, %v", spec.VCPUs, l.get(vm.Name))
	}
}

// A guest that keeps processors is told of, and begins with fewer the next time.
func TestSetCPUsKept(t *testing.T) {
	l := newLab(t)
	vm := l.withPlaces("demo")
	l.mustStart(vm.Name)
	if op := l.done(l.setCPUs(vm.Name, 4, 0)); op.Error != nil {
		t.Fatal(op)
	}
	l.core.Keep(vm.Uid, 1)
	op := l.done(l.setCPUs(vm.Name, 2, time.Hour))
	if op.Error == nil || !strings.Contains(op.Error.Message, "has 3 processors, not 2: its guest refuses") {
		t.Errorf("refused: %v", op)
	}
	if got := l.get(vm.Name); got.Cpus != 2 || got.PresentCpus != 3 {
		t.Errorf("machine = %v", got)
	}
	// One that says nothing has its time.
	l.core.Keep(vm.Uid, -1)
	op = l.done(l.setCPUs(vm.Name, 1, time.Millisecond))
	if op.Error == nil || !strings.Contains(op.Error.Message, "has not given up more in 1ms") {
		t.Errorf("silent: %v", op)
	}
	// And while it is waited for, it may obey, or be ended.
	res, err := l.setCPUs(vm.Name, 1, time.Hour)
	l.core.GiveUp(vm.Uid, 1)
	if op := l.done(res, err); op.Error != nil {
		t.Errorf("obeyed late: %v", op)
	}
}

func TestSetCPUsRefused(t *testing.T) {
	l := newLab(t)
	vm := l.withPlaces("demo")
	for _, n := range []int32{-1, 0, 5, 129} {
		_, err := l.setCPUs(vm.Name, n, 0)
		wantError(t, err, connect.CodeInvalidArgument, "INVALID_FIELD", "cpus")
	}
	_, err := l.setCPUs(vm.Name, 2, -time.Second)
	wantError(t, err, connect.CodeInvalidArgument, "INVALID_FIELD", "grace_period")
	_, err = l.setCPUs("virtualMachines/demo-other", 1, 0)
	wantError(t, err, connect.CodeFailedPrecondition, "WRONG_STATE", "for good")
	l.mustStart(vm.Name)
	l.mustPause(vm.Name)
	_, err = l.setCPUs(vm.Name, 2, 0)
	wantError(t, err, connect.CodeFailedPrecondition, "WRONG_STATE", "resume it")
	for _, n := range []int32{-1, 1, 129} {
		vm := &ashlarv1.VirtualMachine{Cpus: 2, MaxCpus: n, MemoryBytes: 64 << 20, Boot: vm.Boot}
		_, err := l.machines.CreateVirtualMachine(ctxOf(t), req(&ashlarv1.CreateVirtualMachineRequest{VirtualMachineId: "x", VirtualMachine: vm}))
		wantError(t, err, connect.CodeInvalidArgument, "INVALID_FIELD", "virtual_machine.max_cpus")
	}
}
