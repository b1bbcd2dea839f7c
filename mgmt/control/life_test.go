package control_test

import (
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

func TestHost(t *testing.T) {
	l := newLab(t)
	res, err := l.hosts.GetHost(ctxOf(t), req(&ashlarv1.GetHostRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	if h := res.Msg; h.Name != "host" || h.Hostname != "lab" || h.Cpus != 2 || !h.Kvm || h.BootDuration.AsDuration() != time.Second {
		t.Errorf("host = %v", h)
	}
}

func TestLife(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	if vm.State != ashlarv1.VirtualMachine_STATE_STOPPED || vm.StopReason != ashlarv1.VirtualMachine_STOP_REASON_NOT_STARTED || vm.DesiredRunning {
		t.Errorf("new machine = %v", vm)
	}
	if vm.Disks[0].SizeBytes != 51200 {
		t.Errorf("disk of an image: size %d, want the image's", vm.Disks[0].SizeBytes)
	}
	l.mustStart(vm.Name)
	vm = l.get(vm.Name)
	if vm.State != ashlarv1.VirtualMachine_STATE_RUNNING || !vm.DesiredRunning || vm.StartTime == nil {
		t.Errorf("started machine = %v", vm)
	}
	guest, disks := l.core.Spec(vm.Uid)
	if len(guest.Disks) != len(disks) || guest.Disks[0] != vm.Disks[0].SizeBytes {
		t.Errorf("core was told of disks of %d bytes, and has made %v", guest.Disks, disks)
	}
	if guest.Name != "demo" || guest.VCPUs != 2 || guest.Cmdline != "console=ttyS0" || guest.NICs[0].MAC != vm.NetworkInterfaces[0].MacAddress {
		t.Errorf("core was told %v", guest)
	}
	l.core.Address(vm.Uid, "192.0.2.7")
	l.until(vm.Name, "addressed", func(vm *ashlarv1.VirtualMachine) bool {
		return vm.NetworkInterfaces[0].IpAddress == "192.0.2.7"
	})

	_, err := l.machines.StartVirtualMachine(ctxOf(t), req(&ashlarv1.StartVirtualMachineRequest{Name: vm.Name}))
	wantError(t, err, connect.CodeFailedPrecondition, "WRONG_STATE", "nothing to start")
	_, err = l.machines.DeleteVirtualMachine(ctxOf(t), req(&ashlarv1.DeleteVirtualMachineRequest{Name: vm.Name}))
	wantError(t, err, connect.CodeFailedPrecondition, "WRONG_STATE", "stop it first")
	_, err = l.images.DeleteImage(ctxOf(t), req(&ashlarv1.DeleteImageRequest{Name: "images/kernel"}))
	wantError(t, err, connect.CodeFailedPrecondition, "IN_USE", "virtualMachines/demo")
	if _, err = l.images.DeleteImage(ctxOf(t), req(&ashlarv1.DeleteImageRequest{Name: "images/disk"})); err != nil {
		t.Errorf("delete an image that disks were made from: %v", err)
	}

	op := l.done(l.machines.StopVirtualMachine(ctxOf(t), req(&ashlarv1.StopVirtualMachineRequest{Name: vm.Name})))
	if op.Error != nil || op.Kind != "stop" || op.Target != vm.Name || op.ProgressPercent != 100 {
		t.Errorf("stop = %v", op)
	}
	vm = l.get(vm.Name)
	if vm.State != ashlarv1.VirtualMachine_STATE_STOPPED || vm.StopReason != ashlarv1.VirtualMachine_STOP_REASON_POWERED_OFF || vm.DesiredRunning {
		t.Errorf("stopped machine = %v", vm)
	}
	_, err = l.machines.StopVirtualMachine(ctxOf(t), req(&ashlarv1.StopVirtualMachineRequest{Name: vm.Name}))
	wantError(t, err, connect.CodeFailedPrecondition, "WRONG_STATE", "nothing to stop")

	if op := l.done(l.machines.DeleteVirtualMachine(ctxOf(t), req(&ashlarv1.DeleteVirtualMachineRequest{Name: vm.Name}))); op.Error != nil {
		t.Errorf("delete: %v", op.Error)
	}
	_, err = l.machines.GetVirtualMachine(ctxOf(t), req(&ashlarv1.GetVirtualMachineRequest{Name: vm.Name}))
	wantError(t, err, connect.CodeNotFound, "NO_SUCH_RESOURCE", vm.Name)
	if g, _ := l.core.Has(vm.Uid); g {
		t.Error("core still has the guest")
	}
}

func TestStopForce(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	l.core.Stubborn(true)
	stop := func(m *ashlarv1.StopVirtualMachineRequest) *ashlarv1.Operation {
		t.Helper()
		m.Name = vm.Name
		res, err := l.machines.StopVirtualMachine(ctxOf(t), req(m))
		if err != nil {
			t.Fatal(err)
		}
		return res.Msg
	}
	killed := func() {
		t.Helper()
		if vm := l.get(vm.Name); vm.StopReason != ashlarv1.VirtualMachine_STOP_REASON_KILLED || vm.State != ashlarv1.VirtualMachine_STATE_STOPPED {
			t.Errorf("machine = %v", vm)
		}
	}

	l.mustStart(vm.Name)
	l.wait(stop(&ashlarv1.StopVirtualMachineRequest{GracePeriod: durationpb.New(50 * time.Millisecond)}).Name)
	killed()
	if n := l.core.Calls(hostcall.GuestPowerButton); n != 1 {
		t.Errorf("power button pressed %d times", n)
	}

	l.mustStart(vm.Name)
	slow := stop(&ashlarv1.StopVirtualMachineRequest{GracePeriod: durationpb.New(time.Hour)})
	l.until(vm.Name, "stopping", func(vm *ashlarv1.VirtualMachine) bool {
		return vm.State == ashlarv1.VirtualMachine_STATE_STOPPING
	})
	l.wait(stop(&ashlarv1.StopVirtualMachineRequest{Force: true}).Name) // hurries the first
	if op := l.wait(slow.Name); op.Error != nil {
		t.Errorf("hurried stop = %v", op)
	}
	killed()

	l.mustStart(vm.Name)
	slow = stop(&ashlarv1.StopVirtualMachineRequest{GracePeriod: durationpb.New(time.Hour)})
	if _, err := l.operations.CancelOperation(ctxOf(t), req(&ashlarv1.CancelOperationRequest{Name: slow.Name})); err != nil {
		t.Fatal(err)
	}
	if op := l.wait(slow.Name); op.Error.GetCode() != "CANCELLED" {
		t.Errorf("cancelled stop = %v", op)
	}
	if vm := l.get(vm.Name); vm.State != ashlarv1.VirtualMachine_STATE_RUNNING || !vm.DesiredRunning {
		t.Errorf("after a cancelled stop = %v", vm)
	}

	if op := l.done(l.machines.DeleteVirtualMachine(ctxOf(t), req(&ashlarv1.DeleteVirtualMachineRequest{Name: vm.Name, Force: true}))); op.Error != nil {
		t.Errorf("forced delete: %v", op.Error)
	}
}

// Force hurries a stop that has not begun yet, too.
func TestForceBehindStop(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	l.core.Stubborn(true)
	release := l.core.Hold(hostcall.GuestStart)
	defer release()
	if _, err := l.machines.StartVirtualMachine(ctxOf(t), req(&ashlarv1.StartVirtualMachineRequest{Name: vm.Name})); err != nil {
		t.Fatal(err)
	}
	l.until(vm.Name, "being started", func(*ashlarv1.VirtualMachine) bool { return l.core.Calls(hostcall.GuestStart) == 1 })
	for _, m := range []*ashlarv1.StopVirtualMachineRequest{
		{Name: vm.Name, GracePeriod: durationpb.New(time.Hour)},
		{Name: vm.Name, Force: true},
	} {
		if _, err := l.machines.StopVirtualMachine(ctxOf(t), req(m)); err != nil {
			t.Fatal(err)
		}
	}
	release()
	l.until(vm.Name, "ended", func(vm *ashlarv1.VirtualMachine) bool {
		return vm.StopReason == ashlarv1.VirtualMachine_STOP_REASON_KILLED
	})
}

// A VMM that is too busy for the power button is no reason to end the guest at once.
func TestPowerButtonBusy(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	l.mustStart(vm.Name)
	l.core.Refuse(hostcall.GuestPowerButton, &hostcall.Error{Code: hostcall.Unavailable, Message: "The guest's VMM does not answer."})
	stop, err := l.machines.StopVirtualMachine(ctxOf(t), req(&ashlarv1.StopVirtualMachineRequest{Name: vm.Name}))
	if err != nil {
		t.Fatal(err)
	}
	l.until(vm.Name, "asked", func(*ashlarv1.VirtualMachine) bool { return l.core.Calls(hostcall.GuestPowerButton) > 0 })
	l.core.Refuse(hostcall.GuestPowerButton, nil)
	if op := l.wait(stop.Msg.Name); op.Error != nil {
		t.Errorf("stop = %v", op)
	}
	if vm := l.get(vm.Name); vm.StopReason != ashlarv1.VirtualMachine_STOP_REASON_POWERED_OFF || l.core.Calls(hostcall.GuestKill) != 0 {
		t.Errorf("machine = %v", vm)
	}
}

func TestEnds(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	for reason, want := range map[string]ashlarv1.VirtualMachine_StopReason{
		"powered-off":  ashlarv1.VirtualMachine_STOP_REASON_POWERED_OFF,
		"halted":       ashlarv1.VirtualMachine_STOP_REASON_HALTED,
		"triple-fault": ashlarv1.VirtualMachine_STOP_REASON_TRIPLE_FAULT,
		"failed":       ashlarv1.VirtualMachine_STOP_REASON_FAILED,
		"lost":         ashlarv1.VirtualMachine_STOP_REASON_LOST,
		"unheard-of":   ashlarv1.VirtualMachine_STOP_REASON_FAILED,
	} {
		l.mustStart(vm.Name)
		l.core.Exit(vm.Uid, reason, "because")
		got := l.until(vm.Name, "stopped", func(vm *ashlarv1.VirtualMachine) bool {
			return vm.State == ashlarv1.VirtualMachine_STATE_STOPPED
		})
		if got.StopReason != want || got.StopMessage != "because" || got.DesiredRunning {
			t.Errorf("%s: %v", reason, got)
		}
	}
}

func TestReset(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	l.mustStart(vm.Name)
	for n := 2; n <= 3; n++ {
		l.core.Exit(vm.Uid, "reset", "")
		for i := 0; l.core.Calls(hostcall.GuestStart) < n; i++ {
			if i == 500 {
				t.Fatalf("not started again after reset %d: %v", n-1, l.get(vm.Name))
			}
			time.Sleep(10 * time.Millisecond)
		}
		l.until(vm.Name, "running", func(vm *ashlarv1.VirtualMachine) bool {
			return vm.State == ashlarv1.VirtualMachine_STATE_RUNNING
		})
	}
	// While it waits for its next start it can be stopped.
	l.core.Exit(vm.Uid, "reset", "")
	l.until(vm.Name, "stopped", func(vm *ashlarv1.VirtualMachine) bool {
		return vm.State == ashlarv1.VirtualMachine_STATE_STOPPED && vm.DesiredRunning
	})
	if op := l.done(l.machines.StopVirtualMachine(ctxOf(t), req(&ashlarv1.StopVirtualMachineRequest{Name: vm.Name}))); op.Error != nil {
		t.Errorf("stop between starts: %v", op.Error)
	}
	if vm := l.get(vm.Name); vm.DesiredRunning || vm.State != ashlarv1.VirtualMachine_STATE_STOPPED {
		t.Errorf("machine = %v", vm)
	}
}

func TestStartRefused(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	l.core.Refuse(hostcall.GuestStart, &hostcall.Error{Code: hostcall.InvalidArgument, Field: "guest.kernel", Message: "is no bzImage"})
	op := l.start(vm.Name)
	want := &ashlarv1.OperationError{Code: "INVALID_ARGUMENT", Message: "boot.kernel: is no bzImage"}
	if op.Error.GetCode() != want.Code || op.Error.GetMessage() != want.Message {
		t.Errorf("error = %v, want %v", op.Error, want)
	}
	if vm := l.get(vm.Name); vm.State != ashlarv1.VirtualMachine_STATE_STOPPED || vm.DesiredRunning {
		t.Errorf("machine = %v", vm)
	}
	l.core.Refuse(hostcall.GuestStart, nil)
	l.mustStart(vm.Name)
}

func TestEtag(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	old := vm.Etag
	l.mustStart(vm.Name)
	if now := l.get(vm.Name).Etag; now == old || now == "" {
		t.Errorf("etag before and after a start: %q, %q", old, now)
	}
	_, err := l.machines.StopVirtualMachine(ctxOf(t), req(&ashlarv1.StopVirtualMachineRequest{Name: vm.Name, Etag: old}))
	wantError(t, err, connect.CodeAborted, "ETAG_MISMATCH", "has changed")
	_, err = l.machines.DeleteVirtualMachine(ctxOf(t), req(&ashlarv1.DeleteVirtualMachineRequest{Name: vm.Name, Etag: old, Force: true}))
	wantError(t, err, connect.CodeAborted, "ETAG_MISMATCH", "has changed")
	_, err = l.images.DeleteImage(ctxOf(t), req(&ashlarv1.DeleteImageRequest{Name: "images/disk", Etag: `"x"`}))
	wantError(t, err, connect.CodeAborted, "ETAG_MISMATCH", "has changed")
	now := l.get(vm.Name).Etag
	if _, err := l.machines.StopVirtualMachine(ctxOf(t), req(&ashlarv1.StopVirtualMachineRequest{Name: vm.Name, Etag: now})); err != nil {
		t.Errorf("stop with the etag of now: %v", err)
	}
}

func TestValidation(t *testing.T) {
	l := newLab(t)
	l.upload("kernel", 1000)
	l.announce("half", 1000, content64)
	bad := &ashlarv1.CreateVirtualMachineRequest{
		VirtualMachineId: "Demo_1",
		VirtualMachine: &ashlarv1.VirtualMachine{
			Name: "virtualMachines/other", Cpus: 129, MemoryBytes: 3<<20 + 1,
			Boot: &ashlarv1.Boot{Kernel: "images/none", Initramfs: "images/half", Cmdline: "a\nb"},
			Disks: []*ashlarv1.Disk{
				{}, {SizeBytes: 1000}, {Image: "kernel"}, {Image: "images/kernel"}, {Image: "images/kernel", SizeBytes: 512},
			},
			NetworkInterfaces: []*ashlarv1.NetworkInterface{
				{}, {Network: "nowhere", MacAddress: "zz"}, {Network: "default", MacAddress: "01:00:00:00:00:01"},
				{Network: "default", MacAddress: "02:00:00:00:00:01"}, {Network: "default", MacAddress: "02-00-00-00-00-01"},
			},
		},
	}
	_, err := l.machines.CreateVirtualMachine(ctxOf(t), req(bad))
	got := wantError(t, err, connect.CodeInvalidArgument, "INVALID_FIELD", "images/none does not exist: upload it first")
	want := []string{
		"virtual_machine_id", "virtual_machine.name", "virtual_machine.cpus", "virtual_machine.memory_bytes",
		"virtual_machine.boot.kernel", "virtual_machine.boot.initramfs", "virtual_machine.boot.cmdline",
		"virtual_machine.disks[0].size_bytes", "virtual_machine.disks[1].size_bytes", "virtual_machine.disks[2].image",
		"virtual_machine.disks[3].size_bytes", "virtual_machine.disks[4].size_bytes",
		"virtual_machine.network_interfaces[0].network", "virtual_machine.network_interfaces[1].network",
		"virtual_machine.network_interfaces[1].mac_address", "virtual_machine.network_interfaces[2].mac_address",
		"virtual_machine.network_interfaces[4].mac_address",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
	_, err = l.machines.CreateVirtualMachine(ctxOf(t), req(&ashlarv1.CreateVirtualMachineRequest{}))
	if diff := cmp.Diff([]string{"virtual_machine_id", "virtual_machine"}, wantError(t, err, connect.CodeInvalidArgument, "INVALID_FIELD", "missing")); diff != "" {
		t.Error(diff)
	}
	if guests, _ := l.core.Count(); guests != 0 {
		t.Errorf("%d guests were made", guests)
	}
}

const content64 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestCreateTwice(t *testing.T) {
	l := newLab(t)
	l.upload("kernel", 1000)
	l.upload("disk", 1024)
	only := spec("demo")
	only.ValidateOnly = true
	if _, err := l.machines.CreateVirtualMachine(ctxOf(t), req(only)); err != nil {
		t.Fatalf("validate only: %v", err)
	}
	first := spec("demo")
	first.RequestId = "0b0d3b8e-5f43-4b5e-9a6a-0b3f1d5c7e11"
	made, err := l.machines.CreateVirtualMachine(ctxOf(t), req(first))
	if err != nil {
		t.Fatal(err)
	}
	l.restartControl()
	again, err := l.machines.CreateVirtualMachine(ctxOf(t), req(first))
	if err != nil || again.Msg.Uid != made.Msg.Uid {
		t.Errorf("the same request after a restart: %v, %v", again, err)
	}
	other := spec("other")
	other.RequestId = first.RequestId
	_, err = l.machines.CreateVirtualMachine(ctxOf(t), req(other))
	wantError(t, err, connect.CodeInvalidArgument, "INVALID_FIELD", "another request")
	_, err = l.machines.CreateVirtualMachine(ctxOf(t), req(spec("demo")))
	wantError(t, err, connect.CodeAlreadyExists, "NAME_IN_USE", "virtualMachines/demo")
	taken := spec("third")
	taken.VirtualMachine.NetworkInterfaces[0].MacAddress = made.Msg.NetworkInterfaces[0].MacAddress
	_, err = l.machines.CreateVirtualMachine(ctxOf(t), req(taken))
	wantError(t, err, connect.CodeInvalidArgument, "INVALID_FIELD", "in use by another")

	// Operations, too, are begun once.
	start := &ashlarv1.StartVirtualMachineRequest{Name: "virtualMachines/demo", RequestId: first.RequestId}
	one, err := l.machines.StartVirtualMachine(ctxOf(t), req(start))
	if err != nil {
		t.Fatal(err)
	}
	two, err := l.machines.StartVirtualMachine(ctxOf(t), req(start))
	if err != nil || two.Msg.Name != one.Msg.Name {
		t.Errorf("the same start again: %v, %v", two, err)
	}
	if guests, _ := l.core.Count(); guests != 1 {
		t.Errorf("%d guests", guests)
	}
}

func TestCreateRefusedByCore(t *testing.T) {
	l := newLab(t)
	l.upload("kernel", 1000)
	l.upload("disk", 1024)
	l.core.Refuse(hostcall.GuestCreate, &hostcall.Error{Code: hostcall.ResourceExhausted, Field: "disks[1].size", Message: "the pool has 5 bytes left"})
	_, err := l.machines.CreateVirtualMachine(ctxOf(t), req(spec("demo")))
	wantError(t, err, connect.CodeResourceExhausted, "CORE_REFUSED", "5 bytes left")
	l.core.Refuse(hostcall.GuestCreate, nil)
	if _, err := l.machines.CreateVirtualMachine(ctxOf(t), req(spec("demo"))); err != nil {
		t.Errorf("the name of a refused machine is not free: %v", err)
	}
}
