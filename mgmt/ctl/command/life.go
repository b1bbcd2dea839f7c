package command

import (
	"context"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/client"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/render"
)

func (a *app) vmPause() *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{
		Use: "pause NAME...", Short: "Pause virtual machines",
		Long:    "Halt virtual machines where they are, and wait until they stand still. They keep their memory and their consoles, and go on with `ashlarctl vm resume`.",
		Example: "  ashlarctl vm pause demo\n  ashlarctl vm pause web1 web2 --no-wait",
		Args:    cobra.MinimumNArgs(1),
		RunE: a.withHost(func(ctx context.Context, h *client.Host, names []string) error {
			return a.operate(ctx, h, names, noWait, "pause", "is paused", func(n string) (*connect.Response[ashlarv1.Operation], error) {
				return h.VirtualMachines.PauseVirtualMachine(ctx, connect.NewRequest(&ashlarv1.PauseVirtualMachineRequest{
					Name: resource(machines, n), RequestId: newUUID(),
				}))
			})
		}),
	}
	a.operationFlags(cmd, &noWait)
	return cmd
}

func (a *app) vmResume() *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{
		Use: "resume NAME...", Short: "Let paused virtual machines go on",
		Long:    "Let paused virtual machines go on where they were.",
		Example: "  ashlarctl vm resume demo",
		Args:    cobra.MinimumNArgs(1),
		RunE: a.withHost(func(ctx context.Context, h *client.Host, names []string) error {
			return a.operate(ctx, h, names, noWait, "resume", "runs again", func(n string) (*connect.Response[ashlarv1.Operation], error) {
				return h.VirtualMachines.ResumeVirtualMachine(ctx, connect.NewRequest(&ashlarv1.ResumeVirtualMachineRequest{
					Name: resource(machines, n), RequestId: newUUID(),
				}))
			})
		}),
	}
	a.operationFlags(cmd, &noWait)
	return cmd
}

func (a *app) vmReset() *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{
		Use: "reset NAME...", Short: "Reset virtual machines",
		Long:    "Pull the reset line of virtual machines, running or paused ones, and wait until they run again. A guest is not asked and loses what it has not written to its disks: `ashlarctl vm stop` is gentler.",
		Example: "  ashlarctl vm reset demo",
		Args:    cobra.MinimumNArgs(1),
		RunE: a.withHost(func(ctx context.Context, h *client.Host, names []string) error {
			return a.operate(ctx, h, names, noWait, "reset", "was reset and runs", func(n string) (*connect.Response[ashlarv1.Operation], error) {
				return h.VirtualMachines.ResetVirtualMachine(ctx, connect.NewRequest(&ashlarv1.ResetVirtualMachineRequest{
					Name: resource(machines, n), RequestId: newUUID(),
				}))
			})
		}),
	}
	a.operationFlags(cmd, &noWait)
	return cmd
}

func (a *app) vmNMI() *cobra.Command {
	return &cobra.Command{
		Use: "nmi NAME...", Short: "Send virtual machines a non-maskable interrupt",
		Long:              "Press the NMI button of running virtual machines. Linux logs it; with `sysctl kernel.unknown_nmi_panic=1` it panics, and leaves a dump where it is set up to.",
		Example:           "  ashlarctl vm nmi demo",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeMachines(),
		RunE: a.withHost(func(ctx context.Context, h *client.Host, names []string) error {
			return forEach(names, func(n string) error {
				req := connect.NewRequest(&ashlarv1.SendVirtualMachineNmiRequest{Name: resource(machines, n), RequestId: newUUID()})
				if _, err := message(h.VirtualMachines.SendVirtualMachineNmi(ctx, req))("send an NMI to " + n); err != nil {
					return err
				}
				a.say("%s was sent an NMI", render.ID(n))
				return nil
			})
		}),
	}
}

func (a *app) vmStats() *cobra.Command {
	var each bool
	cmd := &cobra.Command{
		Use: "stats NAME", Aliases: []string{"counters"}, Short: "Show what a virtual machine has done",
		Long:              "Show the counters of a running or paused virtual machine since its start: exits of its processors, requests, bytes, kicks, interrupts and errors of its devices, and how long the requests of its disks took. What each counts is told at VirtualMachineCounters in the API. Reading them costs the guest nothing.",
		Example:           "  ashlarctl vm stats demo\n  ashlarctl vm stats demo --each-cpu\n  ashlarctl vm stats demo -o json",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.firstArg(a.completeMachines()),
		RunE: a.withHost(func(ctx context.Context, h *client.Host, args []string) error {
			req := connect.NewRequest(&ashlarv1.GetVirtualMachineCountersRequest{Name: resource(machines, args[0])})
			c, err := message(h.VirtualMachines.GetVirtualMachineCounters(ctx, req))("counters of " + args[0])
			if err != nil {
				return err
			}
			return render.Message(a.Out, a.format, c, func() *render.Rows { return render.Counters(c, each) })
		}),
	}
	cmd.Flags().BoolVar(&each, "each-cpu", false, "in the table: also the counters of each processor")
	a.formatFlag(cmd)
	return cmd
}
