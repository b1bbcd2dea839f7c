package service

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/machine"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
)

// detachGrace is how long a guest may take to give a device up where nothing is said.
const detachGrace = 30 * time.Second

// grace reads a grace_period.
func grace(d *durationpb.Duration, absent time.Duration) (time.Duration, error) {
	if d == nil {
		return absent, nil
	}
	if d.CheckValid() != nil || d.AsDuration() < 0 || d.AsDuration() > maxGrace {
		return 0, refuse.Field("grace_period", "is out of range: 0 to 1 hour")
	}
	return d.AsDuration(), nil
}

// AttachVirtualMachineDisk implements VirtualMachineService.
func (s machineService) AttachVirtualMachineDisk(ctx context.Context, req *connect.Request[ashlarv1.AttachVirtualMachineDiskRequest]) (*connect.Response[ashlarv1.Operation], error) {
	t, err := ticket(ctx, "attach-disk", req.Msg)
	if err != nil {
		return nil, err
	}
	return begun(s.Machines.AttachDisk(machine.Order{Name: req.Msg.Name, Etag: req.Msg.Etag, Ticket: t}, req.Msg.Disk))
}

// DetachVirtualMachineDisk implements VirtualMachineService.
func (s machineService) DetachVirtualMachineDisk(ctx context.Context, req *connect.Request[ashlarv1.DetachVirtualMachineDiskRequest]) (*connect.Response[ashlarv1.Operation], error) {
	t, err := ticket(ctx, "detach-disk", req.Msg)
	if err != nil {
		return nil, err
	}
	if !req.Msg.DeleteContent {
		return nil, refuse.Field("delete_content", "is not set: a disk belongs to its virtual machine, and what is on it is deleted with it. Save what you need and set it")
	}
	d, err := grace(req.Msg.GracePeriod, detachGrace)
	if err != nil {
		return nil, err
	}
	return begun(s.Machines.DetachDisk(machine.Order{Name: req.Msg.Name, Etag: req.Msg.Etag, Force: req.Msg.Force, Grace: d, Ticket: t}, int(req.Msg.Disk)))
}

// AttachVirtualMachineNetworkInterface implements VirtualMachineService.
func (s machineService) AttachVirtualMachineNetworkInterface(ctx context.Context, req *connect.Request[ashlarv1.AttachVirtualMachineNetworkInterfaceRequest]) (*connect.Response[ashlarv1.Operation], error) {
	t, err := ticket(ctx, "attach-nic", req.Msg)
	if err != nil {
		return nil, err
	}
	return begun(s.Machines.AttachNIC(ctx, machine.Order{Name: req.Msg.Name, Etag: req.Msg.Etag, Ticket: t}, req.Msg.NetworkInterface))
}

// DetachVirtualMachineNetworkInterface implements VirtualMachineService.
func (s machineService) DetachVirtualMachineNetworkInterface(ctx context.Context, req *connect.Request[ashlarv1.DetachVirtualMachineNetworkInterfaceRequest]) (*connect.Response[ashlarv1.Operation], error) {
	t, err := ticket(ctx, "detach-nic", req.Msg)
	if err != nil {
		return nil, err
	}
	d, err := grace(req.Msg.GracePeriod, detachGrace)
	if err != nil {
		return nil, err
	}
	return begun(s.Machines.DetachNIC(machine.Order{Name: req.Msg.Name, Etag: req.Msg.Etag, Force: req.Msg.Force, Grace: d, Ticket: t}, int(req.Msg.NetworkInterface)))
}

// AttachVirtualMachineDevice implements VirtualMachineService.
func (s machineService) AttachVirtualMachineDevice(ctx context.Context, req *connect.Request[ashlarv1.AttachVirtualMachineDeviceRequest]) (*connect.Response[ashlarv1.Operation], error) {
	t, err := ticket(ctx, "attach-device", req.Msg)
	if err != nil {
		return nil, err
	}
	return begun(s.Machines.AttachDevice(ctx, machine.Order{Name: req.Msg.Name, Etag: req.Msg.Etag, Ticket: t}, req.Msg.Device))
}

// DetachVirtualMachineDevice implements VirtualMachineService.
func (s machineService) DetachVirtualMachineDevice(ctx context.Context, req *connect.Request[ashlarv1.DetachVirtualMachineDeviceRequest]) (*connect.Response[ashlarv1.Operation], error) {
	t, err := ticket(ctx, "detach-device", req.Msg)
	if err != nil {
		return nil, err
	}
	d, err := grace(req.Msg.GracePeriod, detachGrace)
	if err != nil {
		return nil, err
	}
	return begun(s.Machines.DetachDevice(machine.Order{Name: req.Msg.Name, Etag: req.Msg.Etag, Force: req.Msg.Force, Grace: d, Ticket: t}, int(req.Msg.Device)))
}
