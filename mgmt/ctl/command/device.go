package command

import (
	"context"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/client"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/render"
)

// deviceCommand holds what is about the host's PCI devices.
func (a *app) deviceCommand() *cobra.Command {
	var wide bool
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the PCI devices of the host",
		Long: `List the PCI devices of the host: class, IDs, the host's driver, the NUMA node that
each is near to, its IOMMU group, what the host itself uses it as, and the virtual machine
that has it. Devices of one group cannot be told apart by the IOMMU.`,
		Example: "  ashlarctl device list\n  ashlarctl device list --wide\n  ashlarctl device list -o json",
		Args:    cobra.NoArgs,
		RunE: a.withHost(func(ctx context.Context, h *client.Host, _ []string) error {
			all, err := listDevices(ctx, h)
			if err != nil {
				return err
			}
			return render.List(a.Out, a.format, all, func() *render.Rows { return render.PciDevices(all, wide) })
		}),
	}
	list.Flags().BoolVar(&wide, "wide", false, "also show virtual functions, ways to reset, links, ACS and stable names")
	get := &cobra.Command{
		Use: "get NAME...", Short: "Show PCI devices of the host",
		Long: `Show everything about PCI devices of the host. Each is named by its address, or by
one of its stable names, which stay when cards come or go and addresses change:
path-… is where it is plugged in, dsn-… the serial number in its configuration space;
while a driver of the host's has it, mac-… is the address of a NIC and nvme-… the
serial number of a disk.`,
		Example:           "  ashlarctl device get 0000:01:00.0\n  ashlarctl device get path-0000:00-1c.0-00.0 -o json",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeDevices(),
		RunE: a.withHost(func(ctx context.Context, h *client.Host, names []string) error {
			return show(a, names, render.PciDevice, func(n string) (*ashlarv1.PciDevice, error) {
				return message(h.Devices.GetPciDevice(ctx, connect.NewRequest(&ashlarv1.GetPciDeviceRequest{Name: resource(devices, n)})))("get device " + n)
			})
		}),
	}
	a.formatFlag(list, get)
	return group("device", "Look at the PCI devices of the host", "Look at the PCI devices of the host that the context names.",
		"  ashlarctl device list\n  ashlarctl device get 0000:01:00.0", list, get)
}

// devices is the collection of ashlar.v1.
const devices = "pciDevices"

// listDevices gets all PCI devices.
func listDevices(ctx context.Context, h *client.Host) ([]*ashlarv1.PciDevice, error) {
	return pages("list devices", func(token string) ([]*ashlarv1.PciDevice, string, error) {
		res, err := h.Devices.ListPciDevices(ctx, connect.NewRequest(&ashlarv1.ListPciDevicesRequest{PageSize: pageSize, PageToken: token}))
		if err != nil {
			return nil, "", err
		}
		return res.Msg.GetPciDevices(), res.Msg.GetNextPageToken(), nil
	})
}

// completeDevices offers the addresses of PCI devices.
func (a *app) completeDevices() completer {
	return a.fromHost(func(ctx context.Context, h *client.Host) ([]string, error) {
		all, err := listDevices(ctx, h)
		var names []string
		for i, line := range render.PciDevices(all, false).Lines {
			names = append(names, render.ID(all[i].GetName())+"\t"+line[1]+", "+line[3])
		}
		return names, err
	})
}
