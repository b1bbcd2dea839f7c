package server

import (
	"context"
	"os"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// guestAttachDisk goes on when control goes away: else nobody would know what the guest
// has. So do guestAttachNIC and guestDrop.
func guestAttachDisk(ctx context.Context, s *Server, c *hostcall.Call, _ *hostcall.Message) (*os.File, error) {
	if len(c.Disks) != 1 {
		return nil, &hostcall.Error{Code: hostcall.InvalidArgument, Field: "disks", Message: "The call says nothing of the disk to attach."}
	}
	return nil, s.Guests.AttachDisk(context.WithoutCancel(ctx), c.ID, c.Disk, c.Disks[0], c.Limits)
}

func guestAttachNIC(ctx context.Context, s *Server, c *hostcall.Call, _ *hostcall.Message) (*os.File, error) {
	if c.NewNIC == nil {
		return nil, &hostcall.Error{Code: hostcall.InvalidArgument, Field: "newNic", Message: "The call says nothing of the NIC to attach."}
	}
	return nil, s.Guests.AttachNIC(context.WithoutCancel(ctx), c.ID, *c.NewNIC)
}

func guestDetach(ctx context.Context, s *Server, c *hostcall.Call, _ *hostcall.Message) (*os.File, error) {
	return nil, s.Guests.Detach(ctx, c.ID, c.Device, c.Force)
}

func guestDevices(ctx context.Context, s *Server, c *hostcall.Call, m *hostcall.Message) (_ *os.File, err error) {
	m.Devices, err = s.Guests.Devices(ctx, c.ID)
	return nil, err
}

func guestDrop(ctx context.Context, s *Server, c *hostcall.Call, _ *hostcall.Message) (*os.File, error) {
	return nil, s.Guests.Drop(context.WithoutCancel(ctx), c.ID, c.Device)
}

func guestAttachDevice(ctx context.Context, s *Server, c *hostcall.Call, _ *hostcall.Message) (*os.File, error) {
	if c.NewDevice == nil {
		return nil, &hostcall.Error{Code: hostcall.InvalidArgument, Field: "newDevice", Message: "The call says nothing of the device to attach."}
	}
	return nil, s.Guests.AttachDevice(context.WithoutCancel(ctx), c.ID, *c.NewDevice)
}

func guestCheckDevices(_ context.Context, s *Server, c *hostcall.Call, _ *hostcall.Message) (*os.File, error) {
	return nil, s.Guests.CheckDevices(c.ID, c.HostDevices)
}
