package command

import (
	"context"
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/client"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/fault"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/size"
)

// nicLimitKeys are the options of a network interface's limits with what they are.
var nicLimitKeys = []struct{ key, usage string }{
	{"rx", "bytes a second that the guest receives, such as 100MiB/s"}, {"rx-burst", "bytes that it receives at once after a rest"},
	{"rx-pps", "packets a second that the guest receives"}, {"rx-pps-burst", "packets that it receives at once after a rest"},
	{"tx", "bytes a second that the guest sends, such as 100MiB/s"}, {"tx-burst", "bytes that it sends at once after a rest"},
	{"tx-pps", "packets a second that the guest sends"}, {"tx-pps-burst", "packets that it sends at once after a rest"},
}

// nicKeys are the options of --network behind its name.
func nicKeys() []string {
	keys := []string{"mac"}
	for _, k := range nicLimitKeys {
		keys = append(keys, k.key)
	}
	return append(keys, "link")
}

// parseNICLimits reads what a network interface may receive and send in a second; nil where
// nothing is limited.
func parseNICLimits(values map[string]string) (*ashlarv1.NetworkInterfaceLimits, error) {
	rx, err := parseNetworkLimits("rx", values)
	if err != nil {
		return nil, err
	}
	tx, err := parseNetworkLimits("tx", values)
	if rx == nil && tx == nil || err != nil {
		return nil, err
	}
	return &ashlarv1.NetworkInterfaceLimits{Receive: rx, Transmit: tx}, nil
}

// parseNetworkLimits is that for one direction.
func parseNetworkLimits(direction string, values map[string]string) (*ashlarv1.NetworkLimits, error) {
	l := &ashlarv1.NetworkLimits{}
	given, err := readNumbers(values, []number{
		{direction, &l.BytesPerSecond, parseBytesPerSecond},
		{direction + "-burst", &l.BurstBytes, size.Parse},
		{direction + "-pps", &l.PacketsPerSecond, parseCount},
		{direction + "-pps-burst", &l.BurstPackets, parseCount},
	})
	if !given || err != nil {
		return nil, err
	}
	return l, nil
}

// parseBytesPerSecond reads a size, with or without /s behind it.
func parseBytesPerSecond(s string) (int64, error) { return size.Parse(strings.TrimSuffix(s, "/s")) }

// parseLink reads whether a link is up or down.
func parseLink(s string) (down bool, err error) {
	switch s {
	case "up":
		return false, nil
	case "down":
		return true, nil
	}
	return false, fmt.Errorf("link %q: want up or down", s)
}

const limitNICLong = `Limit what a network interface receives (rx) and sends (tx) in a second, whether the
virtual machine runs or not: bytes and packets. A burst is what passes at once after a
rest; without one it is a quarter of a second's worth. What is not given is not
limited: with no flag at all the network interface has no limits any more.`

func (a *app) vmLimitNIC() *cobra.Command {
	var noWait bool
	values := map[string]*string{}
	cmd := &cobra.Command{
		Use: "limit-nic NAME NIC", Short: "Limit what a network interface does in a second",
		Long:    limitNICLong,
		Example: "  ashlarctl vm limit-nic demo 0 --rx 100MiB/s --tx 100MiB/s\n  ashlarctl vm limit-nic demo 0 --tx 10MiB/s --tx-burst 20MiB --tx-pps 5000\n  ashlarctl vm limit-nic demo 0",
		Args:    cobra.ExactArgs(2),
	}
	cmd.RunE = a.withHost(func(ctx context.Context, h *client.Host, args []string) error {
		a.field = nicFields.name
		nic, err := parseIndex("network interface", args[1])
		if err != nil {
			return err
		}
		limits, err := parseNICLimits(given(cmd, values))
		if err != nil {
			return fault.With(fault.Usage, fmt.Errorf("--%w", err))
		}
		done := "has limits for network " + args[1]
		if limits == nil {
			done = "has no limits for network " + args[1]
		}
		return a.operate(ctx, h, args[:1], noWait, "limit network "+args[1]+" of", done, func(n string) (*connect.Response[ashlarv1.Operation], error) {
			return h.VirtualMachines.SetVirtualMachineNetworkLimits(ctx, connect.NewRequest(&ashlarv1.SetVirtualMachineNetworkLimitsRequest{
				Name: resource(machines, n), NetworkInterface: nic, Limits: limits, RequestId: newUUID(),
			}))
		})
	})
	for _, k := range nicLimitKeys {
		values[k.key] = cmd.Flags().String(k.key, "", k.usage)
	}
	a.operationFlags(cmd, &noWait)
	cmd.ValidArgsFunction = a.firstArg(a.completeMachines())
	return cmd
}

// nicFields are the arguments and flags of commands for a network interface by the fields
// that they set.
var nicFields = fieldTable{
	"networkInterface":              "NIC",
	"limits.receive.bytesPerSecond": "--rx", "limits.receive.burstBytes": "--rx-burst",
	"limits.receive.packetsPerSecond": "--rx-pps", "limits.receive.burstPackets": "--rx-pps-burst",
	"limits.transmit.bytesPerSecond": "--tx", "limits.transmit.burstBytes": "--tx-burst",
	"limits.transmit.packetsPerSecond": "--tx-pps", "limits.transmit.burstPackets": "--tx-pps-burst",
}

const setLinkLong = `Pull the cable of a network interface (down), or plug it in again (up), whether the
virtual machine runs or not. No packet passes a link that is down, and a guest that
runs notices. It stays so over resets and starts.`

func (a *app) vmSetLink() *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{
		Use: "set-link NAME NIC up|down", Short: "Connect or disconnect a network interface",
		Long:    setLinkLong,
		Example: "  ashlarctl vm set-link demo 0 down\n  ashlarctl vm set-link demo 0 up",
		Args:    cobra.ExactArgs(3),
	}
	cmd.RunE = a.withHost(func(ctx context.Context, h *client.Host, args []string) error {
		a.field = nicFields.name
		nic, err := parseIndex("network interface", args[1])
		if err != nil {
			return err
		}
		down, err := parseLink(args[2])
		if err != nil {
			return fault.With(fault.Usage, err)
		}
		what := "link " + args[1] + " " + args[2]
		return a.operate(ctx, h, args[:1], noWait, "set "+what+" of", "has "+what, func(n string) (*connect.Response[ashlarv1.Operation], error) {
			return h.VirtualMachines.SetVirtualMachineNetworkLink(ctx, connect.NewRequest(&ashlarv1.SetVirtualMachineNetworkLinkRequest{
				Name: resource(machines, n), NetworkInterface: nic, LinkDown: down, RequestId: newUUID(),
			}))
		})
	})
	a.operationFlags(cmd, &noWait)
	first := a.firstArg(a.completeMachines())
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 2 {
			return []string{"up", "down"}, cobra.ShellCompDirectiveNoFileComp
		}
		return first(cmd, args, start)
	}
	return cmd
}
