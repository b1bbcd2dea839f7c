package command

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/client"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/render"
)

// vmCommand holds what manages virtual machines.
func (a *app) vmCommand() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List virtual machines",
		Long:    "List virtual machines with their state and the addresses that DHCP gave them.",
		Example: "  ashlarctl vm list\n  ashlarctl vm list -o json",
		Args:    cobra.NoArgs,
		RunE: a.withHost(func(ctx context.Context, h *client.Host, _ []string) error {
			vms, err := listMachines(ctx, h)
			if err != nil {
				return err
			}
			return render.List(a.Out, a.format, vms, func() *render.Rows { return render.VirtualMachines(vms) })
		}),
	}
	get := &cobra.Command{
		Use: "get NAME...", Short: "Show virtual machines",
		Long:              "Show everything about virtual machines.",
		Example:           "  ashlarctl vm get demo\n  ashlarctl vm get demo -o yaml",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeMachines(),
		RunE: a.withHost(func(ctx context.Context, h *client.Host, names []string) error {
			return show(a, names, render.VirtualMachine, func(n string) (*ashlarv1.VirtualMachine, error) {
				return getMachine(ctx, h, n)
			})
		}),
	}
	a.formatFlag(list, get)
	return group("vm", "Manage virtual machines", "Create, start, pause, watch, stop and delete virtual machines.",
		"  ashlarctl vm create demo --memory 512MiB --kernel vmlinuz --disk debian --network default --start\n  ashlarctl vm console demo",
		a.vmCreate(), a.vmStart(), a.vmStop(), a.vmPause(), a.vmResume(), a.vmReset(), a.vmNMI(), a.vmBalloon(), a.vmSetMemory(), a.vmLimitDisk(), a.vmResizeDisk(), a.vmLimitNIC(), a.vmSetLink(), a.vmSetCPUs(), a.vmAttachDisk(), a.vmDetachDisk(), a.vmAttachNIC(), a.vmDetachNIC(), a.vmAttachDevice(), a.vmDetachDevice(), a.vmStats(), list, get, a.vmDelete(), a.vmConsole(), a.vmConnect(), a.vmForward(), a.vmLogs(), a.vmWait())
}

// getMachine gets one virtual machine.
func getMachine(ctx context.Context, h *client.Host, name string) (*ashlarv1.VirtualMachine, error) {
	req := connect.NewRequest(&ashlarv1.GetVirtualMachineRequest{Name: resource(machines, name)})
	return message(h.VirtualMachines.GetVirtualMachine(ctx, req))("get " + name)
}

// listMachines gets all virtual machines.
func listMachines(ctx context.Context, h *client.Host) ([]*ashlarv1.VirtualMachine, error) {
	return pages("list virtual machines", func(token string) ([]*ashlarv1.VirtualMachine, string, error) {
		res, err := h.VirtualMachines.ListVirtualMachines(ctx, connect.NewRequest(&ashlarv1.ListVirtualMachinesRequest{PageSize: pageSize, PageToken: token}))
		if err != nil {
			return nil, "", err
		}
		return res.Msg.GetVirtualMachines(), res.Msg.GetNextPageToken(), nil
	})
}

// operate starts an operation for every name, then waits for all of them.
func (a *app) operate(ctx context.Context, h *client.Host, names []string, noWait bool, verb, done string, begin func(name string) (*connect.Response[ashlarv1.Operation], error)) error {
	ops := map[string]*ashlarv1.Operation{}
	begun := forEach(names, func(n string) error {
		op, err := message(begin(n))(verb + " " + n)
		if err == nil {
			ops[n] = op
		}
		return err
	})
	ended := forEach(names, func(n string) error {
		op := ops[n]
		if op == nil {
			return nil
		}
		if noWait {
			return a.result(op, render.ID(op.GetName()))
		}
		op, err := a.await(ctx, h, op, verb+" "+n)
		if err != nil {
			return err
		}
		return a.result(op, render.ID(n)+" "+done)
	})
	return join(begun, ended)
}

// join puts the failures of two loops together.
func join(errs ...error) error {
	var all failures
	for _, err := range errs {
		if err != nil {
			all = append(all, each(err)...)
		}
	}
	if all == nil {
		return nil
	}
	return all
}

// operationFlags adds what all commands with operations have.
func (a *app) operationFlags(cmd *cobra.Command, noWait *bool) {
	cmd.Flags().BoolVar(noWait, "no-wait", false, "print the operation and do not wait for it")
	a.formatFlag(cmd)
	cmd.ValidArgsFunction = a.completeMachines()
}

