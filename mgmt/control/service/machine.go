package service

import (
	"context"
	"time"

	"connectrpc.com/connect"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/console"
	"github.com/ashlar-hv/ashlar/mgmt/control/machine"
	"github.com/ashlar-hv/ashlar/mgmt/control/operation"
	"github.com/ashlar-hv/ashlar/mgmt/control/page"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

const (
	defaultGrace = time.Minute
	maxGrace     = time.Hour
)

type machineService struct{ *API }

// CreateVirtualMachine implements VirtualMachineService.
func (s machineService) CreateVirtualMachine(ctx context.Context, req *connect.Request[ashlarv1.CreateVirtualMachineRequest]) (*connect.Response[ashlarv1.VirtualMachine], error) {
	t, err := ticket(ctx, "create", req.Msg)
	if err != nil {
		return nil, err
	}
	if req.Msg.ValidateOnly {
		t = machine.Ticket{}
	}
	return response(s.Machines.Create(ctx, req.Msg, t))
}

// GetVirtualMachine implements VirtualMachineService.
func (s machineService) GetVirtualMachine(ctx context.Context, req *connect.Request[ashlarv1.GetVirtualMachineRequest]) (*connect.Response[ashlarv1.VirtualMachine], error) {
	m, err := s.Machines.Find(req.Msg.Name)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(m.Fresh(ctx)), nil
}

// ListVirtualMachines implements VirtualMachineService.
func (s machineService) ListVirtualMachines(_ context.Context, req *connect.Request[ashlarv1.ListVirtualMachinesRequest]) (*connect.Response[ashlarv1.ListVirtualMachinesResponse], error) {
	items, next, err := page.Of("virtualMachines", s.Machines.List(), (*ashlarv1.VirtualMachine).GetName, false, req.Msg.PageSize, req.Msg.PageToken)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&ashlarv1.ListVirtualMachinesResponse{VirtualMachines: items, NextPageToken: next}), nil
}

// DeleteVirtualMachine implements VirtualMachineService.
func (s machineService) DeleteVirtualMachine(ctx context.Context, req *connect.Request[ashlarv1.DeleteVirtualMachineRequest]) (*connect.Response[ashlarv1.Operation], error) {
	t, err := ticket(ctx, "delete", req.Msg)
	if err != nil {
		return nil, err
	}
	return begun(s.Machines.Delete(machine.Order{Name: req.Msg.Name, Etag: req.Msg.Etag, Force: req.Msg.Force, Ticket: t}))
}

// StartVirtualMachine implements VirtualMachineService.
func (s machineService) StartVirtualMachine(ctx context.Context, req *connect.Request[ashlarv1.StartVirtualMachineRequest]) (*connect.Response[ashlarv1.Operation], error) {
	t, err := ticket(ctx, "start", req.Msg)
	if err != nil {
		return nil, err
	}
	return begun(s.Machines.Start(machine.Order{Name: req.Msg.Name, Etag: req.Msg.Etag, Ticket: t}))
}

// StopVirtualMachine implements VirtualMachineService.
func (s machineService) StopVirtualMachine(ctx context.Context, req *connect.Request[ashlarv1.StopVirtualMachineRequest]) (*connect.Response[ashlarv1.Operation], error) {
	t, err := ticket(ctx, "stop", req.Msg)
	if err != nil {
		return nil, err
	}
	grace, err := grace(req.Msg.GracePeriod, defaultGrace)
	if err != nil {
		return nil, err
	}
	return begun(s.Machines.Stop(machine.Order{Name: req.Msg.Name, Etag: req.Msg.Etag, Force: req.Msg.Force, Grace: grace, Ticket: t}))
}

// PauseVirtualMachine implements VirtualMachineService.
func (s machineService) PauseVirtualMachine(ctx context.Context, req *connect.Request[ashlarv1.PauseVirtualMachineRequest]) (*connect.Response[ashlarv1.Operation], error) {
	t, err := ticket(ctx, "pause", req.Msg)
	if err != nil {
		return nil, err
	}
	return begun(s.Machines.Pause(machine.Order{Name: req.Msg.Name, Etag: req.Msg.Etag, Ticket: t}))
}

