package command

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/ashlar-hv/ashlar/mgmt/ctl/client"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/tunnel"
)

// connectTarget is what `vm connect` connects to: a serial port where one is named, else
// the second argument.
func (a *app) connectTarget(h *client.Host, args []string, serial string) (tunnel.Target, error) {
	if len(args) > 1 {
		return a.target(h, args[0], args[1])
	}
	a.field = connectFields.name
	return tunnel.Target{Client: h.VirtualMachines, Name: resource(machines, args[0]), Serial: serial}, nil
}

// completeSerialPorts offers the serial ports of the virtual machine that is named.
func (a *app) completeSerialPorts(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.fromHost(func(ctx context.Context, h *client.Host) ([]string, error) {
		vm, err := getMachine(ctx, h, args[0])
		return vm.GetSerialPorts(), err
	})(cmd, args, start)
}
