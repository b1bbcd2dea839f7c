package command

import (
	"context"
	"fmt"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/client"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/fault"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/render"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/size"
	"github.com/ashlar-hv/ashlar/vmm/processor"
)

// createFields are the flags of `vm create` by the fields they set.
var createFields = fieldTable{
	"virtualMachineId":    "NAME",
	"cpus":                "--cpus",
	"maxCpus":             "--cpus",
	"memoryBytes":         "--memory",
	"memoryBacking.pages": "--memory",
	"maxMemoryBytes":      "--memory",
	"hotplugMemoryBytes":  "--memory",
	"balloonBytes":        "--balloon",
	"watchdog.action":     "--watchdog",
	"onPanic":             "--on-panic",
	"serialNumber":        "--serial-number",
	"bare":                "--bare",
	"processor":           "--cpu",
	"processor.model":     "--cpu",
	"processor.haltPoll":  "--cpu",
	"numaNodes":           "--numa",
	"numaNodes[]":         "--numa",
	"placement.node":      "--placement",
	"placement.cpus":      "--cpu-pinning",
	"placement.cpus[]":    "--cpu-pinning",
	"boot":                "--kernel",
	"boot.kernel":         "--kernel",
	"boot.initramfs":      "--initramfs",
	"boot.cmdline":        "--cmdline",
	"disks[]":             "--disk",
	"disks":               "--disk",
	"networkInterfaces[]": "--network",
	"networkInterfaces":   "--network",
	"vsock":               "--vsock",
	"hotplugSlots":        "--hotplug-slots",
	"devices[]":           "--device, --vf",
	"devices":             "--device, --vf",
	"serialPorts[]":       "--serial-port",
	"serialPorts":         "--serial-port",

	"placement.exclusiveCores": "--exclusive-cores",
}

// createFlags are the flags of `vm create`.
type createFlags struct {
	slots                            int32
	cpus, cpu                        string
	memory, balloon                  string
	kernel, initrd, cmdline          string
	disks, networks, numa            []string
	devices, vfs                     []string
	start, validateOnly, waitNothing bool
	vsock                            bool
	serialPorts                      []string
	board                            boardFlags
	placement                        placementFlags
}

const createLong = `Create a virtual machine and its disks. It boots a Linux kernel (an image that
is a bzImage or an ELF file with a PVH entry) or a multiboot 1 image, with an
initramfs and a command line where they are given.

--disk IMAGE[,size=SIZE] clones an image, and makes the disk larger where a size
is given; --disk size=SIZE is an empty disk. Behind it [,bps=SIZE][,iops=N] limit
what the disk reads and writes, and how many requests it does, in a second;
bps-burst=SIZE and iops-burst=N are what it can do at once after a rest (a tenth
of a second's worth). --network NAME[,mac=ADDRESS] attaches the virtual machine
to a network of the host. Behind it [,rx=SIZE][,tx=SIZE][,rx-pps=N][,tx-pps=N] limit
the bytes and packets that it receives and sends in a second, with rx-burst=SIZE,
rx-pps-burst=N and so on for what passes at once after a rest; link=down leaves its
cable unplugged. Both can be given several times. --vsock gives it a socket device, for
` + "`ashlarctl vm connect`" + `. --serial-port NAME, too, can be given several times: a serial port for a
program in the guest (/dev/virtio-ports/NAME in Linux), to be connected to by
` + "`ashlarctl vm connect --serial`" + `.

--memory SIZE[,pages=KIND][,populate=on] says how much memory it has and what of the
host's that is made of: huge pages as far as there are some at hand (pages=default;
with transparent the host must know them), pages of just 4KiB, which hold no more of
the host's memory than the guest has touched, or of just 2MiB or 1GiB from the host's
pool of them; and whether all of it is allocated before the guest starts.
Behind it ,max=SIZE is the most that it can have while it runs (vm set-memory), and
,hotplug=SIZE what it is to have besides the first size, with which it starts.

--cpus N[,max=N] is how many processors it has, and how many it may come to have by
` + "`ashlarctl vm set-cpus`" + `; without max their number stays.

--cpu MODEL[,sockets=N][,cores=N][,threads=N][,hyperv=on][,poll=TIME] says what
its processors are like: all that the host has (host), or a baseline that is the
same on all hosts of a maker (x86-64-v1 to x86-64-v4); how they are arranged;
whether Windows finds what it wants of Hyper-V; how long the host waits for a
processor that has halted, up to 10ms, before it gives its own away.

` + numaLong

