package service

import (
	"context"

	"connectrpc.com/connect"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/machine"
)

// SetVirtualMachineCpus implements VirtualMachineService.
func (s machineService) SetVirtualMachineCpus(ctx context.Context, req *connect.Request[ashlarv1.SetVirtualMachineCpusRequest]) (*connect.Response[ashlarv1.Operation], error) {
	t, err := ticket(ctx, "set-cpus", req.Msg)
	if err != nil {
		return nil, err
	}
	grace, err := grace(req.Msg.GracePeriod, defaultGrace)
	if err != nil {
		return nil, err
	}
	return begun(s.Machines.SetCPUs(machine.Order{Name: req.Msg.Name, Etag: req.Msg.Etag, CPUs: req.Msg.Cpus, Grace: grace, Ticket: t}))
}
