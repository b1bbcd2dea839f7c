package command

import (
	"context"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/client"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/render"
)

// links is the collection of ashlar.v1.
const links = "links"

// linkCommand holds what is about the host's links.
func (a *app) linkCommand() *cobra.Command {
	var wide bool
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the network cards of the host",
		Long: `List the physical network interfaces of the host: their addresses, whether they are
switched on and have a carrier, what speed both ends have agreed on, the PCI device
and the NUMA node that it is near to, how many virtual functions they have and may
have, and what the host itself uses them as.`,
		Example: "  ashlarctl link list\n  ashlarctl link list --wide\n  ashlarctl link list -o json",
		Args:    cobra.NoArgs,
		RunE: a.withHost(func(ctx context.Context, h *client.Host, _ []string) error {
			all, err := listLinks(ctx, h)
			if err != nil {
				return err
			}
			return render.List(a.Out, a.format, all, func() *render.Rows { return render.Links(all, wide) })
		}),
	}
	list.Flags().BoolVar(&wide, "wide", false, "also show stable names")
	get := &cobra.Command{
		Use: "get NAME...", Short: "Show network cards of the host",
		Long: `Show everything about physical network interfaces of the host, with the settings of
their virtual functions and who has them. Each is named by the name that the host
has for it, or by one of its stable names (ashlarctl device get --help).`,
		Example:           "  ashlarctl link get eth1\n  ashlarctl link get mac-525400a50002 -o json",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeLinks(),
		RunE: a.withHost(func(ctx context.Context, h *client.Host, names []string) error {
			return show(a, names, render.Link, func(n string) (*ashlarv1.Link, error) {
				return message(h.Links.GetLink(ctx, connect.NewRequest(&ashlarv1.GetLinkRequest{Name: resource(links, n)})))("get link " + n)
			})
		}),
	}
	a.formatFlag(list, get)
	return group("link", "Look at the network cards of the host", "Look at the physical network interfaces of the host that the context names, and at their virtual functions.",
		"  ashlarctl link list\n  ashlarctl link get eth1", list, get)
}

// listLinks gets all links.
func listLinks(ctx context.Context, h *client.Host) ([]*ashlarv1.Link, error) {
	return pages("list links", func(token string) ([]*ashlarv1.Link, string, error) {
		res, err := h.Links.ListLinks(ctx, connect.NewRequest(&ashlarv1.ListLinksRequest{PageSize: pageSize, PageToken: token}))
		if err != nil {
			return nil, "", err
		}
		return res.Msg.GetLinks(), res.Msg.GetNextPageToken(), nil
	})
}

// completeLinks offers the names of links.
func (a *app) completeLinks() completer {
	return a.fromHost(func(ctx context.Context, h *client.Host) ([]string, error) {
		all, err := listLinks(ctx, h)
		var names []string
		for _, l := range all {
			names = append(names, render.ID(l.GetName())+"\t"+render.LinkLine(l))
		}
		return names, err
	})
}