func (a *app) vmCreate() *cobra.Command {
	var fl createFlags
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Create a virtual machine",
		Long: createLong + placementLong + hostDeviceLong + vfLong + boardLong,
		Example: `  ashlarctl vm create demo --cpus 2 --memory 512MiB --kernel vmlinuz --initramfs initrd \
    --cmdline "console=ttyS0 root=/dev/vda" --disk debian,size=4GiB --network default --start
  ashlarctl vm create fast --cpus 8 --cpu x86-64-v3,sockets=2,threads=2,poll=50us \
    --memory 16GiB,pages=1GiB,populate=on --kernel vmlinuz --disk debian
  ashlarctl vm create grows --cpus 2,max=8 --memory 512MiB,max=4GiB --kernel vmlinuz --disk debian
  ashlarctl vm create near --cpus 4 --memory 2GiB --numa nodes=2,host=0+1 --kernel vmlinuz
  ashlarctl vm create far --cpus 4 --memory 3GiB --numa cpus=0-2,memory=2GiB,host=0 \
    --numa cpus=3,memory=1GiB,host=1 --kernel vmlinuz
  ashlarctl vm create fast --cpus 4 --memory 2GiB,pages=2MiB --placement auto --exclusive-cores --kernel vmlinuz
  ashlarctl vm create here --cpus 2 --placement node=1 --cpu-pinning 8+9 --kernel vmlinuz
  ashlarctl vm create slow --kernel vmlinuz --disk debian,size=20GiB,bps=100MiB,iops=1000 \
    --network default,rx=10MiB/s,tx=10MiB/s
  ashlarctl vm create sure --kernel vmlinuz --disk debian --watchdog reset --on-panic reset --serial-number RACK-7/2
  ashlarctl vm create lean --kernel vmlinuz --initramfs app.cpio --memory 128MiB --bare
  ashlarctl vm create agent --kernel vmlinuz --disk debian --serial-port org.qemu.guest_agent.0
  ashlarctl vm create fast-disk --kernel vmlinuz --disk debian --device 0000:17:00.0
  ashlarctl vm create wired --kernel vmlinuz --disk debian --vf eth1,vlan=10,rate=1000
  ashlarctl vm create scratch --memory 256MiB --kernel vmlinuz --disk size=1GiB --validate-only`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.RunE = a.withHost(func(ctx context.Context, h *client.Host, args []string) error {
		if err := exclusive(cmd, "start", "validate-only"); err != nil {
			return err
		}
		return a.create(ctx, h, args[0], &fl)
	})
	f := cmd.Flags()
	f.StringVar(&fl.cpus, "cpus", "1", "number of processors, 1 to 128, and how many there may come to be: N[,max=N]")
	f.StringVar(&fl.cpu, "cpu", "", "what they are like: MODEL[,sockets=N][,cores=N][,threads=N][,hyperv=on][,poll=TIME]")
	f.StringVar(&fl.memory, "memory", "512MiB", "size of the memory, a multiple of 2MiB: SIZE[,max=SIZE][,hotplug=SIZE][,pages=KIND][,populate=on]")
	f.StringVar(&fl.balloon, "balloon", "0", "how much of it the virtual machine gives back to the host")
	f.StringArrayVar(&fl.numa, "numa", nil, "NUMA nodes: nodes=N[,host=LIST], or cpus=LIST,memory=SIZE[,host=LIST][,distances=LIST] (repeatable)")
	f.StringVar(&fl.kernel, "kernel", "", "image of the kernel (required)")
	f.StringVar(&fl.initrd, "initramfs", "", "image of the initramfs")
	f.StringVar(&fl.cmdline, "cmdline", "", "command line of the kernel")
	f.StringArrayVar(&fl.disks, "disk", nil, "disk: IMAGE[,size=SIZE] or size=SIZE, then [,bps=SIZE][,iops=N] (repeatable)")
	f.StringArrayVar(&fl.networks, "network", nil, "network: NAME[,mac=ADDRESS], then [,rx=SIZE][,tx=SIZE][,link=down] (repeatable)")
	f.StringArrayVar(&fl.devices, "device", nil, "PCI device of the host: ADDRESS[,rom=on][,allow-no-reset=on] (repeatable)")
	f.StringArrayVar(&fl.vfs, "vf", nil, "virtual function: LINK[+LINK...], then [,mac=ADDRESS][,vlan=N][,qos=N][,rate=MBIT][,trust=on][,spoofchk=off][,state=STATE] (repeatable)")
	f.BoolVar(&fl.vsock, "vsock", false, "socket device, to connect to its ports without a network")
	f.Int32Var(&fl.slots, "hotplug-slots", 4, "slots for disks and network interfaces that are attached while it runs, 0 to 8")
	f.StringArrayVar(&fl.serialPorts, "serial-port", nil, "name of a serial port besides the console, such as org.qemu.guest_agent.0 (repeatable)")
	f.BoolVar(&fl.start, "start", false, "start it, too")
	f.BoolVar(&fl.validateOnly, "validate-only", false, "let the host check everything and make nothing")
	f.BoolVar(&fl.waitNothing, "no-wait", false, "with --start: do not wait until it runs")
	fl.board.add(a, cmd)
	fl.placement.add(a, cmd)
	a.must(cmd.RegisterFlagCompletionFunc("serial-port", cobra.FixedCompletions([]string{"org.qemu.guest_agent.0"}, cobra.ShellCompDirectiveNoFileComp)))
	for _, flag := range []string{"kernel", "initramfs", "disk"} {
		a.must(cmd.RegisterFlagCompletionFunc(flag, a.completeImages()))
	}
	a.must(cmd.RegisterFlagCompletionFunc("cpu", cobra.FixedCompletions(processor.Models(), cobra.ShellCompDirectiveNoFileComp)))
	a.must(cmd.RegisterFlagCompletionFunc("numa", cobra.FixedCompletions([]string{"nodes=", "cpus="}, cobra.ShellCompDirectiveNoSpace|cobra.ShellCompDirectiveNoFileComp)))
	a.must(cmd.RegisterFlagCompletionFunc("network", a.completeNetworks()))
	a.must(cmd.RegisterFlagCompletionFunc("device", a.completeDevices()))
	a.must(cmd.RegisterFlagCompletionFunc("vf", a.completeLinks()))
	a.must(cmd.MarkFlagRequired("kernel"))
	a.formatFlag(cmd)
	return cmd
}

