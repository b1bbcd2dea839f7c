package command

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/client"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/fault"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/render"
)

const hostDeviceLong = `
--device ADDRESS gives it a PCI device of the host, by its address or one of the stable
names that ` + "`ashlarctl device get`" + ` shows; it can be given several times. Behind it ,rom=on
shows the guest its option ROM, and ,allow-no-reset=on lets it be given away although
it cannot be reset: it stays with the virtual machine until the host is restarted.
While the virtual machine runs it has the device to itself, and all of its memory is
allocated; when it has stopped, the host's driver has the device again.
`

// ParseHostDevice reads the value of --device: ADDRESS[,rom=on|off][,allow-no-reset=on|off].
func ParseHostDevice(s string) (*ashlarv1.HostDevice, error) {
	first, values, err := options(s, "address", "rom", "allow-no-reset")
	if err != nil {
		return nil, fmt.Errorf("device %q: %w", s, err)
	}
	if first == "" {
		return nil, fmt.Errorf("device %q: name a PCI device of the host, such as 0000:17:00.0; `ashlarctl device list` shows them", s)
	}
	d := &ashlarv1.HostDevice{Device: resource(devices, first)}
	for key, to := range map[string]*bool{"rom": &d.Rom, "allow-no-reset": &d.AllowNoReset} {
		switch v, given := values[key]; {
		case !given || v == "off":
		case v == "on":
			*to = true
		default:
			return nil, fmt.Errorf("device %q: %s=%s: want on or off", s, key, v)
		}
	}
	return d, nil
}

// hostDeviceNumbers are those of what a virtual machine has.
func hostDeviceNumbers(vm *ashlarv1.VirtualMachine) (numbers []int32) {
	for _, d := range vm.GetDevices() {
		numbers = append(numbers, d.GetNumber())
	}
	return numbers
}

const attachDeviceLong = `Give a PCI device of the host to a virtual machine, by its address or a stable name. A guest
that runs finds it in one of its hot-plug slots (--hotplug-slots of vm create) after
a moment, one that is stopped when it is started. The host says no where it cannot
tell the device from others (IOMMU group, ACS), needs it itself, cannot reset it, or
another virtual machine has it.`

func (a *app) vmAttachDevice() *cobra.Command {
	var noWait bool
	var d ashlarv1.HostDevice
	cmd := &cobra.Command{
		Use: "attach-device NAME DEVICE", Short: "Give a PCI device of the host to a virtual machine, also while it runs",
		Long:    attachDeviceLong,
		Example: "  ashlarctl vm attach-device demo 0000:17:00.0\n  ashlarctl vm attach-device demo path-0000:00-1c.0-00.0 --rom",
		Args:    cobra.ExactArgs(2),
		RunE: a.withHost(func(ctx context.Context, h *client.Host, args []string) error {
			a.field = fieldTable{"device": "DEVICE", "device.device": "DEVICE"}.name
			d.Device = resource(devices, args[1])
			return a.attach(ctx, h, args[0], noWait, "device", hostDeviceNumbers, func() (*connect.Response[ashlarv1.Operation], error) {
				return h.VirtualMachines.AttachVirtualMachineDevice(ctx, connect.NewRequest(&ashlarv1.AttachVirtualMachineDeviceRequest{
					Name: resource(machines, args[0]), Device: &d, RequestId: newUUID(),
				}))
			})
		}),
	}
	cmd.Flags().BoolVar(&d.Rom, "rom", false, "show the guest its option ROM")
	cmd.Flags().BoolVar(&d.AllowNoReset, "allow-no-reset", false, "also where it cannot be reset: it stays with the virtual machine until the host is restarted")
	a.operationFlags(cmd, &noWait)
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 1 {
			return a.completeDevices()(cmd, args, start)
		}
		return a.firstArg(a.completeMachines())(cmd, args, start)
	}
	return cmd
}

const detachDeviceLong = `Take a PCI device of the host away from a virtual machine: by its number there, its address
or the name that vm get shows. A guest that runs is asked to give it up, and has the
grace time for it; where it does not, the command fails and the device stays with it
until the guest gives it up. With --force the guest is not asked. The host's own
driver has the device again then.`

func (a *app) vmDetachDevice() *cobra.Command {
	var fl detachFlags
	cmd := &cobra.Command{
		Use: "detach-device NAME DEVICE", Short: "Take a PCI device of the host away from a virtual machine",
		Long:    detachDeviceLong,
		Example: "  ashlarctl vm detach-device demo 0\n  ashlarctl vm detach-device demo 0000:17:00.0 --force",
	}
	cmd.RunE = a.withHost(func(ctx context.Context, h *client.Host, args []string) error {
		a.field = fieldTable{"device": "DEVICE", "gracePeriod": "--grace"}.name
		vm, err := getMachine(ctx, h, args[0])
		if err != nil {
			return err
		}
		number, err := hostDeviceNumber(vm, args[1])
		if err != nil {
			return err
		}
		grace, err := fl.period(cmd)
		if err != nil {
			return err
		}
		return a.operate(ctx, h, args[:1], fl.noWait, "detach device "+args[1]+" of", "has no device "+args[1]+" any more", func(vm string) (*connect.Response[ashlarv1.Operation], error) {
			return h.VirtualMachines.DetachVirtualMachineDevice(ctx, connect.NewRequest(&ashlarv1.DetachVirtualMachineDeviceRequest{
				Name: resource(machines, vm), Device: number, GracePeriod: grace, Force: fl.force, RequestId: newUUID(),
			}))
		})
	})
	fl.add(a, cmd, hostDeviceNumbers)
	return cmd
}

// hostDeviceNumber is the number of a device of vm, which is named by that, by its address or by
// the name that vm has it by.
func hostDeviceNumber(vm *ashlarv1.VirtualMachine, name string) (int32, error) {
	for _, d := range vm.GetDevices() {
		if name == render.ID(d.GetDevice()) || name == render.ID(d.GetAddress()) || resource(devices, name) == d.GetDevice() {
			return d.GetNumber(), nil
		}
	}
	number, err := parseIndex("device", name)
	if err != nil {
		return 0, fault.With(fault.Usage, errors.New(render.ID(vm.GetName())+" has no device "+name+": `ashlarctl vm get` shows those that it has"))
	}
	return number, nil
}