func (a *app) vmStart() *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{
		Use: "start NAME...", Short: "Start virtual machines",
		Long:    "Start virtual machines and wait until they run.",
		Example: "  ashlarctl vm start demo\n  ashlarctl vm start web1 web2 --no-wait",
		Args:    cobra.MinimumNArgs(1),
		RunE: a.withHost(func(ctx context.Context, h *client.Host, names []string) error {
			return a.operate(ctx, h, names, noWait, "start", "runs", func(n string) (*connect.Response[ashlarv1.Operation], error) {
				return h.VirtualMachines.StartVirtualMachine(ctx, connect.NewRequest(&ashlarv1.StartVirtualMachineRequest{
					Name: resource(machines, n), RequestId: newUUID(),
				}))
			})
		}),
	}
	a.operationFlags(cmd, &noWait)
	return cmd
}

func (a *app) vmStop() *cobra.Command {
	var noWait, force bool
	var grace time.Duration
	cmd := &cobra.Command{
		Use: "stop NAME...", Short: "Stop virtual machines",
		Long:    "Press the power button of virtual machines, wait until they have switched themselves off, and end those that have not after the grace time. One that is paused is resumed first, so that it can. With --force they are ended at once, as by pulling the plug.",
		Example: "  ashlarctl vm stop demo\n  ashlarctl vm stop demo --grace 5m\n  ashlarctl vm stop demo --force",
		Args:    cobra.MinimumNArgs(1),
	}
	cmd.RunE = a.withHost(func(ctx context.Context, h *client.Host, names []string) error {
		if err := exclusive(cmd, "grace", "force"); err != nil {
			return err
		}
		a.field = fieldTable{"gracePeriod": "--grace", "force": "--force"}.name
		return a.operate(ctx, h, names, noWait, "stop", "has stopped", func(n string) (*connect.Response[ashlarv1.Operation], error) {
			req := &ashlarv1.StopVirtualMachineRequest{Name: resource(machines, n), Force: force, RequestId: newUUID()}
			if cmd.Flags().Changed("grace") {
				req.GracePeriod = durationpb.New(grace)
			}
			return h.VirtualMachines.StopVirtualMachine(ctx, connect.NewRequest(req))
		})
	})
	cmd.Flags().DurationVar(&grace, "grace", time.Minute, "how long a guest may take to switch itself off, up to 1h")
	cmd.Flags().BoolVar(&force, "force", false, "end it at once")
	a.operationFlags(cmd, &noWait)
	return cmd
}

func (a *app) vmDelete() *cobra.Command {
	var noWait, force bool
	cmd := &cobra.Command{
		Use: "delete NAME...", Aliases: []string{"rm"}, Short: "Delete virtual machines and their disks",
		Long:    "Delete stopped virtual machines and their disks; with --force also running and paused ones. Images stay.",
		Example: "  ashlarctl vm delete demo\n  ashlarctl vm delete demo --force",
		Args:    cobra.MinimumNArgs(1),
		RunE: a.withHost(func(ctx context.Context, h *client.Host, names []string) error {
			return a.operate(ctx, h, names, noWait, "delete", "is deleted", func(n string) (*connect.Response[ashlarv1.Operation], error) {
				return h.VirtualMachines.DeleteVirtualMachine(ctx, connect.NewRequest(&ashlarv1.DeleteVirtualMachineRequest{
					Name: resource(machines, n), Force: force, RequestId: newUUID(),
				}))
			})
		}),
	}
	cmd.Flags().BoolVar(&force, "force", false, "end it first if it runs")
	a.operationFlags(cmd, &noWait)
	return cmd
}

// newUUID is a random UUID (RFC 9562 version 4), for request_id.
func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// A fieldTable names flags by the fields that they set. Keys are field paths
// in lowerCamelCase; that of a list ends in `[]`.
type fieldTable map[string]string

// name finds the flag for a path in either spelling, with the place in a list.
func (t fieldTable) name(path string) string {
	p := camel(path)
	for _, prefix := range []string{"virtualMachine.", "image."} {
		p = strings.TrimPrefix(p, prefix)
	}
	if flag, ok := t[p]; ok {
		return flag
	}
	list, rest, isList := strings.Cut(p, "[")
	if flag, ok := t[list+"[]"]; ok {
		var i int
		if _, err := fmt.Sscanf(rest, "%d]", &i); isList && err == nil {
			return fmt.Sprintf("%s no. %d", flag, i+1)
		}
		return flag
	}
	return ""
}

// camel turns snake_case into lowerCamelCase.
func camel(s string) string {
	words := strings.Split(s, "_")
	for i, w := range words[1:] {
		if w != "" {
			words[i+1] = strings.ToUpper(w[:1]) + w[1:]
		}
	}
	return strings.Join(words, "")
}
