package control_test

import (
	"slices"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

func (l *lab) attachDisk(r *ashlarv1.AttachVirtualMachineDiskRequest) (*connect.Response[ashlarv1.Operation], error) {
	return l.machines.AttachVirtualMachineDisk(ctxOf(l.t), req(r))
}

func (l *lab) detachDisk(r *ashlarv1.DetachVirtualMachineDiskRequest) (*connect.Response[ashlarv1.Operation], error) {
	r.DeleteContent = true
	return l.machines.DetachVirtualMachineDisk(ctxOf(l.t), req(r))
}

func (l *lab) attachNIC(r *ashlarv1.AttachVirtualMachineNetworkInterfaceRequest) (*connect.Response[ashlarv1.Operation], error) {
	return l.machines.AttachVirtualMachineNetworkInterface(ctxOf(l.t), req(r))
}

func (l *lab) detachNIC(r *ashlarv1.DetachVirtualMachineNetworkInterfaceRequest) (*connect.Response[ashlarv1.Operation], error) {
	return l.machines.DetachVirtualMachineNetworkInterface(ctxOf(l.t), req(r))
}

// succeeds fails the test where an operation has failed.
func (l *lab) succeeds(res *connect.Response[ashlarv1.Operation], err error) {
	l.t.Helper()
	if op := l.done(res, err); op.Error != nil {
		l.t.Fatalf("%s: %v", op.Kind, op.Error)
	}
}

// fails returns why an operation has failed, which has to be with code.
func (l *lab) fails(op *ashlarv1.Operation, code string) string {
	l.t.Helper()
	if op.Error == nil || op.Error.Code != code {
		l.t.Fatalf("%s: %v, want %s", op.Kind, op.Error, code)
	}
	return op.Error.Message
}

// wantDevices compares the numbers of disks and interfaces in the record, of disks in core,
// and what a guest has that runs.
func (l *lab) wantDevices(name string, disks, nics []int32) {
	l.t.Helper()
	vm := l.get(name)
	var gotDisks, gotNICs []int32
	var inCore []int
	var want []string
	for _, d := range vm.Disks {
		gotDisks = append(gotDisks, d.Number)
		inCore = append(inCore, int(d.Number))
		want = append(want, hostcall.DeviceName(hostcall.DiskKind, int(d.Number)))
	}
	for _, n := range vm.NetworkInterfaces {
		gotNICs = append(gotNICs, n.Number)
		want = append(want, hostcall.DeviceName(hostcall.NICKind, int(n.Number)))
	}
	if !slices.Equal(gotDisks, disks) || !slices.Equal(gotNICs, nics) {
		l.t.Errorf("disks %v, network interfaces %v; want %v, %v", gotDisks, gotNICs, disks, nics)
	}
	if got := l.core.Disks(vm.Uid); !slices.Equal(got, inCore) {
		l.t.Errorf("core has the disks %v, the record %v", got, inCore)
	}
	if vm.State == ashlarv1.VirtualMachine_STATE_STOPPED {
		return
	}
	var has []string
	for _, d := range l.core.Devices(vm.Uid) {
		has = append(has, d.Name)
	}
	slices.Sort(has)
	slices.Sort(want)
	if !slices.Equal(has, want) {
		l.t.Errorf("the guest has %v, the record %v", has, want)
	}
}

// Disks and interfaces come and go with stopped and running machines; their numbers stay.
func TestHotplug(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	if vm.GetHotplugSlots() != 4 {
		t.Errorf("%d hot-plug slots, want 4", vm.GetHotplugSlots())
	}
	disk := &ashlarv1.AttachVirtualMachineDiskRequest{Name: vm.Name, Disk: &ashlarv1.Disk{Image: "images/disk", Limits: &ashlarv1.DiskLimits{OperationsPerSecond: 100}}}
	nic := &ashlarv1.AttachVirtualMachineNetworkInterfaceRequest{Name: vm.Name, NetworkInterface: &ashlarv1.NetworkInterface{Network: "default"}}
	nics := int32(len(vm.NetworkInterfaces))

	l.succeeds(l.attachDisk(disk)) // 2, stopped
	l.succeeds(l.detachDisk(&ashlarv1.DetachVirtualMachineDiskRequest{Name: vm.Name, Disk: 1}))
	l.mustStart(vm.Name)
	l.wantDevices(vm.Name, []int32{0, 2}, numbersTo(nics))
	if l.limitsInCore(vm.Uid, 1) == nil {
		t.Error("the attached disk was started without its limits")
	}
	l.succeeds(l.attachDisk(disk)) // 1, running
	l.succeeds(l.attachNIC(nic))
	l.wantDevices(vm.Name, []int32{0, 1, 2}, numbersTo(nics+1))
	if d := l.get(vm.Name).Disks[1]; d.SizeBytes != 512*100 || !proto.Equal(d.Limits, disk.Disk.Limits) {
		t.Errorf("attached disk = %v", d)
	}
	message := l.fails(l.done(l.detachDisk(&ashlarv1.DetachVirtualMachineDiskRequest{Name: vm.Name, Disk: 2})), "FAILED_PRECONDITION")
	if want := "disk2 was there when virtualMachines/demo was started, and is in no hot-plug slot: stop it first"; message != want {
		t.Errorf("message = %q, want %q", message, want)
	}
	l.restartControl()
	l.mustPause(vm.Name)
	l.succeeds(l.attachDisk(disk)) // 3
	l.succeeds(l.detachDisk(&ashlarv1.DetachVirtualMachineDiskRequest{Name: vm.Name, Disk: 1, Force: true}))
	l.wantDevices(vm.Name, []int32{0, 2, 3}, numbersTo(nics+1))
	l.resume(vm.Name)
	l.succeeds(l.detachNIC(&ashlarv1.DetachVirtualMachineNetworkInterfaceRequest{Name: vm.Name, NetworkInterface: nics}))
	l.wantDevices(vm.Name, []int32{0, 2, 3}, numbersTo(nics))
	l.succeeds(l.resize(&ashlarv1.ResizeVirtualMachineDiskRequest{Name: vm.Name, Disk: 3, SizeBytes: 1 << 20}))
	if d := l.get(vm.Name).Disks[2]; d.Number != 3 || d.SizeBytes != 1<<20 {
		t.Errorf("grown disk = %v", d)
	}
	if op := l.reset(vm.Name); op.Error != nil {
		t.Fatal(op)
	}
	l.wantDevices(vm.Name, []int32{0, 2, 3}, numbersTo(nics))
}

func numbersTo(n int32) (out []int32) {
	for i := range n {
		out = append(out, i)
	}
	return out
}

// A guest that keeps its disk keeps it until it gives it up, or is not asked any more.
func TestDetachFromStubbornGuest(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	l.mustStart(vm.Name)
	disk := &ashlarv1.AttachVirtualMachineDiskRequest{Name: vm.Name, Disk: &ashlarv1.Disk{SizeBytes: 4096}}
	for range 2 {
		l.succeeds(l.attachDisk(disk)) // 2 and 3
	}
	l.core.Stubborn(true)
	short := &ashlarv1.DetachVirtualMachineDiskRequest{Name: vm.Name, Disk: 2, GracePeriod: durationpb.New(1)}
	l.fails(l.done(l.detachDisk(short)), "FAILED_PRECONDITION")
	l.wantDevices(vm.Name, []int32{0, 1, 2, 3}, numbersTo(int32(len(vm.NetworkInterfaces))))

	// It goes on over a restart of control, and one of core.
	long := &ashlarv1.DetachVirtualMachineDiskRequest{Name: vm.Name, Disk: 2, GracePeriod: durationpb.New(3600e9)}
	waiting, err := l.detachDisk(long)
	if err != nil {
		t.Fatal(err)
	}
	_, err = l.detachDisk(long)
	wantError(t, err, connect.CodeFailedPrecondition, "WRONG_STATE", "is being detached by "+waiting.Msg.Name)
	l.restartControl()
	l.core.Stop()
	if err := l.core.Start(); err != nil {
		t.Fatal(err)
	}
	l.core.GiveUpDevice(vm.Uid, "disk2")
	if op := l.wait(waiting.Msg.Name); op.Error != nil {
		t.Fatal(op)
	}
	l.wantDevices(vm.Name, []int32{0, 1, 3}, numbersTo(int32(len(vm.NetworkInterfaces))))

	// Force need not wait behind patience, nor does a stop.
	long.Disk = 3
	if waiting, err = l.detachDisk(long); err != nil {
		t.Fatal(err)
	}
	l.succeeds(l.detachDisk(&ashlarv1.DetachVirtualMachineDiskRequest{Name: vm.Name, Disk: 3, Force: true}))
	l.fails(l.wait(waiting.Msg.Name), "FAILED_PRECONDITION")
	l.wantDevices(vm.Name, []int32{0, 1}, numbersTo(int32(len(vm.NetworkInterfaces))))

	// A guest that is reset or ends meanwhile has nothing to keep.
	l.succeeds(l.attachDisk(disk)) // 2
	long.Disk = 2
	if waiting, err = l.detachDisk(long); err != nil {
		t.Fatal(err)
	}
	l.until(vm.Name, "asked", func(*ashlarv1.VirtualMachine) bool { return l.core.Calls(hostcall.GuestDetach) >= 4 })
	l.core.Exit(vm.Uid, "reset", "")
	if op := l.wait(waiting.Msg.Name); op.Error != nil {
		t.Fatal(op)
	}
	l.until(vm.Name, "running", func(vm *ashlarv1.VirtualMachine) bool { return vm.State == ashlarv1.VirtualMachine_STATE_RUNNING })
	l.wantDevices(vm.Name, []int32{0, 1}, numbersTo(int32(len(vm.NetworkInterfaces))))
}

// Whoever goes away while something is attached or detached, it is done, or nothing is left.
func TestHotplugCutOff(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	nics := numbersTo(int32(len(vm.NetworkInterfaces)))
	disk := &ashlarv1.AttachVirtualMachineDiskRequest{Name: vm.Name, Disk: &ashlarv1.Disk{Image: "images/disk"}}
	detach := &ashlarv1.DetachVirtualMachineDiskRequest{Name: vm.Name, Disk: 2}
	for _, running := range []bool{false, true} {
		if running {
			l.mustStart(vm.Name)
		}
		l.core.Cut(hostcall.GuestAttachDisk)
		l.succeeds(l.attachDisk(disk))
		l.wantDevices(vm.Name, []int32{0, 1, 2}, nics)
		l.core.Cut(hostcall.GuestDrop)
		l.core.Cut(hostcall.GuestDetach)
		l.core.Cut(hostcall.GuestDevices)
		l.succeeds(l.detachDisk(detach))
		l.wantDevices(vm.Name, []int32{0, 1}, nics)

		for _, step := range []struct {
			at    hostcall.Method
			begin func() (*connect.Response[ashlarv1.Operation], error)
			want  []int32
		}{
			{hostcall.GuestAttachDisk, func() (*connect.Response[ashlarv1.Operation], error) { return l.attachDisk(disk) }, []int32{0, 1, 2}},
			{hostcall.GuestDrop, func() (*connect.Response[ashlarv1.Operation], error) { return l.detachDisk(detach) }, []int32{0, 1}},
		} {
			release := l.core.Hold(step.at)
			calls := l.core.Calls(step.at)
			op, err := step.begin()
			if err != nil {
				t.Fatal(err)
			}
			l.until(vm.Name, "at it", func(*ashlarv1.VirtualMachine) bool { return l.core.Calls(step.at) > calls })
			l.restartControl()
			release()
			if op := l.wait(op.Msg.Name); op.Error != nil {
				t.Fatal(op)
			}
			l.wantDevices(vm.Name, step.want, nics)
		}

		// Refused or unclear: nothing is left, as soon as core can be asked.
		for _, code := range []hostcall.Code{hostcall.ResourceExhausted, hostcall.Unavailable} {
			l.core.Refuse(hostcall.GuestAttachDisk, &hostcall.Error{Code: code, Message: "No."})
			l.core.Refuse(hostcall.GuestDrop, &hostcall.Error{Code: hostcall.Unavailable, Message: "No."})
			if op := l.done(l.attachDisk(disk)); op.Error == nil {
				t.Fatal(op)
			}
			l.core.Refuse(hostcall.GuestAttachDisk, nil)
			l.core.Refuse(hostcall.GuestDrop, nil)
			l.restartControl()
			l.succeeds(l.attachDisk(disk)) // the number of what is not removed yet is not free
			number := l.get(vm.Name).Disks[2].Number
			l.succeeds(l.detachDisk(&ashlarv1.DetachVirtualMachineDiskRequest{Name: vm.Name, Disk: number}))
			l.wantDevices(vm.Name, []int32{0, 1}, nics)
		}
	}
}

func TestHotplugRefused(t *testing.T) {
	l := newLab(t)
	vm := l.withMachine("demo")
	ctx := ctxOf(t)
	mac := vm.NetworkInterfaces[0].MacAddress
	for name, tt := range map[string]struct {
		call func() error
		want string
	}{
		"disk without size": {func() error {
			_, err := l.attachDisk(&ashlarv1.AttachVirtualMachineDiskRequest{Name: vm.Name})
			return err
		}, "disk.size_bytes"},
		"no such image": {func() error {
			_, err := l.attachDisk(&ashlarv1.AttachVirtualMachineDiskRequest{Name: vm.Name, Disk: &ashlarv1.Disk{Image: "images/none"}})
			return err
		}, "disk.image"},
		"content not to be deleted": {func() error {
			_, err := l.machines.DetachVirtualMachineDisk(ctx, req(&ashlarv1.DetachVirtualMachineDiskRequest{Name: vm.Name}))
			return err
		}, "delete_content"},
		"no such disk": {func() error {
			_, err := l.detachDisk(&ashlarv1.DetachVirtualMachineDiskRequest{Name: vm.Name, Disk: 9})
			return err
		}, "disk"},
		"patience without end": {func() error {
			_, err := l.detachDisk(&ashlarv1.DetachVirtualMachineDiskRequest{Name: vm.Name, GracePeriod: durationpb.New(3601e9)})
			return err
		}, "grace_period"},
		"no such network": {func() error {
			_, err := l.attachNIC(&ashlarv1.AttachVirtualMachineNetworkInterfaceRequest{Name: vm.Name, NetworkInterface: &ashlarv1.NetworkInterface{Network: "none"}})
			return err
		}, "network_interface.network"},
		"address in use": {func() error {
			_, err := l.attachNIC(&ashlarv1.AttachVirtualMachineNetworkInterfaceRequest{Name: vm.Name, NetworkInterface: &ashlarv1.NetworkInterface{Network: "default", MacAddress: mac}})
			return err
		}, "network_interface.mac_address"},
		"no such interface": {func() error {
			_, err := l.detachNIC(&ashlarv1.DetachVirtualMachineNetworkInterfaceRequest{Name: vm.Name, NetworkInterface: 7})
			return err
		}, "network_interface"},
	} {
		fields := wantError(t, tt.call(), connect.CodeInvalidArgument, "INVALID_FIELD", "")
		if len(fields) != 1 || fields[0] != tt.want {
			t.Errorf("%s: fields %v, want %s", name, fields, tt.want)
		}
	}
	l.mustStart(vm.Name)
	disk := &ashlarv1.AttachVirtualMachineDiskRequest{Name: vm.Name, Disk: &ashlarv1.Disk{SizeBytes: 512}}
	for range 4 {
		l.succeeds(l.attachDisk(disk))
	}
	l.fails(l.done(l.attachDisk(disk)), "FAILED_PRECONDITION") // no slot
	l.wantDevices(vm.Name, numbersTo(6), numbersTo(int32(len(vm.NetworkInterfaces))))
	nic := &ashlarv1.AttachVirtualMachineNetworkInterfaceRequest{Name: vm.Name, NetworkInterface: &ashlarv1.NetworkInterface{Network: "default", MacAddress: "02:00:00:00:00:77"}}
	l.fails(l.done(l.attachNIC(nic)), "FAILED_PRECONDITION")
	l.succeeds(l.detachDisk(&ashlarv1.DetachVirtualMachineDiskRequest{Name: vm.Name, Disk: 5}))
	l.succeeds(l.attachNIC(nic)) // the address is free again
	l.mustPause(vm.Name)
	_, err := l.detachDisk(&ashlarv1.DetachVirtualMachineDiskRequest{Name: vm.Name, Disk: 4})
	wantError(t, err, connect.CodeFailedPrecondition, "WRONG_STATE", "is paused and cannot give anything up")
}
