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

// SetVirtualMachineCpus implements VirtualMachineService.
func (s machineService) SetVirtualMachineCpus(ctx context.Context, req *connect.Request[ashlarv1.SetVirtualMachineCpusRequest]) (*connect.Response[ashlarv1.Operation], error) {
	t, err := ticket(ctx, "set-cpus", req.Msg)
	if err != nil {
		return nil, err
	}
	grace, err := graceOf(req.Msg.GracePeriod)
	if err != nil {
		return nil, err
	}
	return begun(s.Machines.SetCPUs(machine.Order{Name: req.Msg.Name, Etag: req.Msg.Etag, CPUs: req.Msg.Cpus, Grace: grace, Ticket: t}))
}

// graceOf is how long a guest may take for what it is asked.
func graceOf(d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return defaultGrace, nil
	}
	if d.CheckValid() != nil || d.AsDuration() < 0 || d.AsDuration() > maxGrace {
		return 0, refuse.Field("grace_period", "is out of range: 0 to 1 hour")
	}
	return d.AsDuration(), nil
}
