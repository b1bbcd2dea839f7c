package command

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/client"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/fault"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/render"
)

const setVFsLong = `Give a device with SR-IOV that many virtual functions, now and after each boot; 0
takes them away. NAME is the device itself, its physical function, by its address or
by one of its stable names; it stays the host's, and the host remembers where it is
plugged in.

All virtual functions go and come anew when their number changes: it is refused while
one of them is in use. A network card is switched on for it, and out of touch for some
seconds, the one that the host is managed through as well. An NVMe controller shares
its queues and interrupts out to them evenly and brings them online. Which namespaces
each of them has is up to the controller, which may give all to all; with --namespaces
they are attached as it says, with a + between those of one and a comma between
virtual functions: 1+2,3 gives the first one 1 and 2, the second one 3. The host itself does not have these
then, and has them again when the virtual functions go.`

func (a *app) deviceSetVFs() *cobra.Command {
	var namespaces string
	cmd := &cobra.Command{
		Use: "set-vfs NAME COUNT", Short: "Change how many virtual functions a device has",
		Long: setVFsLong,
		Example: `  ashlarctl device set-vfs 0000:01:00.0 4
  ashlarctl device set-vfs mac-525400a50002 0
  ashlarctl device set-vfs nvme-S1 2 --namespaces 1,2+3`,
		Args: cobra.ExactArgs(2),
	}
	cmd.RunE = a.withHost(func(ctx context.Context, h *client.Host, args []string) error {
		a.field = fieldTable{"name": "NAME", "count": "COUNT", "namespaces": "--namespaces"}.name
		n, err := strconv.ParseUint(args[1], 10, 16)
		if err != nil {
			return fault.With(fault.Usage, fmt.Errorf("COUNT %q: want a number from 0 on", args[1]))
		}
		req := &ashlarv1.SetVirtualFunctionsRequest{Name: resource(devices, args[0]), Count: int32(n)}
		if req.Namespaces, err = parseNamespaces(namespaces); err != nil {
			return fault.With(fault.Usage, fmt.Errorf("--namespaces: %w", err))
		}
		d, err := message(h.Devices.SetVirtualFunctions(ctx, connect.NewRequest(req)))("set virtual functions of " + args[0])
		if err != nil {
			return err
		}
		return render.Message(a.Out, a.format, d, func() *render.Rows {
			r := &render.Rows{}
			r.Add(fmt.Sprintf("%s has %d virtual functions", render.ID(d.GetName()), d.GetSriov().GetEnabledVfs()))
			for _, vf := range d.GetSriov().GetVirtualFunctions() {
				r.Add(render.ID(vf))
			}
			return r
		})
	})
	cmd.Flags().StringVar(&namespaces, "namespaces", "", "of an NVMe controller: the namespaces of each virtual function, such as 1+2,3")
	a.must(cmd.RegisterFlagCompletionFunc("namespaces", cobra.NoFileCompletions))
	cmd.ValidArgsFunction = a.firstArg(a.completeDevices())
	a.formatFlag(cmd)
	return cmd
}

// parseNamespaces reads lists with a comma between them, of numbers with a + between them.
func parseNamespaces(s string) (all []*ashlarv1.SetVirtualFunctionsRequest_Namespaces, err error) {
	if s == "" {
		return nil, nil
	}
	for list := range strings.SplitSeq(s, ",") {
		one := &ashlarv1.SetVirtualFunctionsRequest_Namespaces{}
		for word := range strings.SplitSeq(list, "+") {
			n, err := strconv.ParseUint(word, 10, 31)
			if list != "" && err != nil {
				return nil, fmt.Errorf("%q: want numbers of namespaces, such as 1+2,3", s)
			}
			if list != "" {
				one.Ids = append(one.Ids, int32(n))
			}
		}
		all = append(all, one)
	}
	return all, nil
}

// vfKeys are the options of --vf behind its links.
var vfKeys = []string{"mac", "vlan", "qos", "rate", "trust", "spoofchk", "state"}

