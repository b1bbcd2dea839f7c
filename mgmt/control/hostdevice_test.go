package control_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// spare are two devices that a guest can have, and one that the host needs.
func spare() []hostcall.PCIDevice {
	return []hostcall.PCIDevice{
		{Address: "0000:01:00.0", Names: []string{"path-a", "mac-02"}, Vendor: 1, Device: 2, Group: 1},
		{Address: "0000:02:00.0", Names: []string{"path-b", "dsn-b.0", "nvme-S"}, Vendor: 1, Device: 3, Group: 2},
		{Address: "0000:03:00.0", Names: []string{"path-c"}, Vendor: 1, Device: 4, Group: 3, Uses: []string{"data-disk"}},
	}
}

// withSpare waits until control knows the devices.
func withSpare(t *testing.T) *lab {
	l := newLab(t)
	l.core.SetPCI(spare()...)
	l.eventually("the devices are known", func() bool {
		_, err := l.devices.GetPciDevice(ctxOf(t), req(&ashlarv1.GetPciDeviceRequest{Name: "pciDevices/path-c"}))
		return err == nil
	})
	return l
}

// eventually waits for something.
func (l *lab) eventually(what string, so func() bool) {
	l.t.Helper()
	for range 1000 {
		if so() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	l.t.Fatalf("never so: %s", what)
}

// owner is who has a device.
func (l *lab) owner(device string) string {
	l.t.Helper()
	d, err := l.devices.GetPciDevice(ctxOf(l.t), req(&ashlarv1.GetPciDeviceRequest{Name: device}))
	if err != nil {
		l.t.Fatal(err)
	}
	return d.Msg.Owner
}

// wantViolations checks that err has these, as TYPE SUBJECT.
func wantViolations(t *testing.T, err error, want ...string) {
	t.Helper()
	var ce *connect.Error
	var got []string
	if errors.As(err, &ce) {
		for _, d := range ce.Details() {
			v, err := d.Value()
			if f, ok := v.(*errdetails.PreconditionFailure); ok && err == nil {
				for _, one := range f.Violations {
					got = append(got, one.Type+" "+one.Subject)
				}
			}
		}
	}
	if connect.CodeOf(err) != connect.CodeFailedPrecondition || !slices.Equal(got, want) {
		t.Errorf("refused with %v, violations %q; want %q", err, got, want)
	}
}

// Devices are kept by a name that stays, are given to guests that start or run, and go back.
func TestHostDevices(t *testing.T) {
	l := withSpare(t)
	l.upload("kernel", 10_000)
	res, err := l.machines.CreateVirtualMachine(ctxOf(t), req(&ashlarv1.CreateVirtualMachineRequest{VirtualMachineId: "demo", VirtualMachine: &ashlarv1.VirtualMachine{
		Cpus: 1, MemoryBytes: 64 << 20, Boot: &ashlarv1.Boot{Kernel: "images/kernel"}, Devices: []*ashlarv1.HostDevice{{Device: "pciDevices/0000:01:00.0", Rom: true}},
	}}))
	if err != nil {
		t.Fatal(err)
	}
	vm := res.Msg
	if d := vm.Devices[0]; d.Device != "pciDevices/path-a" || !d.Rom || d.Number != 0 {
		t.Errorf("device = %v", d)
	}
	l.mustStart(vm.Name)
	l.eventually("the guest is the owner", func() bool { return l.owner("pciDevices/0000:01:00.0") == vm.Name })
	if d := l.get(vm.Name).Devices[0]; d.Address != "pciDevices/0000:01:00.0" {
		t.Errorf("device of a guest that runs = %v", d)
	}
	attach := func(device string) (*connect.Response[ashlarv1.Operation], error) {
		return l.machines.AttachVirtualMachineDevice(ctxOf(t), req(&ashlarv1.AttachVirtualMachineDeviceRequest{Name: vm.Name, Device: &ashlarv1.HostDevice{Device: device}}))
	}
	l.succeeds(attach("pciDevices/nvme-S"))
	got := l.get(vm.Name)
	if len(got.Devices) != 2 || got.Devices[1].Device != "pciDevices/dsn-b.0" || got.Devices[1].Number != 1 {
		t.Errorf("devices = %v", got.Devices)
	}
	if _, err := attach("pciDevices/dsn-b.0"); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("the same device again: %v", err)
	}
	l.core.Fault(vm.Uid, "it is gone")
	l.eventually("the fault is seen", func() bool { return l.get(vm.Name).Devices[1].Fault == "it is gone" })

	l.restartControl()
	l.succeeds(l.machines.DetachVirtualMachineDevice(ctxOf(t), req(&ashlarv1.DetachVirtualMachineDeviceRequest{Name: vm.Name, Device: 1})))
	l.eventually("the detached device is free", func() bool { return l.owner("pciDevices/0000:02:00.0") == "" })
	_, err = l.machines.SetVirtualMachineBalloon(ctxOf(t), req(&ashlarv1.SetVirtualMachineBalloonRequest{Name: vm.Name, BalloonBytes: 4096}))
	if connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("balloon of a guest with devices: %v", err)
	}
	l.core.Exit(vm.Uid, "powered-off", "")
	l.eventually("the device is free", func() bool { return l.owner("pciDevices/0000:01:00.0") == "" })
}

