package command

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/client"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/render"
)

// completionTime is how long a shell may be kept waiting for names.
const completionTime = 2 * time.Second

// A completer offers names; its form is cobra's.
type completer = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

// firstArg offers names for the first argument alone.
func (a *app) firstArg(c completer) completer {
	return func(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return c(cmd, args, start)
	}
}

// completeContexts offers the names of contexts.
func (a *app) completeContexts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	_, file, err := a.contextFile()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, c := range file.Contexts {
		names = append(names, c.Name+"\t"+c.Address)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// fromHost offers what list gets from the host, if it answers at once.
func (a *app) fromHost(list func(context.Context, *client.Host) ([]string, error)) completer {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		a.retry = 0
		h, err := a.connect()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		defer h.Close()
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		names, err := list(ctx, h)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeMachines offers the names of virtual machines.
func (a *app) completeMachines() completer {
	return a.fromHost(func(ctx context.Context, h *client.Host) ([]string, error) {
		vms, err := listMachines(ctx, h)
		var names []string
		for _, vm := range vms {
			names = append(names, render.ID(vm.GetName())+"\t"+render.State(vm))
		}
		return names, err
	})
}

// completeImages offers the names of images.
func (a *app) completeImages() completer {
	return a.fromHost(func(ctx context.Context, h *client.Host) ([]string, error) {
		is, err := listImages(ctx, h)
		var names []string
		for _, i := range is {
			names = append(names, render.ID(i.GetName()))
		}
		return names, err
	})
}

// completeOperations offers the names of operations.
func (a *app) completeOperations() completer {
	return a.fromHost(func(ctx context.Context, h *client.Host) ([]string, error) {
		ops, err := listOperations(ctx, h)
		var names []string
		for _, o := range ops {
			names = append(names, render.ID(o.GetName())+"\t"+o.GetKind()+" "+o.GetTarget())
		}
		return names, err
	})
}

// completeNetworks offers the networks of the host.
func (a *app) completeNetworks() completer {
	return a.fromHost(func(ctx context.Context, h *client.Host) ([]string, error) {
		res, err := h.Hosts.GetHost(ctx, connect.NewRequest(&ashlarv1.GetHostRequest{}))
		if err != nil {
			return nil, err
		}
		return res.Msg.GetNetworks(), nil
	})
}
