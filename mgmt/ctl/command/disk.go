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
	"github.com/ashlar-hv/ashlar/mgmt/ctl/size"
)

// parseIndex reads the number of what word names.
func parseIndex(word, s string) (int32, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0, fault.With(fault.Usage, fmt.Errorf("%s %q: write its number, from 0 on, as `ashlarctl vm get` shows it", word, s))
	}
	return int32(n), nil
}

// given are the values of the flags that stand on the command line.
func given(cmd *cobra.Command, values map[string]*string) map[string]string {
	out := map[string]string{}
	for name, v := range values {
		if cmd.Flags().Changed(name) {
			out[name] = *v
		}
	}
	return out
}

const limitLong = `Limit what a disk does in a second, whether the virtual machine runs or not: the
bytes that it reads and writes, and its requests, flushes included. A burst is what
it can do at once after a rest; without one it is a tenth of a second's worth. What
is not given is not limited: with no flag at all the disk has no limits any more.
Where each disk of the virtual machine has limits the host's kernel bounds all of them
together, too.`

// limitFlags adds the flags of limits to cmd, and returns what reads them.
func limitFlags(cmd *cobra.Command) func() (*ashlarv1.DiskLimits, error) {
	values := map[string]*string{}
	for name, usage := range map[string]string{
		"bps": "bytes a second, such as 100MiB", "bps-burst": "bytes at once after a rest",
		"iops": "requests a second", "iops-burst": "requests at once after a rest",
	} {
		values[name] = cmd.Flags().String(name, "", usage)
	}
	return func() (*ashlarv1.DiskLimits, error) {
		limits, err := parseLimits(given(cmd, values))
		if err != nil {
			return nil, fault.With(fault.Usage, fmt.Errorf("--%w", err))
		}
		return limits, nil
	}
}

func (a *app) vmLimitDisk() *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{
		Use: "limit-disk NAME DISK", Short: "Limit what a disk does in a second",
		Long:    limitLong,
		Example: "  ashlarctl vm limit-disk demo 0 --bps 100MiB --iops 1000\n  ashlarctl vm limit-disk demo 0 --iops 500 --iops-burst 2000\n  ashlarctl vm limit-disk demo 0",
		Args:    cobra.ExactArgs(2),
	}
	read := limitFlags(cmd)
	cmd.RunE = a.withHost(func(ctx context.Context, h *client.Host, args []string) error {
		a.field = fieldTable{"disk": "DISK", "limits.bytesPerSecond": "--bps", "limits.burstBytes": "--bps-burst",
			"limits.operationsPerSecond": "--iops", "limits.burstOperations": "--iops-burst"}.name
		disk, err := parseIndex("disk", args[1])
		if err != nil {
			return err
		}
		limits, err := read()
		if err != nil {
			return err
		}
		done := "has limits for disk " + args[1]
		if limits == nil {
			done = "has no limits for disk " + args[1]
		}
		return a.operate(ctx, h, args[:1], noWait, "limit disk "+args[1]+" of", done, func(n string) (*connect.Response[ashlarv1.Operation], error) {
			return h.VirtualMachines.SetVirtualMachineDiskLimits(ctx, connect.NewRequest(&ashlarv1.SetVirtualMachineDiskLimitsRequest{
				Name: resource(machines, n), Disk: disk, Limits: limits, RequestId: newUUID(),
			}))
		})
	})
	a.operationFlags(cmd, &noWait)
	cmd.ValidArgsFunction = a.firstArg(a.completeMachines())
	return cmd
}

const resizeLong = `Make a disk larger, whether the virtual machine runs or not. A Linux guest that runs
finds its disk larger at once; partitions and file systems on it are to be grown in
the guest. Disks do not get smaller.`

func (a *app) vmResizeDisk() *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{
		Use: "resize-disk NAME DISK SIZE", Short: "Make a disk larger",
		Long:    resizeLong,
		Example: "  ashlarctl vm resize-disk demo 0 40GiB",
		Args:    cobra.ExactArgs(3),
		RunE: a.withHost(func(ctx context.Context, h *client.Host, args []string) error {
			a.field = fieldTable{"disk": "DISK", "sizeBytes": "SIZE"}.name
			disk, err := parseIndex("disk", args[1])
			if err != nil {
				return err
			}
			n, err := size.Parse(args[2])
			if err != nil {
				return fault.With(fault.Usage, err)
			}
			done := fmt.Sprintf("has %s on disk %d", size.Format(n), disk)
			return a.operate(ctx, h, args[:1], noWait, "resize disk "+args[1]+" of", done, func(vm string) (*connect.Response[ashlarv1.Operation], error) {
				return h.VirtualMachines.ResizeVirtualMachineDisk(ctx, connect.NewRequest(&ashlarv1.ResizeVirtualMachineDiskRequest{
					Name: resource(machines, vm), Disk: disk, SizeBytes: n, RequestId: newUUID(),
				}))
			})
		}),
	}
	a.operationFlags(cmd, &noWait)
	cmd.ValidArgsFunction = a.firstArg(a.completeMachines())
	return cmd
}