// What cannot be given away is refused at once, with the devices concerned; by an operation
// where it turns out later.
func TestHostDevicesRefused(t *testing.T) {
	l := withSpare(t)
	l.upload("kernel", 10_000)
	create := func(id string, devices ...string) error {
		vm := &ashlarv1.VirtualMachine{Cpus: 1, MemoryBytes: 64 << 20, Boot: &ashlarv1.Boot{Kernel: "images/kernel"}}
		for _, d := range devices {
			vm.Devices = append(vm.Devices, &ashlarv1.HostDevice{Device: d})
		}
		_, err := l.machines.CreateVirtualMachine(ctxOf(t), req(&ashlarv1.CreateVirtualMachineRequest{VirtualMachineId: id, VirtualMachine: vm}))
		return err
	}
	wantViolations(t, create("needed", "pciDevices/0000:03:00.0"), "USED_BY_HOST pciDevices/0000:03:00.0")
	for _, devices := range [][]string{{"pciDevices/0000:09:00.0"}, {"nothing"}, {""}, {"pciDevices/path-a", "pciDevices/0000:01:00.0"}} {
		if err := create("wrong", devices...); connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), "virtual_machine.devices[") {
			t.Errorf("create with %q: %v", devices, err)
		}
	}
	for _, id := range []string{"one", "two"} {
		if err := create(id, "pciDevices/path-a"); err != nil {
			t.Fatal(err)
		}
	}
	l.mustStart("virtualMachines/one")
	op := l.done(l.machines.StartVirtualMachine(ctxOf(t), req(&ashlarv1.StartVirtualMachineRequest{Name: "virtualMachines/two"})))
	l.fails(op, "FAILED_PRECONDITION")
	if vs := op.Error.Violations; len(vs) != 1 || vs[0].Type != "OWNED" || vs[0].Subject != "pciDevices/0000:01:00.0" {
		t.Errorf("violations of the operation = %v", vs)
	}
	l.core.SetPCI(spare()[1:]...)
	_, err := l.machines.StartVirtualMachine(ctxOf(t), req(&ashlarv1.StartVirtualMachineRequest{Name: "virtualMachines/two"}))
	wantViolations(t, err, "DEVICE_MISSING pciDevices/path-a")
	_, err = l.machines.AttachVirtualMachineDevice(ctxOf(t), req(&ashlarv1.AttachVirtualMachineDeviceRequest{Name: "virtualMachines/one", Device: &ashlarv1.HostDevice{Device: "pciDevices/path-c"}}))
	wantViolations(t, err, "DEVICE_MISSING pciDevices/path-a", "USED_BY_HOST pciDevices/0000:03:00.0")
}
