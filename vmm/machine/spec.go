package machine

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/ashlar-hv/ashlar/vmm/arch"
	"github.com/ashlar-hv/ashlar/vmm/boot"
	"github.com/ashlar-hv/ashlar/vmm/console"
	"github.com/ashlar-hv/ashlar/vmm/kvm"
	"github.com/ashlar-hv/ashlar/vmm/memory"
	"github.com/ashlar-hv/ashlar/vmm/pci"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/smbios"
	"github.com/ashlar-hv/ashlar/vmm/virtio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/balloon"
	"github.com/ashlar-hv/ashlar/vmm/virtio/blk"
	vconsole "github.com/ashlar-hv/ashlar/vmm/virtio/console"
	"github.com/ashlar-hv/ashlar/vmm/virtio/mem"
	vnet "github.com/ashlar-hv/ashlar/vmm/virtio/net"
	"github.com/ashlar-hv/ashlar/vmm/virtio/rng"
	"github.com/ashlar-hv/ashlar/vmm/virtio/transport"
)

const (
	minMemory       = 32 << 20
	memoryMultiple  = 2 << 20
	typedAhead      = 16 // messages of input that wait for a virtio console
	devicesOnBus    = 31 // slots 1 to 31
	fixedDevices    = 6  // entropy, console, balloon, and sockets, watchdog and memory where they are
	maxDisksAndNICs = devicesOnBus - fixedDevices
	maxDiskQueues   = 64 // of all disks: each has a thread, and up to two of the kernel
)

func invalid(field, format string, args ...any) *protocol.Error {
	return &protocol.Error{Code: protocol.InvalidArgument, Field: field, Message: fmt.Sprintf(format, args...)}
}

// A Guest is a Machine made from a Spec, and what it is yet to be loaded from.
type Guest struct {
	*Machine
	Hub *console.Hub
	log *os.File // or nil
	src boot.Load

	balloon   *balloon.Device
	pluggable *mem.Device // or nil
	console   *vconsole.Device
}

// check checks what a Spec says by itself.
func check(s *protocol.Spec) *protocol.Error {
	switch {
	case s.VCPUs < 1 || s.VCPUs > MaxVCPUs:
		return invalid("vcpus", "%d vCPUs: want 1 to %d", s.VCPUs, MaxVCPUs)
	case s.MaxVCPUs != 0 && (s.MaxVCPUs < s.VCPUs || s.MaxVCPUs > MaxVCPUs):
		return invalid("maxVcpus", "at most %d vCPUs of a guest that has %d: want %d to %d, or 0", s.MaxVCPUs, s.VCPUs, s.VCPUs, MaxVCPUs)
	case s.MemoryBytes < minMemory || s.MemoryBytes%memoryMultiple != 0 || s.MemoryBytes > memory.MaxSize:
		return invalid("memoryBytes", "%d bytes of memory: want a multiple of 2 MiB from 32 MiB on", s.MemoryBytes)
	case s.HotplugSlots < 0 || s.HotplugSlots > protocol.MaxHotplugSlots:
		return invalid("hotplugSlots", "%d hot-plug slots: want 0 to %d", s.HotplugSlots, protocol.MaxHotplugSlots)
	}
	room := maxDisksAndNICs
	if s.HotplugSlots > 0 {
		room-- // the root ports' place
	}
	onBus := len(s.Disks) + len(s.NICs) + s.VFIO.OnBus()
	if onBus > room {
		return invalid("disks", "%d disks, network devices and devices of the host's: there is room for %d", onBus, room)
	}
	if field, wrong := s.VFIO.Check(s.HotplugSlots); wrong != "" {
		return invalid("vfio."+field, "vfio.%s %s", field, wrong)
	}
	if err := s.Backing.Check(s.MemoryBytes); err != nil {
		return err
	}
	if err := checkBoard(s); err != nil {
		return err
	}
	if err := checkNUMA(s); err != nil {
		return err
	}
	if err := checkAffinity(s); err != nil {
		return err
	}
	if field, wrong := s.Pluggable.Check(s.MemoryBytes, s.Backing); wrong != "" {
		return invalid("pluggable."+field, "pluggable.%s %s", field, wrong)
	}
	if err := checkPorts(s); err != nil {
		return err
	}
	if _, err := smbios.Tables(smbios.System{UUID: s.UUID}, 0); err != nil {
		return invalid("uuid", "%v", err)
	}
	return nil
}