// ResumeVirtualMachine implements VirtualMachineService.
func (s machineService) ResumeVirtualMachine(ctx context.Context, req *connect.Request[ashlarv1.ResumeVirtualMachineRequest]) (*connect.Response[ashlarv1.Operation], error) {
	t, err := ticket(ctx, "resume", req.Msg)
	if err != nil {
		return nil, err
	}
	return begun(s.Machines.Resume(machine.Order{Name: req.Msg.Name, Etag: req.Msg.Etag, Ticket: t}))
}

// ResetVirtualMachine implements VirtualMachineService.
func (s machineService) ResetVirtualMachine(ctx context.Context, req *connect.Request[ashlarv1.ResetVirtualMachineRequest]) (*connect.Response[ashlarv1.Operation], error) {
	t, err := ticket(ctx, "reset", req.Msg)
	if err != nil {
		return nil, err
	}
	return begun(s.Machines.Reset(machine.Order{Name: req.Msg.Name, Etag: req.Msg.Etag, Ticket: t}))
}

// SetVirtualMachineDiskLimits implements VirtualMachineService.
func (s machineService) SetVirtualMachineDiskLimits(ctx context.Context, req *connect.Request[ashlarv1.SetVirtualMachineDiskLimitsRequest]) (*connect.Response[ashlarv1.Operation], error) {
	t, err := ticket(ctx, "set-disk-limits", req.Msg)
	if err != nil {
		return nil, err
	}
	return begun(s.Machines.SetDiskLimits(machine.Order{Name: req.Msg.Name, Etag: req.Msg.Etag, Disk: int(req.Msg.Disk), Ticket: t}, req.Msg.Limits))
}

// ResizeVirtualMachineDisk implements VirtualMachineService.
func (s machineService) ResizeVirtualMachineDisk(ctx context.Context, req *connect.Request[ashlarv1.ResizeVirtualMachineDiskRequest]) (*connect.Response[ashlarv1.Operation], error) {
	t, err := ticket(ctx, "resize-disk", req.Msg)
	if err != nil {
		return nil, err
	}
	return begun(s.Machines.ResizeDisk(machine.Order{Name: req.Msg.Name, Etag: req.Msg.Etag, Disk: int(req.Msg.Disk), Size: req.Msg.SizeBytes, Ticket: t}))
}

// SetVirtualMachineNetworkLimits implements VirtualMachineService.
func (s machineService) SetVirtualMachineNetworkLimits(ctx context.Context, req *connect.Request[ashlarv1.SetVirtualMachineNetworkLimitsRequest]) (*connect.Response[ashlarv1.Operation], error) {
	t, err := ticket(ctx, "set-network-limits", req.Msg)
	if err != nil {
		return nil, err
	}
	return begun(s.Machines.SetNICLimits(machine.Order{Name: req.Msg.Name, Etag: req.Msg.Etag, NIC: int(req.Msg.NetworkInterface), Ticket: t}, req.Msg.Limits))
}

// SetVirtualMachineNetworkLink implements VirtualMachineService.
func (s machineService) SetVirtualMachineNetworkLink(ctx context.Context, req *connect.Request[ashlarv1.SetVirtualMachineNetworkLinkRequest]) (*connect.Response[ashlarv1.Operation], error) {
	t, err := ticket(ctx, "set-network-link", req.Msg)
	if err != nil {
		return nil, err
	}
	return begun(s.Machines.SetNICLink(machine.Order{Name: req.Msg.Name, Etag: req.Msg.Etag, NIC: int(req.Msg.NetworkInterface), LinkDown: req.Msg.LinkDown, Ticket: t}))
}

