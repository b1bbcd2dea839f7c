package command

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/client"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/fault"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/render"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/size"
)

// begin begins an operation.
type begin = func() (*connect.Response[ashlarv1.Operation], error)

// diskNumbers and nicNumbers are those of what a virtual machine has.
func diskNumbers(vm *ashlarv1.VirtualMachine) (numbers []int32) {
	for _, d := range vm.GetDisks() {
		numbers = append(numbers, d.GetNumber())
	}
	return numbers
}

func nicNumbers(vm *ashlarv1.VirtualMachine) (numbers []int32) {
	for _, n := range vm.GetNetworkInterfaces() {
		numbers = append(numbers, n.GetNumber())
	}
	return numbers
}

// attach does an attach operation and says which number it has given; what is `disk`, or
// `network interface`.
func (a *app) attach(ctx context.Context, h *client.Host, name string, noWait bool, what string, numbers func(*ashlarv1.VirtualMachine) []int32, begin begin) error {
	before, err := getMachine(ctx, h, name)
	if err != nil {
		return err
	}
	verb := fmt.Sprintf("attach a %s to %s", what, name)
	op, err := message(begin())(verb)
	if err != nil {
		return err
	}
	if noWait {
		return a.result(op, render.ID(op.GetName()))
	}
	if op, err = a.await(ctx, h, op, verb); err != nil {
		return err
	}
	after, err := getMachine(ctx, h, name)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("%s has one more %s", render.ID(name), what)
	for _, n := range numbers(after) {
		if !slices.Contains(numbers(before), n) {
			text = fmt.Sprintf("%s has %s %d", render.ID(name), what, n)
		}
	}
	return a.result(op, text)
}

const attachDiskLong = `Attach a new disk to a virtual machine: a clone of an image, or an empty one. A guest
that runs finds it in one of its hot-plug slots (--hotplug-slots of vm create)
after a moment, one that is stopped when it is started. It has the smallest number
that no other disk has, which is what the other commands name it by.`

func (a *app) vmAttachDisk() *cobra.Command {
	var noWait bool
	var from, bytes string
	cmd := &cobra.Command{
		Use: "attach-disk NAME", Short: "Attach a disk, also while the virtual machine runs",
		Long:    attachDiskLong,
		Example: "  ashlarctl vm attach-disk demo --size 10GiB\n  ashlarctl vm attach-disk demo --image debian --size 20GiB --bps 100MiB --iops 1000",
		Args:    cobra.ExactArgs(1),
	}
	limits := limitFlags(cmd)
	cmd.RunE = a.withHost(func(ctx context.Context, h *client.Host, args []string) error {
		a.field = fieldTable{"disk.image": "--image", "disk.sizeBytes": "--size", "disk.limits.bytesPerSecond": "--bps", "disk.limits.burstBytes": "--bps-burst",
			"disk.limits.operationsPerSecond": "--iops", "disk.limits.burstOperations": "--iops-burst"}.name
		d := &ashlarv1.Disk{}
		var err error
		if from == "" && bytes == "" {
			return fault.With(fault.Usage, errors.New("say --image for a clone, --size for an empty disk, or both"))
		}
		if from != "" {
			d.Image = resource(images, from)
		}
		if bytes != "" {
			if d.SizeBytes, err = size.Parse(bytes); err != nil {
				return fault.With(fault.Usage, fmt.Errorf("--size: %w", err))
			}
		}
		if d.Limits, err = limits(); err != nil {
			return err
		}
		return a.attach(ctx, h, args[0], noWait, "disk", diskNumbers, func() (*connect.Response[ashlarv1.Operation], error) {
			return h.VirtualMachines.AttachVirtualMachineDisk(ctx, connect.NewRequest(&ashlarv1.AttachVirtualMachineDiskRequest{
				Name: resource(machines, args[0]), Disk: d, RequestId: newUUID(),
			}))
		})
	})
	cmd.Flags().StringVar(&from, "image", "", "image to clone")
	cmd.Flags().StringVar(&bytes, "size", "", "size, such as 10GiB (default: the image's)")
	a.must(cmd.RegisterFlagCompletionFunc("image", a.completeImages()))
	a.operationFlags(cmd, &noWait)
	cmd.ValidArgsFunction = a.firstArg(a.completeMachines())
	return cmd
}

func (a *app) vmAttachNIC() *cobra.Command {
	var noWait bool
	var n ashlarv1.NetworkInterface
	cmd := &cobra.Command{
		Use: "attach-nic NAME", Short: "Attach a network interface, also while the virtual machine runs",
		Long:    "Attach a virtual machine to a network of the host, by one more network interface. A guest that runs finds it in one of its hot-plug slots after a moment, and an address for it by DHCP; one that is stopped finds it when it is started.",
		Example: "  ashlarctl vm attach-nic demo --network default\n  ashlarctl vm attach-nic demo --network default --mac 02:00:00:00:00:05",
		Args:    cobra.ExactArgs(1),
		RunE: a.withHost(func(ctx context.Context, h *client.Host, args []string) error {
			a.field = fieldTable{"networkInterface.network": "--network", "networkInterface.macAddress": "--mac"}.name
			return a.attach(ctx, h, args[0], noWait, "network interface", nicNumbers, func() (*connect.Response[ashlarv1.Operation], error) {
				return h.VirtualMachines.AttachVirtualMachineNetworkInterface(ctx, connect.NewRequest(&ashlarv1.AttachVirtualMachineNetworkInterfaceRequest{
					Name: resource(machines, args[0]), NetworkInterface: &n, RequestId: newUUID(),
				}))
			})
		}),
	}
	cmd.Flags().StringVar(&n.Network, "network", "", "network of the host (required)")
	cmd.Flags().StringVar(&n.MacAddress, "mac", "", "address (default: the host assigns one)")
	a.must(cmd.RegisterFlagCompletionFunc("network", a.completeNetworks()))
	a.must(cmd.MarkFlagRequired("network"))
	a.operationFlags(cmd, &noWait)
	cmd.ValidArgsFunction = a.firstArg(a.completeMachines())
	return cmd
}