// FromSpec makes the machine that s describes, up to Load. files are the
// descriptors that s counts; FromSpec owns them all, also after an error.
func FromSpec(s *protocol.Spec, files []*os.File) (*Guest, *protocol.Error) {
	d := &descriptors{slices.Clone(files)}
	defer d.close() // what nobody took
	if err := check(s); err != nil {
		return nil, err
	}
	g := &Guest{Hub: console.New(protocol.ConsoleReplay), src: boot.Load{Cmdline: s.Boot.Cmdline}}
	if err := g.assemble(s, d); err != nil {
		g.Close()
		return nil, err
	}
	return g, nil
}

func (g *Guest) assemble(s *protocol.Spec, d *descriptors) *protocol.Error {
	cpu, err := cpuOf(s)
	if err != nil {
		return err
	}
	if g.log, err = d.take("log", s.Log); err != nil {
		return err
	}
	if g.src.Kernel, err = d.take("boot.kernel", s.Boot.Kernel); err != nil {
		return err
	}
	if g.src.Initramfs, err = d.takeOptional("boot.initramfs", s.Boot.Initramfs); err != nil {
		return err
	}
	mem, err := d.take("memory", s.Memory)
	if err != nil {
		return err
	}
	defer mem.Close() // the mapping stays
	dev, err := d.take("kvm", s.KVM)
	if err != nil {
		return err
	}
	group, err := d.takeOptional("vcpuGroup", s.VCPUGroup)
	if err != nil {
		dev.Close()
		return err
	}
	if group != nil {
		defer group.Close() // the threads are in it by then
	}
	m, merr := New(Config{
		KVM: dev, Memory: mem, MemoryBytes: s.MemoryBytes, Backing: s.Backing, Pluggable: s.Pluggable, VCPUs: s.VCPUs, MostVCPUs: s.MaxVCPUs, CPU: cpu, UUID: s.UUID, Console: g.Hub, Board: s.Board.Get(), NUMA: s.NUMA, NodeAccess: s.NodeAccess, Affinity: s.Affinity, VCPUGroup: group,
	})
	if merr != nil {
		return nodeError(s, newError(merr), merr)
	}
	g.Machine = m
	return g.addDevices(s, d)
}

// newError says whose fault it is that a machine could not be made.
func newError(err error) *protocol.Error {
	e := &protocol.Error{Code: protocol.Unavailable, Message: err.Error()}
	var missing *kvm.MissingError
	var features *arch.MissingFeaturesError
	switch {
	case errors.Is(err, arch.ErrModel):
		e.Code, e.Field = protocol.InvalidArgument, "cpu.model"
	case errors.As(err, &features):
		e.Field = "cpu.model"
	case errors.As(err, &missing) && missing.Capability == kvm.CapSysHyperVCPUID:
		e.Field = "cpu.hyperv"
	case errors.Is(err, memory.ErrExhausted):
		e.Code, e.Field = protocol.ResourceExhausted, "memoryBytes"
	case errors.Is(err, memory.ErrHuge):
		e.Field = "backing.pages"
	case errors.Is(err, memory.ErrSize):
		e.Code, e.Field = protocol.InvalidArgument, "memory"
	case errors.As(err, &missing):
		e.Field = "kvm"
	}
	return e
}

// addDevices plugs in what the Spec lists, in its order, then entropy and console, and
// makes the hot-plug slots.
func (g *Guest) addDevices(s *protocol.Spec, d *descriptors) *protocol.Error {
	if err := g.addDisks(s, d); err != nil {
		return err
	}
	if err := g.addNICs(s, d); err != nil {
		return err
	}
	if err := g.addSlots(s.HotplugSlots); err != nil {
		return &protocol.Error{Code: protocol.Unavailable, Field: "hotplugSlots", Message: err.Error()}
	}
	if err := g.addVFIO(s, d); err != nil {
		return err
	}
	if err := g.addUsual(s, d); err != nil {
		return err
	}
	if err := g.addVsock(s, d); err != nil {
		return err
	}
	if err := g.addBoardDevices(s); err != nil {
		return err
	}
	if err := g.addMemory(s); err != nil {
		return err
	}
	if err := g.showConfig(); err != nil {
		return &protocol.Error{Code: protocol.Unavailable, Message: err.Error()}
	}
	return nil
}