// SendVirtualMachineNmi implements VirtualMachineService.
func (s machineService) SendVirtualMachineNmi(ctx context.Context, req *connect.Request[ashlarv1.SendVirtualMachineNmiRequest]) (*connect.Response[ashlarv1.SendVirtualMachineNmiResponse], error) {
	t, err := ticket(ctx, "nmi", req.Msg)
	if err != nil {
		return nil, err
	}
	if err := s.Machines.NMI(ctx, machine.Order{Name: req.Msg.Name, Etag: req.Msg.Etag, Ticket: t}); err != nil {
		return nil, err
	}
	return connect.NewResponse(&ashlarv1.SendVirtualMachineNmiResponse{}), nil
}

// GetVirtualMachineCounters implements VirtualMachineService.
func (s machineService) GetVirtualMachineCounters(ctx context.Context, req *connect.Request[ashlarv1.GetVirtualMachineCountersRequest]) (*connect.Response[ashlarv1.VirtualMachineCounters], error) {
	return response(s.Machines.Counters(ctx, req.Msg.Name))
}

// SetVirtualMachineBalloon implements VirtualMachineService.
func (s machineService) SetVirtualMachineBalloon(ctx context.Context, req *connect.Request[ashlarv1.SetVirtualMachineBalloonRequest]) (*connect.Response[ashlarv1.VirtualMachine], error) {
	return response(s.Machines.SetBalloon(ctx, machine.Order{Name: req.Msg.Name, Etag: req.Msg.Etag}, req.Msg.BalloonBytes))
}

// SetVirtualMachineMemory implements VirtualMachineService.
func (s machineService) SetVirtualMachineMemory(ctx context.Context, req *connect.Request[ashlarv1.SetVirtualMachineMemoryRequest]) (*connect.Response[ashlarv1.VirtualMachine], error) {
	return response(s.Machines.SetMemory(ctx, machine.Order{Name: req.Msg.Name, Etag: req.Msg.Etag}, req.Msg.MemoryBytes))
}

// GetVirtualMachineMemory implements VirtualMachineService.
func (s machineService) GetVirtualMachineMemory(ctx context.Context, req *connect.Request[ashlarv1.GetVirtualMachineMemoryRequest]) (*connect.Response[ashlarv1.VirtualMachineMemory], error) {
	return response(s.Machines.Memory(ctx, req.Msg.Name))
}

// GetVirtualMachineBalloon implements VirtualMachineService.
func (s machineService) GetVirtualMachineBalloon(ctx context.Context, req *connect.Request[ashlarv1.GetVirtualMachineBalloonRequest]) (*connect.Response[ashlarv1.VirtualMachineBalloon], error) {
	return response(s.Machines.Balloon(ctx, req.Msg.Name))
}

func begun(op *operation.Op, err error) (*connect.Response[ashlarv1.Operation], error) {
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(op.Proto()), nil
}

// consoleStream is a Console call.
type consoleStream struct {
	*connect.BidiStream[ashlarv1.ConsoleRequest, ashlarv1.ConsoleResponse]
	closeRead func()
}

// CloseRead makes a Receive under way return.
func (s consoleStream) CloseRead() { s.closeRead() }

// Console implements VirtualMachineService.
func (s machineService) Console(ctx context.Context, stream *connect.BidiStream[ashlarv1.ConsoleRequest, ashlarv1.ConsoleResponse]) error {
	return s.Consoles.Serve(ctx, consoleStream{stream, func() { CloseRead(ctx) }})
}

// ReadLog implements VirtualMachineService.
func (s machineService) ReadLog(ctx context.Context, req *connect.Request[ashlarv1.ReadLogRequest], stream *connect.ServerStream[ashlarv1.ReadLogResponse]) error {
	m, err := s.Machines.Find(req.Msg.Name)
	if err != nil {
		return err
	}
	f, err := console.OpenLog(ctx, s.Link, m)
	if f == nil || err != nil {
		return err
	}
	defer f.Close()
	return console.Tail(f, protocol.LogLimit, func(b []byte) error {
		return stream.Send(&ashlarv1.ReadLogResponse{Data: b})
	})
}
