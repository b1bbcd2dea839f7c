package command

import (
	"context"
	"fmt"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/client"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/render"
)

// hostTopology shows what is near to what in the host.
func (a *app) hostTopology() *cobra.Command {
	cmd := &cobra.Command{
		Use: "topology", Short: "Show what is near to what in the host",
		Long: `Show the NUMA nodes of the host, each with its memory, its pools of huge pages, its
cores by socket, the caches that they share, and the PCI devices that are near to
it. A line of cores has the CPUs of each, which are its threads. Virtual machines
are put on nodes with ` + "`ashlarctl vm create --numa`" + `.`,
		Example: "  ashlarctl host topology\n  ashlarctl host topology -o json",
		Args:    cobra.NoArgs,
		RunE: a.withHost(func(ctx context.Context, h *client.Host, _ []string) error {
			res, err := h.Hosts.GetHostTopology(ctx, connect.NewRequest(&ashlarv1.GetHostTopologyRequest{}))
			if err != nil {
				return fmt.Errorf("get topology of host: %w", err)
			}
			return render.Message(a.Out, a.format, res.Msg, func() *render.Rows { return render.Topology(res.Msg) })
		}),
	}
	a.formatFlag(cmd)
	return cmd
}