// diskQueues is how many queues each disk has: one per vCPU, unless those of
// many disks would be too many threads.
func diskQueues(s *protocol.Spec) int {
	return max(1, min(s.VCPUs, blk.MaxQueues, maxDiskQueues/max(1, len(s.Disks))))
}

func (g *Guest) addDisks(s *protocol.Spec, d *descriptors) *protocol.Error {
	ns, perr := numbers("disks", s.Disks, func(d protocol.Disk) int { return d.Number })
	if perr != nil {
		return perr
	}
	for i, disk := range s.Disks {
		dev, perr := newDisk(fmt.Sprintf("disks[%d]", i), disk, blk.Config{Queues: diskQueues(s), Buffers: g.buffers, Trouble: g.diskTrouble(ns[i])}, d)
		if perr != nil {
			return perr
		}
		if perr := g.plug(diskName(ns[i]), dev, g.listed(diskName(ns[i]))); perr != nil {
			return perr
		}
		g.disks[ns[i]] = dev
	}
	return nil
}

// listed places a function on the bus as a disk or network device of that name.
func (g *Guest) listed(name string) func(pci.Function) error {
	return func(fn pci.Function) error {
		err := g.AddDevice(name, fn)
		if err == nil {
			g.devices[len(g.devices)-1].listed = true
		}
		return err
	}
}

// newDisk makes the disk that the field describes, with the queues, rings and buffers of c.
func newDisk(field string, disk protocol.Disk, c blk.Config, d *descriptors) (*blk.Device, *protocol.Error) {
	f, perr := d.take(field+".file", disk.File)
	if perr != nil {
		return nil, perr
	}
	if len(disk.Serial) > blk.SerialSize {
		f.Close()
		return nil, invalid(field+".serial", "serial of %d bytes: at most %d", len(disk.Serial), blk.SerialSize)
	}
	limits, perr := diskLimits(field+".limits", disk.Limits)
	if perr != nil {
		f.Close()
		return nil, perr
	}
	c.File, c.ReadOnly, c.Serial, c.Limits = f, disk.ReadOnly, disk.Serial, limits
	dev, err := blk.New(c)
	if err != nil {
		f.Close()
		return nil, invalid(field+".file", "%v", err)
	}
	return dev, nil
}

func (g *Guest) addNICs(s *protocol.Spec, d *descriptors) *protocol.Error {
	ns, perr := numbers("nics", s.NICs, func(n protocol.NIC) int { return n.Number })
	if perr != nil {
		return perr
	}
	for i, nic := range s.NICs {
		dev, perr := newNIC(fmt.Sprintf("nics[%d]", i), nic, d)
		if perr != nil {
			return perr
		}
		if perr := g.plug(nicName(ns[i]), dev, g.listed(nicName(ns[i]))); perr != nil {
			return perr
		}
		g.nics[ns[i]] = dev
	}
	return nil
}

// newNIC makes the network device that the field describes.
func newNIC(field string, nic protocol.NIC, d *descriptors) (*vnet.Device, *protocol.Error) {
	mac, err := parseMAC(nic.MAC)
	if err != nil {
		return nil, invalid(field+".mac", "MAC address %q: %v", nic.MAC, err)
	}
	c := vnet.Config{MAC: mac, MTU: nic.MTU, LinkDown: nic.LinkDown}
	release := func() {
		for _, p := range c.Pairs {
			for _, f := range []*os.File{p.Tap, p.Vhost} {
				if f != nil {
					f.Close()
				}
			}
		}
	}
	for j, want := range nic.Pairs {
		place := fmt.Sprintf("%s.pairs[%d]", field, j)
		var p vnet.Pair
		var perr *protocol.Error
		take := d.take
		if want.Vhost != nil {
			take = d.takeUnwatched
		}
		if p.Tap, perr = take(place+".tap", want.Tap); perr == nil {
			p.Vhost, perr = d.takeOptional(place+".vhost", want.Vhost)
		}
		c.Pairs = append(c.Pairs, p)
		if perr != nil {
			release()
			return nil, perr
		}
	}
	dev, err := vnet.New(c)
	if err != nil {
		release()
		return nil, invalid(field, "%v", err)
	}
	return dev, nil
}