// detachFlags are what both detach commands have.
type detachFlags struct {
	noWait, force bool
	grace         time.Duration
}

// add adds them to cmd, whose second argument is one of numbers.
func (fl *detachFlags) add(a *app, cmd *cobra.Command, numbers func(*ashlarv1.VirtualMachine) []int32) {
	cmd.Args = cobra.ExactArgs(2)
	cmd.Flags().DurationVar(&fl.grace, "grace", 30*time.Second, "how long the guest may take to give it up, up to 1h")
	cmd.Flags().BoolVar(&fl.force, "force", false, "take it away without asking the guest")
	a.operationFlags(cmd, &fl.noWait)
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
		if len(args) != 1 {
			return a.firstArg(a.completeMachines())(cmd, args, start)
		}
		return a.fromHost(func(ctx context.Context, h *client.Host) (offers []string, err error) {
			vm, err := getMachine(ctx, h, args[0])
			for _, n := range numbers(vm) {
				offers = append(offers, fmt.Sprint(n))
			}
			return offers, err
		})(cmd, args, start)
	}
}

// period is the grace_period to ask for.
func (fl *detachFlags) period(cmd *cobra.Command) (*durationpb.Duration, error) {
	if err := exclusive(cmd, "grace", "force"); err != nil || !cmd.Flags().Changed("grace") {
		return nil, err
	}
	return durationpb.New(fl.grace), nil
}

const detachDiskLong = `Detach a disk from a virtual machine, and delete it with all that is on it, which
--delete-content confirms. A guest that runs is asked to give it up, and has the
grace time for it; where it does not, the command fails and the disk stays attached
until the guest gives it up. With --force the guest is not asked, as by pulling
the plug. A disk that was there when the virtual machine was started cannot be
detached while it runs.`

func (a *app) vmDetachDisk() *cobra.Command {
	var fl detachFlags
	var confirmed bool
	cmd := &cobra.Command{
		Use: "detach-disk NAME DISK", Short: "Detach a disk and delete it",
		Long:    detachDiskLong,
		Example: "  ashlarctl vm detach-disk demo 1 --delete-content\n  ashlarctl vm detach-disk demo 1 --delete-content --grace 5m\n  ashlarctl vm detach-disk demo 1 --delete-content --force",
	}
	cmd.RunE = a.withHost(func(ctx context.Context, h *client.Host, args []string) error {
		a.field = fieldTable{"disk": "DISK", "gracePeriod": "--grace", "deleteContent": "--delete-content"}.name
		disk, err := parseIndex("disk", args[1])
		if err != nil {
			return err
		}
		if !confirmed {
			return fault.With(fault.Usage, fmt.Errorf("what is on disk %d of %s is deleted with it: save what you need, then confirm with --delete-content", disk, args[0]))
		}
		grace, err := fl.period(cmd)
		if err != nil {
			return err
		}
		return a.operate(ctx, h, args[:1], fl.noWait, "detach disk "+args[1]+" of", "has no disk "+args[1]+" any more", func(vm string) (*connect.Response[ashlarv1.Operation], error) {
			return h.VirtualMachines.DetachVirtualMachineDisk(ctx, connect.NewRequest(&ashlarv1.DetachVirtualMachineDiskRequest{
				Name: resource(machines, vm), Disk: disk, DeleteContent: true, GracePeriod: grace, Force: fl.force, RequestId: newUUID(),
			}))
		})
	})
	cmd.Flags().BoolVar(&confirmed, "delete-content", false, "confirm that what is on the disk is deleted")
	fl.add(a, cmd, diskNumbers)
	return cmd
}

func (a *app) vmDetachNIC() *cobra.Command {
	var fl detachFlags
	cmd := &cobra.Command{
		Use: "detach-nic NAME NUMBER", Short: "Detach a network interface",
		Long:    "Detach a network interface from a virtual machine. A guest that runs is asked to give it up, and has the grace time for it; where it does not, the command fails and the interface stays attached until the guest gives it up. With --force the guest is not asked. An interface that was there when the virtual machine was started cannot be detached while it runs.",
		Example: "  ashlarctl vm detach-nic demo 1\n  ashlarctl vm detach-nic demo 1 --force",
	}
	cmd.RunE = a.withHost(func(ctx context.Context, h *client.Host, args []string) error {
		a.field = fieldTable{"networkInterface": "NUMBER", "gracePeriod": "--grace"}.name
		nic, err := parseIndex("network interface", args[1])
		if err != nil {
			return err
		}
		grace, err := fl.period(cmd)
		if err != nil {
			return err
		}
		return a.operate(ctx, h, args[:1], fl.noWait, "detach network interface "+args[1]+" of", "has no network interface "+args[1]+" any more", func(vm string) (*connect.Response[ashlarv1.Operation], error) {
			return h.VirtualMachines.DetachVirtualMachineNetworkInterface(ctx, connect.NewRequest(&ashlarv1.DetachVirtualMachineNetworkInterfaceRequest{
				Name: resource(machines, vm), NetworkInterface: nic, GracePeriod: grace, Force: fl.force, RequestId: newUUID(),
			}))
		})
	})
	fl.add(a, cmd, nicNumbers)
	return cmd
}