// ParseVF reads the value of --vf:
// LINK[+LINK…][,mac=ADDRESS][,vlan=N][,qos=N][,rate=MBIT][,trust=on|off][,spoofchk=on|off][,state=auto|enable|disable].
func ParseVF(s string) (*ashlarv1.HostDevice, error) {
	first, values, err := options(s, "link", vfKeys...)
	if err != nil {
		return nil, fmt.Errorf("vf %q: %w", s, err)
	}
	if first == "" {
		return nil, fmt.Errorf("vf %q: name a link of the host; `ashlarctl link list` lists them", s)
	}
	f := &ashlarv1.VirtualFunction{}
	for l := range strings.SplitSeq(first, "+") {
		f.Links = append(f.Links, resource(links, l))
	}
	if v, ok := values["mac"]; ok {
		mac, err := net.ParseMAC(v)
		if err != nil || len(mac) != 6 || mac[0]&1 != 0 {
			return nil, fmt.Errorf("vf %q: mac %q: want a unicast address such as 02:00:00:00:00:01", s, v)
		}
		f.MacAddress = mac.String()
	}
	for key, to := range map[string]*int32{"vlan": &f.Vlan, "qos": &f.Qos, "rate": &f.MaxRateMbps} {
		v, ok := values[key]
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(v, 10, 31)
		if err != nil {
			return nil, fmt.Errorf("vf %q: %s %q: want a number from 0 on", s, key, v)
		}
		*to = int32(n)
	}
	if f.Trust, err = onOff(values, "trust"); err != nil {
		return nil, fmt.Errorf("vf %q: %w", s, err)
	}
	if _, said := values["spoofchk"]; said {
		check, err := onOff(values, "spoofchk")
		if err != nil {
			return nil, fmt.Errorf("vf %q: %w", s, err)
		}
		f.SpoofCheck = &check
	}
	states := map[string]ashlarv1.VirtualFunction_LinkState{
		"": ashlarv1.VirtualFunction_LINK_STATE_UNSPECIFIED, "auto": ashlarv1.VirtualFunction_LINK_STATE_UNSPECIFIED,
		"enable": ashlarv1.VirtualFunction_LINK_STATE_ENABLE, "disable": ashlarv1.VirtualFunction_LINK_STATE_DISABLE,
	}
	state, ok := states[values["state"]]
	if !ok {
		return nil, fmt.Errorf("vf %q: state %q: want auto, enable or disable", s, values["state"])
	}
	f.LinkState = state
	return &ashlarv1.HostDevice{VirtualFunction: f}, nil
}

const vfLong = `
--vf LINK[+LINK...] gives it a virtual function of a network card, of the first of the links
(ashlarctl link list) that has a free one, those near to the NUMA nodes of its memory
first; ashlarctl device set-vfs makes them. Behind it [,mac=ADDRESS] is its address
(else the host assigns one, which stays), [,vlan=N][,qos=N] the VLAN that the card puts
on what it sends and the priority in it, [,rate=MBIT] what it sends at most in Mbit/s,
[,trust=on] lets it take other addresses and receive what is for others,
[,spoofchk=off] lets it send with another address than its own, and
[,state=enable|disable] what it is told of the cable. It can be given several times.
`

const attachVFLong = `Attach a virtual function of a network card to a virtual machine: a free one of the
link, or of the first of several with + between them that has one. A guest that runs
finds it in one of its hot-plug slots, one that is stopped when it is started. What may
stand behind the link is told by ashlarctl vm create --help (--vf).`

func (a *app) vmAttachVF() *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{
		Use: "attach-vf NAME LINK[,mac=ADDRESS][,vlan=N]...", Short: "Attach a virtual function of a network card, also while the virtual machine runs",
		Long:    attachVFLong,
		Example: "  ashlarctl vm attach-vf demo eth1\n  ashlarctl vm attach-vf demo eth1+eth2,vlan=10,rate=1000",
		Args:    cobra.ExactArgs(2),
	}
	cmd.RunE = a.withHost(func(ctx context.Context, h *client.Host, args []string) error {
		a.field = fieldTable{"device": "LINK", "device.virtualFunction": "LINK"}.name
		d, err := ParseVF(args[1])
		if err != nil {
			return fault.With(fault.Usage, err)
		}
		return a.attach(ctx, h, args[0], noWait, "device", hostDeviceNumbers, func() (*connect.Response[ashlarv1.Operation], error) {
			return h.VirtualMachines.AttachVirtualMachineDevice(ctx, connect.NewRequest(&ashlarv1.AttachVirtualMachineDeviceRequest{
				Name: resource(machines, args[0]), Device: d, RequestId: newUUID(),
			}))
		})
	})
	a.operationFlags(cmd, &noWait)
	first, second := a.firstArg(a.completeMachines()), a.completeLinks()
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 1 {
			return second(cmd, nil, start)
		}
		return first(cmd, args, start)
	}
	return cmd
}