// machine is the virtual machine that the flags describe.
func (fl *createFlags) machine() (*ashlarv1.VirtualMachine, error) {
	vm, err := ParseMemory(fl.memory)
	if err != nil {
		return nil, fmt.Errorf("--memory: %w", err)
	}
	balloon, err := size.Parse(fl.balloon)
	if err != nil {
		return nil, fmt.Errorf("--balloon: %w", err)
	}
	cpus, most, err := ParseCPUs(fl.cpus)
	if err != nil {
		return nil, fmt.Errorf("--cpus: %w", err)
	}
	vm.Cpus, vm.MaxCpus, vm.BalloonBytes = cpus, most, balloon
	vm.Boot = &ashlarv1.Boot{Kernel: resource(images, fl.kernel), Cmdline: fl.cmdline}
	vm.HotplugSlots, vm.SerialPorts = &fl.slots, fl.serialPorts
	if err := fl.board.set(vm); err != nil {
		return nil, err
	}
	if vm.Placement, err = ParsePlacement(fl.placement.node, fl.placement.pinning, fl.placement.exclusive); err != nil {
		return nil, err
	}
	if fl.cpu != "" {
		if vm.Processor, err = ParseProcessor(fl.cpu); err != nil {
			return nil, fmt.Errorf("--cpu: %w", err)
		}
	}
	if fl.vsock {
		vm.Vsock = &ashlarv1.Vsock{}
	}
	if vm.NumaNodes, err = ParseNUMA(fl.numa, max(vm.Cpus, vm.MaxCpus), vm.MemoryBytes, poolPages(vm.MemoryBacking)); err != nil {
		return nil, fmt.Errorf("--numa: %w", err)
	}
	if fl.initrd != "" {
		vm.Boot.Initramfs = resource(images, fl.initrd)
	}
	for _, s := range fl.disks {
		d, err := ParseDisk(s)
		if err != nil {
			return nil, fmt.Errorf("--disk: %w", err)
		}
		vm.Disks = append(vm.Disks, d)
	}
	for _, s := range fl.networks {
		n, err := ParseNetwork(s)
		if err != nil {
			return nil, fmt.Errorf("--network: %w", err)
		}
		vm.NetworkInterfaces = append(vm.NetworkInterfaces, n)
	}
	for _, s := range fl.devices {
		d, err := ParseHostDevice(s)
		if err != nil {
			return nil, fmt.Errorf("--device: %w", err)
		}
		vm.Devices = append(vm.Devices, d)
	}
	for _, s := range fl.vfs {
		d, err := ParseVF(s)
		if err != nil {
			return nil, fmt.Errorf("--vf: %w", err)
		}
		vm.Devices = append(vm.Devices, d)
	}
	return vm, nil
}

