package command

import (
	"context"
	"fmt"
	"strconv"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/client"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/fault"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/render"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/size"
)

// hugepagesCommand holds what is about the host's pools of huge pages.
func (a *app) hugepagesCommand() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the host's pools of huge pages",
		Long: `List the host's pools of huge pages by size, and by NUMA node where there are several:
how many pages there are, how many of them nobody uses, how many of those guests have
been promised, how many go when they are free, and how many are configured.`,
		Example: "  ashlarctl hugepages list\n  ashlarctl hugepages list -o json",
		Args:    cobra.NoArgs,
		RunE: a.withHost(func(ctx context.Context, h *client.Host, _ []string) error {
			all, err := listPools(ctx, h)
			if err != nil {
				return err
			}
			return render.List(a.Out, a.format, all, func() *render.Rows { return render.HugepagePools(all) })
		}),
	}
	set := a.hugepagesSet()
	a.formatFlag(list, set)
	return group("hugepages", "Manage the host's pools of huge pages",
		"Manage the pools that guests with --memory SIZE,pages=2MiB or pages=1GiB take their memory from.",
		"  ashlarctl hugepages list\n  ashlarctl hugepages set 2MiB 512", list, set)
}

const hugepagesSetLong = `Make the host's pool of pages of a size larger or smaller, now and after each boot:
COUNT is how many pages there are to be, with those in use. They are spread evenly
over the host's NUMA nodes; with --node they are of one node, and the others stay as
they are.

The host does all of it or nothing. Where it has not enough free memory, in pieces of
that size, it says how many pages could be had; pages in use or promised to guests are
not taken away. Large pages are found best right after a boot.`

func (a *app) hugepagesSet() *cobra.Command {
	var node int32
	cmd := &cobra.Command{
		Use: "set SIZE COUNT", Short: "Change how many huge pages the host has",
		Long:    hugepagesSetLong,
		Example: "  ashlarctl hugepages set 2MiB 512\n  ashlarctl hugepages set 1GiB 16 --node 1\n  ashlarctl hugepages set 2MiB 0",
		Args:    cobra.ExactArgs(2),
	}
	cmd.RunE = a.withHost(func(ctx context.Context, h *client.Host, args []string) error {
		a.field = fieldTable{"name": "SIZE", "pages": "COUNT", "node": "--node"}.name
		page, err := size.Parse(args[0])
		if err != nil {
			return fault.With(fault.Usage, err)
		}
		count, err := strconv.ParseInt(args[1], 10, 64)
		if err != nil {
			return fault.With(fault.Usage, fmt.Errorf("COUNT %q: want a number from 0 on", args[1]))
		}
		req := &ashlarv1.SetHugepagePoolRequest{Name: resource(pools, size.Format(page)), Pages: count}
		if cmd.Flags().Changed("node") {
			req.Node = &node
		}
		pool, err := message(h.Hugepages.SetHugepagePool(ctx, connect.NewRequest(req)))("set pool of pages of " + size.Format(page))
		if err != nil {
			return err
		}
		return render.Message(a.Out, a.format, pool, func() *render.Rows { return render.HugepagePools([]*ashlarv1.HugepagePool{pool}) })
	})
	cmd.Flags().Int32Var(&node, "node", 0, "NUMA node that the pages are to be on (default: all)")
	a.must(cmd.RegisterFlagCompletionFunc("node", a.completePoolNodes()))
	cmd.ValidArgsFunction = a.firstArg(a.completePools())
	return cmd
}

// pools is the collection of ashlar.v1.
const pools = "hugepagePools"

func listPools(ctx context.Context, h *client.Host) ([]*ashlarv1.HugepagePool, error) {
	res, err := h.Hugepages.ListHugepagePools(ctx, connect.NewRequest(&ashlarv1.ListHugepagePoolsRequest{}))
	if err != nil {
		return nil, fmt.Errorf("list pools of huge pages: %w", err)
	}
	return res.Msg.GetHugepagePools(), nil
}

// completePools offers the sizes of pages.
func (a *app) completePools() completer {
	return a.fromHost(func(ctx context.Context, h *client.Host) ([]string, error) {
		all, err := listPools(ctx, h)
		var names []string
		for _, p := range all {
			names = append(names, fmt.Sprintf("%s\t%d, %d free", render.ID(p.GetName()), p.GetTotalPages(), p.GetFreePages()))
		}
		return names, err
	})
}

// completePoolNodes offers the NUMA nodes that pages can be on.
func (a *app) completePoolNodes() completer {
	return a.fromHost(func(ctx context.Context, h *client.Host) ([]string, error) {
		all, err := listPools(ctx, h)
		var names []string
		if len(all) > 0 {
			for _, n := range all[0].GetNodes() {
				names = append(names, strconv.Itoa(int(n.GetId())))
			}
		}
		return names, err
	})
}
