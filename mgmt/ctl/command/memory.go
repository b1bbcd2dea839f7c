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

const setMemoryLong = `With SIZE, set how much memory a virtual machine has in all, between that which it
was created with and its maximum (vm create --memory SIZE,max=SIZE). Where it
runs, memory is plugged in or unplugged: the guest does so when and as far as it
can, and has to bring what is plugged in online (Linux: memhp_default_state=online on
its command line). The size holds until it is set again, also over resets and starts.

Without SIZE, show how much memory a running or paused virtual machine has, and how
much it is asked to have.`

func (a *app) vmSetMemory() *cobra.Command {
	cmd := &cobra.Command{
		Use: "set-memory NAME [SIZE]", Short: "Show or set how much memory a virtual machine has while it runs",
		Long:              setMemoryLong,
		Example:           "  ashlarctl vm set-memory demo 2GiB\n  ashlarctl vm set-memory demo\n  ashlarctl vm set-memory demo -o json",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: a.firstArg(a.completeMachines()),
		RunE: a.withHost(func(ctx context.Context, h *client.Host, args []string) error {
			if len(args) == 2 {
				return a.setMemory(ctx, h, args[0], args[1])
			}
			req := connect.NewRequest(&ashlarv1.GetVirtualMachineMemoryRequest{Name: resource(machines, args[0])})
			m, err := message(h.VirtualMachines.GetVirtualMachineMemory(ctx, req))("memory of " + args[0])
			if err != nil {
				return err
			}
			return render.Message(a.Out, a.format, m, func() *render.Rows { return render.Memory(m) })
		}),
	}
	a.formatFlag(cmd)
	return cmd
}

func (a *app) setMemory(ctx context.Context, h *client.Host, name, text string) error {
	a.field = fieldTable{"memoryBytes": "SIZE"}.name
	bytes, err := size.Parse(text)
	if err != nil {
		return fault.With(fault.Usage, fmt.Errorf("SIZE: %w", err))
	}
	req := connect.NewRequest(&ashlarv1.SetVirtualMachineMemoryRequest{Name: resource(machines, name), MemoryBytes: bytes})
	vm, err := message(h.VirtualMachines.SetVirtualMachineMemory(ctx, req))("set the memory of " + name)
	if err != nil {
		return err
	}
	return render.Message(a.Out, a.format, vm, func() *render.Rows {
		total := size.Format(vm.GetMemoryBytes() + vm.GetHotplugMemoryBytes())
		return &render.Rows{Lines: [][]string{{fmt.Sprintf("%s is to have %s", render.ID(vm.GetName()), total)}}}
	})
}