// addUsual plugs in what a guest has without being asked for, unless it is bare.
func (g *Guest) addUsual(s *protocol.Spec, d *descriptors) *protocol.Error {
	f, err := d.take("entropy", s.Entropy)
	if err != nil {
		return err
	}
	if s.Board.Get().Bare {
		f.Close()
		return nil
	}
	if err := g.addEntropyAndConsole(s, f); err != nil {
		return err
	}
	return g.addBalloon(s)
}

func (g *Guest) addEntropyAndConsole(s *protocol.Spec, f *os.File) *protocol.Error {
	random, err := rng.New(f)
	if err != nil {
		f.Close()
		return invalid("entropy", "%v", err)
	}
	if err := g.plugFixed("entropy", random); err != nil {
		return err
	}
	in := make(chan []byte, typedAhead)
	con, err := vconsole.New(vconsole.Config{Output: g.Hub.Writer(channelInput(in)), Input: in, Ports: protocol.PortNames(s.Ports)})
	if err != nil {
		return &protocol.Error{Code: protocol.Unavailable, Message: err.Error()}
	}
	g.console = con
	return g.plugFixed("console", con)
}

func (g *Guest) addBalloon(s *protocol.Spec) *protocol.Error {
	dev, err := balloon.New(balloon.Config{Max: s.MemoryBytes - protocol.BalloonLeaves, Target: s.BalloonBytes})
	if errors.Is(err, balloon.ErrTarget) {
		return invalid("balloonBytes", "balloon of %v", err)
	}
	if err != nil {
		return &protocol.Error{Code: protocol.Unavailable, Message: err.Error()}
	}
	g.balloon = dev
	return g.plugFixed("balloon", dev)
}

// channelInput is a console that takes input by a channel.
type channelInput chan<- []byte

// Accept implements console.Input.
func (c channelInput) Accept(b []byte) int {
	select {
	case c <- slices.Clone(b):
		return len(b)
	default:
		return 0
	}
}

// plugFixed puts a virtio device on the bus.
func (g *Guest) plugFixed(name string, dev virtio.Device) *protocol.Error {
	return g.plug(name, dev, func(fn pci.Function) error { return g.AddDevice(name, fn) })
}

// plug puts a virtio device where place does.
func (g *Guest) plug(name string, dev virtio.Device, place func(pci.Function) error) *protocol.Error {
	t, err := transport.New(dev, g.mem, g.MSIRouter(), g.Notifier())
	if err != nil {
		err = errors.Join(err, dev.Close())
	} else if err = place(t); err != nil {
		err = errors.Join(err, t.Close())
	}
	if err != nil {
		return &protocol.Error{Code: protocol.Unavailable, Message: fmt.Sprintf("%s: %v", name, err)}
	}
	return nil
}

// Load loads the kernel and what belongs to it, opens the log, and closes the
// files it read.
func (g *Guest) Load() *protocol.Error {
	err := g.Machine.Load(g.src)
	g.closeSource()
	if err != nil {
		e := &protocol.Error{Code: protocol.InvalidArgument, Message: err.Error()}
		switch {
		case errors.Is(err, boot.ErrKernel):
			e.Field = "boot.kernel"
		case errors.Is(err, boot.ErrInitramfs):
			e.Field = "boot.initramfs"
		case errors.Is(err, boot.ErrCmdline):
			e.Field = "boot.cmdline"
		case errors.Is(err, boot.ErrMemory):
			e.Field = "memoryBytes"
		default:
			e.Code = protocol.Internal
		}
		return e
	}
	if err := g.Hub.Log(g.log, protocol.LogLimit); err != nil {
		return invalid("log", "%v", err)
	}
	return nil
}

func (g *Guest) closeSource() {
	for _, f := range []*os.File{g.src.Kernel, g.src.Initramfs} {
		if f != nil {
			f.Close()
		}
	}
	g.src.Kernel, g.src.Initramfs = nil, nil
}

// Close flushes and frees everything. The guest has ended, or never started.
func (g *Guest) Close() error {
	g.closeSource()
	var errs []error
	if g.Machine != nil {
		errs = append(errs, g.Machine.Close())
	}
	g.Hub.Close()
	if g.log != nil {
		errs = append(errs, g.log.Close())
	}
	return errors.Join(errs...)
}
