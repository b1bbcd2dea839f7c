package service

import (
	"context"

	"connectrpc.com/connect"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// tunnelStream is a ConnectVirtualMachine call.
type tunnelStream struct {
	*connect.BidiStream[ashlarv1.ConnectVirtualMachineRequest, ashlarv1.ConnectVirtualMachineResponse]
	closeRead func()
}

// CloseRead makes a Receive under way return.
func (s tunnelStream) CloseRead() { s.closeRead() }

// ConnectVirtualMachine implements VirtualMachineService.
func (s machineService) ConnectVirtualMachine(ctx context.Context, stream *connect.BidiStream[ashlarv1.ConnectVirtualMachineRequest, ashlarv1.ConnectVirtualMachineResponse]) error {
	return s.Tunnels.Serve(ctx, tunnelStream{stream, func() { CloseRead(ctx) }})
}