// create makes the virtual machine and starts it where that is asked for.
func (a *app) create(ctx context.Context, h *client.Host, id string, fl *createFlags) error {
	a.field = createFields.name
	vm, err := fl.machine()
	if err != nil {
		return fault.With(fault.Usage, err)
	}
	req := &ashlarv1.CreateVirtualMachineRequest{
		VirtualMachineId: bareID(machines, id), VirtualMachine: vm,
		RequestId: newUUID(), ValidateOnly: fl.validateOnly,
	}
	vm, err = message(h.VirtualMachines.CreateVirtualMachine(ctx, connect.NewRequest(req)))("create " + id)
	if err != nil {
		return err
	}
	text := id + " is created"
	switch {
	case fl.validateOnly:
		text = id + " can be created"
	case fl.start:
		if text, err = a.startCreated(ctx, h, id, fl.waitNothing); err != nil {
			return err
		}
		if vm, err = getMachine(ctx, h, id); err != nil {
			return err
		}
	}
	return render.Message(a.Out, a.format, vm, func() *render.Rows { return &render.Rows{Lines: [][]string{{text}}} })
}

// startCreated starts a virtual machine that has just been made.
func (a *app) startCreated(ctx context.Context, h *client.Host, id string, noWait bool) (string, error) {
	req := connect.NewRequest(&ashlarv1.StartVirtualMachineRequest{Name: resource(machines, id), RequestId: newUUID()})
	op, err := message(h.VirtualMachines.StartVirtualMachine(ctx, req))(id + " is created; start it")
	if err != nil {
		return "", err
	}
	if noWait {
		return fmt.Sprintf("%s is created and starts: operation %s", id, render.ID(op.GetName())), nil
	}
	if _, err := a.await(ctx, h, op, id+" is created; start it"); err != nil {
		return "", err
	}
	return id + " is created and runs", nil
}
