package command

import (
	"context"
	"fmt"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/client"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/fault"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/render"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/size"
)

const balloonLong = `Without SIZE, show how much of its memory a running or paused virtual machine
gives back to the host, how much it is asked for, and what the guest says of the
memory it has.

With SIZE, ask it to give back that much in all, or to take back what is more; 0
gives it all of its memory again. The guest does so when and as far as it can:
look again. The size holds until it is set again, also over resets and starts.`

func (a *app) vmBalloon() *cobra.Command {
	cmd := &cobra.Command{
		Use: "balloon NAME [SIZE]", Short: "Show or set how much memory a virtual machine gives back",
		Long:              balloonLong,
		Example:           "  ashlarctl vm balloon demo 64MiB\n  ashlarctl vm balloon demo\n  ashlarctl vm balloon demo -o json\n  ashlarctl vm balloon demo 0",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: a.firstArg(a.completeMachines()),
		RunE: a.withHost(func(ctx context.Context, h *client.Host, args []string) error {
			if len(args) == 2 {
				return a.setBalloon(ctx, h, args[0], args[1])
			}
			req := connect.NewRequest(&ashlarv1.GetVirtualMachineBalloonRequest{Name: resource(machines, args[0])})
			b, err := message(h.VirtualMachines.GetVirtualMachineBalloon(ctx, req))("balloon of " + args[0])
			if err != nil {
				return err
			}
			return render.Message(a.Out, a.format, b, func() *render.Rows { return render.Balloon(b) })
		}),
	}
	a.formatFlag(cmd)
	return cmd
}

func (a *app) setBalloon(ctx context.Context, h *client.Host, name, text string) error {
	a.field = fieldTable{"balloonBytes": "SIZE"}.name
	bytes, err := size.Parse(text)
	if err != nil {
		return fault.With(fault.Usage, fmt.Errorf("SIZE: %w", err))
	}
	req := connect.NewRequest(&ashlarv1.SetVirtualMachineBalloonRequest{Name: resource(machines, name), BalloonBytes: bytes})
	vm, err := message(h.VirtualMachines.SetVirtualMachineBalloon(ctx, req))("set the balloon of " + name)
	if err != nil {
		return err
	}
	return render.Message(a.Out, a.format, vm, func() *render.Rows {
		return &render.Rows{Lines: [][]string{{fmt.Sprintf("%s is to give back %s", render.ID(vm.GetName()), size.Format(vm.GetBalloonBytes()))}}}
	})
}
