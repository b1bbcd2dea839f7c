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

// hostCommand holds what is about the host itself.
func (a *app) hostCommand() *cobra.Command {
	get := &cobra.Command{
		Use: "get", Short: "Show the host",
		Long:    "Show the host: version, processors, memory, pool, networks, and what did not work when it came up. With a longer --retry it waits for a host that is booting.",
		Example: "  ashlarctl host get\n  ashlarctl host get --retry 2m\n  ashlarctl host get -o json",
		Args:    cobra.NoArgs,
		RunE: a.withHost(func(ctx context.Context, h *client.Host, _ []string) error {
			res, err := h.Hosts.GetHost(ctx, connect.NewRequest(&ashlarv1.GetHostRequest{}))
			if err != nil {
				return fmt.Errorf("get host: %w", err)
			}
			return render.Message(a.Out, a.format, res.Msg, func() *render.Rows { return render.Host(res.Msg) })
		}),
	}
	a.formatFlag(get)
	return group("host", "Look at the host", "Look at the host that the context names.", "  ashlarctl host get\n  ashlarctl host topology\n  ashlarctl host check", get, a.hostTopology(), a.hostCheck())
}
