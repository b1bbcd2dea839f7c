package command

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/client"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/fault"
)

// ParseCPUs reads the value of --cpus: N[,max=N]. most is 0 where it is not said.
func ParseCPUs(s string) (n, most int32, err error) {
	first, values, err := options(s, "number", "max")
	if err == nil {
		n, err = parseCPUCount(first)
	}
	if v, ok := values["max"]; ok && err == nil {
		most, err = parseCPUCount(v)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("%q: %w", s, err)
	}
	return n, most, nil
}

// parseCPUCount reads a number of processors, which is for the host to judge.
func parseCPUCount(s string) (int32, error) {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("processors %q: want a number from 1 on", s)
	}
	return int32(n), nil
}

const setCPUsLong = `Change how many processors a virtual machine has that was created with a largest
number of them (--cpus N,max=N). A stopped one begins with them. In one that runs,
those that are missing come at once; Linux uses them when they are brought online
(/sys/devices/system/cpu/cpuN/online), which most distributions do by themselves.
Of those too many the guest is asked to give up the highest. Where it keeps some
this fails and says how many; the virtual machine begins with the new number at any
rate when it is started next.`

func (a *app) vmSetCPUs() *cobra.Command {
	var noWait bool
	var grace time.Duration
	cmd := &cobra.Command{
		Use: "set-cpus NAME N", Short: "Change how many processors a virtual machine has",
		Long:    setCPUsLong,
		Example: "  ashlarctl vm set-cpus demo 4\n  ashlarctl vm set-cpus demo 1 --grace 5m",
		Args:    cobra.ExactArgs(2),
		RunE: a.withHost(func(ctx context.Context, h *client.Host, args []string) error {
			a.field = fieldTable{"cpus": "N", "gracePeriod": "--grace"}.name
			n, err := parseCPUCount(args[1])
			if err != nil {
				return fault.With(fault.Usage, err)
			}
			done := fmt.Sprintf("has %d processors", n)
			if n == 1 {
				done = "has 1 processor"
			}
			return a.operate(ctx, h, args[:1], noWait, "set processors of", done, func(vm string) (*connect.Response[ashlarv1.Operation], error) {
				return h.VirtualMachines.SetVirtualMachineCpus(ctx, connect.NewRequest(&ashlarv1.SetVirtualMachineCpusRequest{
					Name: resource(machines, vm), Cpus: n, GracePeriod: durationpb.New(grace), RequestId: newUUID(),
				}))
			})
		}),
	}
	cmd.Flags().DurationVar(&grace, "grace", time.Minute, "how long the guest may take to give processors up, up to 1h")
	a.operationFlags(cmd, &noWait)
	cmd.ValidArgsFunction = a.firstArg(a.completeMachines())
	return cmd
}
