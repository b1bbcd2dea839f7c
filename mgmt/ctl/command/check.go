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

// hostCheck shows what makes the host weak.
func (a *app) hostCheck() *cobra.Command {
	cmd := &cobra.Command{
		Use: "check", Short: "Look for what makes the host weak",
		Long: `Look for what makes the host weaker than it could be: known holes of its processor and
what the kernel does about them, SMT, microcode, IOMMU and interrupt remapping, Secure
Boot, lockdown, the kernel command line, memory that is shared or swapped.

What is weak comes with what to do about it. What the configuration document has under
security.require is marked: as long as it has not passed, the host starts no virtual
machine.`,
		Example: "  ashlarctl host check\n  ashlarctl host check -o json",
		Args:    cobra.NoArgs,
		RunE: a.withHost(func(ctx context.Context, h *client.Host, _ []string) error {
			res, err := h.Hosts.CheckHost(ctx, connect.NewRequest(&ashlarv1.CheckHostRequest{}))
			if err != nil {
				return fmt.Errorf("check host: %w", err)
			}
			return render.Message(a.Out, a.format, res.Msg, func() *render.Rows { return render.HostCheck(res.Msg) })
		}),
	}
	a.formatFlag(cmd)
	return cmd
}
