package hosttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// number numbers the devices of a new virtual machine.
func number(vm *ashlarv1.VirtualMachine) {
	for i, d := range vm.Disks {
		d.Number = int32(i)
	}
	for i, n := range vm.NetworkInterfaces {
		n.Number = int32(i)
	}
	if vm.HotplugSlots == nil {
		vm.HotplugSlots = proto.Int32(4)
	}
}

// noDisk is the refusal for a disk that there is not.
func noDisk(vm *ashlarv1.VirtualMachine, disk int32) error {
	var has []string
	for _, d := range vm.GetDisks() {
		has = append(has, fmt.Sprint(d.GetNumber()))
	}
	return violation("disk", fmt.Sprintf("is %d: %s has disks %s", disk, vm.GetName(), strings.Join(has, ", ")))
}

// change changes a virtual machine, and begins an operation that has no more to do.
func (h *Host) change(kind, name, requestID string, f func(*ashlarv1.VirtualMachine) error) (*connect.Response[ashlarv1.Operation], error) {
	h.mu.Lock()
	g, err := h.guest(name)
	if err == nil {
		err = f(g.vm)
	}
	h.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return h.operate(kind, name, requestID)
}

// AttachVirtualMachineDisk adds a disk at once.
func (h *Host) AttachVirtualMachineDisk(_ context.Context, req *connect.Request[ashlarv1.AttachVirtualMachineDiskRequest]) (*connect.Response[ashlarv1.Operation], error) {
	return h.change("attach-disk", req.Msg.GetName(), req.Msg.GetRequestId(), func(vm *ashlarv1.VirtualMachine) error {
		d := proto.CloneOf(req.Msg.GetDisk())
		switch {
		case d.GetImage() != "" && h.images[d.GetImage()] == nil:
			return violation("disk.image", d.GetImage()+" does not exist: upload it first")
		case d.GetImage() == "" && d.GetSizeBytes() == 0:
			return violation("disk.size_bytes", "is missing: a disk without an image needs a size")
		}
		for slices.ContainsFunc(vm.Disks, func(o *ashlarv1.Disk) bool { return o.GetNumber() == d.GetNumber() }) {
			d.Number++
		}
		vm.Disks = slices.Insert(vm.Disks, int(d.GetNumber()), d)
		return nil
	})
}

// DetachVirtualMachineDisk removes a disk at once.
func (h *Host) DetachVirtualMachineDisk(_ context.Context, req *connect.Request[ashlarv1.DetachVirtualMachineDiskRequest]) (*connect.Response[ashlarv1.Operation], error) {
	if !req.Msg.GetDeleteContent() {
		return nil, violation("delete_content", "is not set")
	}
	return h.change("detach-disk", req.Msg.GetName(), req.Msg.GetRequestId(), func(vm *ashlarv1.VirtualMachine) error {
		n := len(vm.Disks)
		vm.Disks = slices.DeleteFunc(vm.Disks, func(d *ashlarv1.Disk) bool { return d.GetNumber() == req.Msg.GetDisk() })
		if len(vm.Disks) == n {
			return noDisk(vm, req.Msg.GetDisk())
		}
		return nil
	})
}

// AttachVirtualMachineNetworkInterface adds one at once.
func (h *Host) AttachVirtualMachineNetworkInterface(_ context.Context, req *connect.Request[ashlarv1.AttachVirtualMachineNetworkInterfaceRequest]) (*connect.Response[ashlarv1.Operation], error) {
	return h.change("attach-nic", req.Msg.GetName(), req.Msg.GetRequestId(), func(vm *ashlarv1.VirtualMachine) error {
		n := proto.CloneOf(req.Msg.GetNetworkInterface())
		if n.GetNetwork() != "default" {
			return violation("network_interface.network", fmt.Sprintf("%q is no network of the host: choose from default", n.GetNetwork()))
		}
		for slices.ContainsFunc(vm.NetworkInterfaces, func(o *ashlarv1.NetworkInterface) bool { return o.GetNumber() == n.GetNumber() }) {
			n.Number++
		}
		vm.NetworkInterfaces = slices.Insert(vm.NetworkInterfaces, int(n.GetNumber()), n)
		return nil
	})
}

// DetachVirtualMachineNetworkInterface removes one at once, if the guest is given time.
func (h *Host) DetachVirtualMachineNetworkInterface(_ context.Context, req *connect.Request[ashlarv1.DetachVirtualMachineNetworkInterfaceRequest]) (*connect.Response[ashlarv1.Operation], error) {
	return h.change("detach-nic", req.Msg.GetName(), req.Msg.GetRequestId(), func(vm *ashlarv1.VirtualMachine) error {
		if g := req.Msg.GetGracePeriod(); g != nil && g.GetSeconds() > 3600 {
			return violation("grace_period", "is out of range: 0 to 1 hour")
		}
		vm.NetworkInterfaces = slices.DeleteFunc(vm.NetworkInterfaces, func(n *ashlarv1.NetworkInterface) bool {
			return n.GetNumber() == req.Msg.GetNetworkInterface()
		})
		return nil
	})
}

// AttachVirtualMachineDevice adds one at once that the host does not need itself.
func (h *Host) AttachVirtualMachineDevice(_ context.Context, req *connect.Request[ashlarv1.AttachVirtualMachineDeviceRequest]) (*connect.Response[ashlarv1.Operation], error) {
	return h.change("attach-device", req.Msg.GetName(), req.Msg.GetRequestId(), func(vm *ashlarv1.VirtualMachine) error {
		d := proto.CloneOf(req.Msg.GetDevice())
		found := pciDevices()[d.GetDevice()]
		switch {
		case found == nil:
			return violation("device.device", fmt.Sprintf("is %q: the host has no PCI device of that name", d.GetDevice()))
		case len(found.GetUses()) > 0:
			return needed(found)
		}
		d.Device, d.Address = "pciDevices/"+found.GetStableNames()[0], found.GetName()
		for slices.ContainsFunc(vm.Devices, func(o *ashlarv1.HostDevice) bool { return o.GetNumber() == d.GetNumber() }) {
			d.Number++
		}
		vm.Devices = slices.Insert(vm.Devices, int(d.GetNumber()), d)
		return nil
	})
}

// DetachVirtualMachineDevice removes one at once.
func (h *Host) DetachVirtualMachineDevice(_ context.Context, req *connect.Request[ashlarv1.DetachVirtualMachineDeviceRequest]) (*connect.Response[ashlarv1.Operation], error) {
	return h.change("detach-device", req.Msg.GetName(), req.Msg.GetRequestId(), func(vm *ashlarv1.VirtualMachine) error {
		vm.Devices = slices.DeleteFunc(vm.Devices, func(d *ashlarv1.HostDevice) bool { return d.GetNumber() == req.Msg.GetDevice() })
		return nil
	})
}

// needed refuses a device that the host needs itself.
func needed(d *ashlarv1.PciDevice) error {
	violations := []*errdetails.PreconditionFailure_Violation{
		{Type: "USED_BY_HOST", Subject: d.GetName(), Description: "The host needs it itself: choose another device"},
		{Type: "GROUP_SHARED", Subject: d.GetName(), Description: "It is of a group."},
	}
	e := connect.NewError(connect.CodeFailedPrecondition, errors.New(violations[0].GetDescription()))
	if detail, err := connect.NewErrorDetail(&errdetails.PreconditionFailure{Violations: violations}); err == nil {
		e.AddDetail(detail)
	}
	return e
}
