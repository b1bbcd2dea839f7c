// Package machine puts a PC together: KVM, memory, processors, interrupt
// routes, the PCI bus, the devices on board, and what is plugged in. It has
// no specification of its own: what the guest sees is that of the packages it
// uses, laid out as vmm/arch says.
//
// A Machine is made (New, AddDevice), loaded (Load), started, and ends by
// itself or by Stop. New and AddDevice make every descriptor that it will ever
// need, so that the process can give up its privileges before Load, which is
// the first to read what somebody else wrote.
package machine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/ashlar-hv/ashlar/vmm/acpi"
	"github.com/ashlar-hv/ashlar/vmm/arch"
	"github.com/ashlar-hv/ashlar/vmm/bios"
	"github.com/ashlar-hv/ashlar/vmm/boot"
	"github.com/ashlar-hv/ashlar/vmm/console"
	"github.com/ashlar-hv/ashlar/vmm/device"
	"github.com/ashlar-hv/ashlar/vmm/device/cpus"
	"github.com/ashlar-hv/ashlar/vmm/device/power"
	"github.com/ashlar-hv/ashlar/vmm/device/rtc"
	"github.com/ashlar-hv/ashlar/vmm/device/serial"
	"github.com/ashlar-hv/ashlar/vmm/iouring"
	"github.com/ashlar-hv/ashlar/vmm/kvm"
	"github.com/ashlar-hv/ashlar/vmm/memory"
	"github.com/ashlar-hv/ashlar/vmm/pci"
	"github.com/ashlar-hv/ashlar/vmm/processor"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/smbios"
	"github.com/ashlar-hv/ashlar/vmm/timer"
	"github.com/ashlar-hv/ashlar/vmm/vfio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/blk"
	vnet "github.com/ashlar-hv/ashlar/vmm/virtio/net"
)

// lookInterval is how often the watcher looks for a guest that halted for good.
const lookInterval = 2 * time.Second

// MaxVCPUs is the most processors of a machine.
const MaxVCPUs = 128

// A Config is what every machine has.
type Config struct {
	KVM         *os.File // /dev/kvm; the Machine owns it, also after an error
	Memory      *os.File // of MemoryBytes and Pluggable; stays the caller's
	MemoryBytes uint64
	Backing     *protocol.Backing   // what Memory is made of
	VCPUs       int                 // 1 to MaxVCPUs
	MostVCPUs   int                 // that there may come to be; 0: VCPUs, which stay
	Pluggable   *protocol.Pluggable // what of it comes and goes, behind MemoryBytes
	CPU         CPU
	NUMA        []protocol.NUMANode // checked, by protocol.CheckNUMA
	NodeAccess  [][]protocol.Access // of nodes to nodes
	Affinity    []protocol.Affinity // where vCPUs run
	// VCPUGroup is what threads of vCPUs of Affinity join (thread.Settle) while New is at it,
	// which does not close it; or nil.
	VCPUGroup *os.File
	UUID      string // for SMBIOS
	Console   *console.Hub
	Board     protocol.Board
}

// A Machine is one guest.
type Machine struct {
	c           Config
	sys         *kvm.System
	vm          *kvm.VM
	mem         *memory.Memory
	routes      *routes
	bus         *pci.Bus
	ports       device.Bus
	uart        *serial.UART
	pm1         *power.PM1
	mmio64      pci.Window
	vfio        *vfio.Host // nil where the guest never has devices of the host's
	windows     windows
	views       *memory.Pages // configuration spaces that the guest reads by itself
	configPorts *pci.Ports
	pmTimer     bool       // there is a power management timer
	serial      *os.File   // eventfd of the UART's interrupt
	bios        *bios.BIOS // where the kernel was entered in real mode, else nil

	devices []*plugged          // changed with both lifeMu and mu held, or before Start
	disks   map[int]*blk.Device // those of devices, by number; guarded by lifeMu
	buffers *iouring.Buffers    // the memory, for their rings; or nil
	slots   []*hotplugSlot
	nics    map[int]*vnet.Device // so are these
	runners []*runner            // all that there may come to be
	cpus    *cpus.Block          // which of them the guest has; nil where all of them stay
	look    *timer.Timer         // ticks when the watcher is to look for a guest that halted for good
	watcher sync.WaitGroup

	// mu guards what follows. It is taken by vCPU threads between two runs
	// and by callers of the life cycle; no lock is taken below it.
	mu      sync.Mutex
	changed sync.Cond
	state   protocol.State
	result  protocol.Result
	paused  bool // what vCPUs are to be
	parked  int  // vCPUs that are
	live    int  // vCPUs that have a thread
	running sync.WaitGroup
	notes   notes
	events  deviceEvents
	done    chan struct{} // closed when the machine has ended
	homes   homes         // of the vCPUs that are to run on certain CPUs
	lifeMu  sync.Mutex    // serialises Pause, Resume, NMI, Counters, what changes disks and NICs, and Close; above mu
}

// A plugged device is a PCI function and its name in counters and messages.
type plugged struct {
	name      string
	fn        pci.Function
	listed    bool      // a disk or network device
	slot      int       // hot-plug slot, from 1 on; 0 is none
	address   string    // of a device of the host's; guarded by Machine.mu, or set before Start
	detaching bool      // guarded by Machine.mu
	asked     time.Time // when the guest was asked to give it up last; guarded by lifeMu
}

func (d *plugged) close() error {
	if c, ok := d.fn.(io.Closer); ok {
		if err := c.Close(); err != nil {
			return fmt.Errorf("close %s: %w", d.name, err)
		}
	}
	return nil
}

// New makes a machine without devices but those on board.
func New(c Config) (*Machine, error) {
	if c.VCPUs < 1 || c.most() > MaxVCPUs || c.MostVCPUs != 0 && c.MostVCPUs < c.VCPUs {
		c.KVM.Close()
		return nil, fmt.Errorf("%d vCPUs of %d: want 1 to %d", c.VCPUs, c.MostVCPUs, MaxVCPUs)
	}
	var err error
	if c.CPU.Topology, err = processor.NewTopology(c.most(), c.CPU.Topology); err != nil {
		c.KVM.Close()
		return nil, err
	}
	m := &Machine{c: c, disks: make(map[int]*blk.Device), nics: make(map[int]*vnet.Device), state: protocol.Waiting, done: make(chan struct{})}
	m.changed.L = &m.mu
	if err := m.build(); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

func (m *Machine) build() error {
	var err error
	if m.sys, err = kvm.Open(m.c.KVM); err != nil {
		return err
	}
	if m.look, err = timer.Every(lookInterval); err != nil {
		return err
	}
	if err := m.mapMemory(); err != nil {
		return err
	}
	if err := m.createVM(); err != nil {
		return err
	}
	p, err := m.processors()
	if err != nil {
		return err
	}
	for i := range m.c.most() {
		if err := m.addVCPU(i, p); err != nil {
			return err
		}
	}
	if err := m.settle(); err != nil {
		return err
	}
	base, size, err := arch.MMIO64(arch.PhysBits(p.model), m.mem.End())
	if err != nil {
		return err
	}
	m.mmio64 = pci.Window{Base: base, Size: size}
	m.bus = pci.NewBus(pci.Window{Base: arch.MMIO32Base, Size: arch.MMIO32Size}, m.mmio64)
	return m.addBoard()
}

// mapMemory maps the memory, and allocates it where that was asked for: before
// KVM would have to be told of each page.
func (m *Machine) mapMemory() error {
	var err error
	if m.mem, err = m.openMemory(); err != nil {
		return err
	}
	pages := m.c.Backing.Kind()
	if want := max(pages.PoolSize(), memory.PageSize); m.mem.PageSize() != want {
		return fmt.Errorf("the memory file has pages of %d bytes, want %d: %w", m.mem.PageSize(), want, memory.ErrSize)
	}
	if pages == protocol.TransparentPages || pages == protocol.DefaultPages {
		// A kernel that knows no huge pages has small ones for who has not asked.
		if err := m.mem.AdviseHuge(); err != nil && pages == protocol.TransparentPages {
			return err
		}
	}
	if err := m.bindMemory(); err != nil {
		return err
	}
	if !m.c.Backing.ForNodes(m.c.NUMA).Populated() {
		return nil
	}
	if err := m.mem.Populate(); err != nil {
		return err
	}
	return m.registerMemory()
}

// createVM makes the VM with its memory and interrupt controllers.
func (m *Machine) createVM() error {
	var err error
	if m.vm, err = m.sys.CreateVM(); err != nil {
		return err
	}
	if err := m.vm.SetTSSAddress(arch.TSS, arch.IdentityMap); err != nil {
		return err
	}
	if err := m.vm.CreateIRQChip(); err != nil {
		return err
	}
	if err := m.vm.CreatePIT(); err != nil {
		return err
	}
	if d := m.c.CPU.HaltPoll; d != nil {
		if err := m.vm.SetHaltPoll(*d); err != nil {
			return err
		}
	}
	for i, r := range m.mem.HostRegions() {
		s := kvm.MemorySlot{Slot: uint32(i), GPA: r.GPA, Size: r.Size, HostAddr: r.HostAddr}
		if err := m.vm.SetMemoryRegion(s); err != nil {
			return err
		}
	}
	m.windows.vm = m.vm
	m.routes = newRoutes(m.vm)
	return m.routes.update()
}

// addBoard makes the devices on board.
func (m *Machine) addBoard() error {
	var err error
	if m.serial, err = newEventFD("serial-irq"); err != nil {
		return err
	}
	if err := m.vm.IRQFD(m.serial, arch.IRQSerial); err != nil {
		return err
	}
	in := &lateInput{}
	m.uart = serial.New(m.c.Console.Writer(in), func() { signal(m.serial) })
	in.Input = m.uart
	m.c.Console.SetInput(m.uart)
	m.pm1 = power.NewPM1(m.setSCI, m.slept)
	reset := func() { m.end(protocol.Reset, "") }
	m.configPorts = pci.NewPorts(m.bus, &power.ResetPort{Reset: reset})
	return errors.Join(
		m.addEvents(),
		m.ports.Add(arch.PortSerial, serial.Ports, m.uart),
		m.ports.Add(arch.PortRTC, rtc.Ports, rtc.New(time.Now)),
		m.ports.Add(arch.PortACPI, acpi.PM1Size, m.pm1),
		m.addPMTimer(),
		m.addPanicPort(),
		m.ports.Add(arch.PortPCI, pci.PortCount, m.configPorts),
		m.ports.Add(arch.PortKeyboard, 1, power.Keyboard{Reset: reset}),
	)
}

// addPMTimer makes ACPI's power management timer, where there is to be one. A kernel that has a TSC to go by does without, and
// checks its rate for milliseconds and a hundred exits before that; Windows wants it.
func (m *Machine) addPMTimer() error {
	if !m.pmTimer {
		return nil
	}
	return m.ports.Add(arch.PortTimer, acpi.TimerSize, power.NewTimer(time.Now))
}

// lateInput is an input that is made after the writer that names it.
type lateInput struct{ console.Input }

// setSCI sets the level of the ACPI interrupt.
func (m *Machine) setSCI(high bool) {
	if err := m.vm.IRQLine(arch.IRQACPI, high); err != nil {
		m.fail(err)
	}
}

// slept follows the guest's going to sleep: S5 is the only state there is.
func (m *Machine) slept(sleepType int) {
	if sleepType == acpi.SoftOff {
		m.end(protocol.PoweredOff, "")
	}
}

// Memory is the guest's memory, for devices.
func (m *Machine) Memory() *memory.Memory { return m.mem }

// MSIRouter makes interrupt vectors for devices.
func (m *Machine) MSIRouter() pci.MSIRouter { return m.routes }

// Notifier makes doorbells for devices.
func (m *Machine) Notifier() pci.Notifier { return notifier{m.vm} }

// AddDevice plugs fn into the next free slot of the bus. The Machine owns it
// from then on and, where it has the methods, pauses, resumes, counts and
// closes it.
func (m *Machine) AddDevice(name string, fn pci.Function) error {
	if err := m.bus.Add(m.nextDevice(), fn); err != nil {
		return fmt.Errorf("add %s: %w", name, err)
	}
	m.devices = append(m.devices, &plugged{name: name, fn: fn})
	return nil
}

// nextDevice is the number of the next device on bus 0, where there is none yet that goes
// to a slot.
func (m *Machine) nextDevice() int {
	n := 1
	for _, d := range m.devices {
		if d.slot == 0 {
			n++
		}
	}
	return n
}

// Load puts kernel, initramfs and tables into memory and sets the first vCPU
// to the kernel's entry. Errors from the kernel's side wrap those of package
// boot.
func (m *Machine) Load(l boot.Load) error {
	if err := m.bus.Assign(); err != nil {
		return err
	}
	nodes, err := m.nodes()
	if err != nil {
		return err
	}
	rsdp, err := acpi.Write(m.mem, acpi.Machine{
		CPUs: m.c.CPU.Topology.APICIDs(), Present: m.c.VCPUs, Pluggable: m.cpus != nil,
		MMIO32: acpi.Window{Base: arch.MMIO32Base, Size: arch.MMIO32Size},
		MMIO64: acpi.Window(m.mmio64),
		ECAM:   acpi.Window{Base: arch.ECAMBase, Size: m.bus.ECAMSize()}, Hotplug: m.bus.Buses() > 1, PCILines: m.vfio != nil, PMTimer: m.pmTimer,
		Nodes: nodes,
	}, arch.ACPITables, arch.ACPISize)
	if err != nil {
		return err
	}
	if err := smbios.Write(m.mem, smbios.System{UUID: m.c.UUID, SerialNumber: m.c.Board.SerialNumber}, arch.SMBIOSTables); err != nil {
		return err
	}
	if err := m.writeGenerationID(); err != nil {
		return err
	}
	l.RSDP, l.Map = rsdp, memoryMap(m.mem, m.bus.ECAMSize())
	l.Params, l.CmdlineAt = arch.BootParams, arch.Cmdline
	entry, err := l.Into(m.mem)
	if err != nil {
		return err
	}
	if err := arch.WriteBIOSData(m.mem); err != nil {
		return err
	}
	if entry.ECAM {
		m.configPorts.Hide()
	}
	if entry.Mode == boot.RealMode {
		return m.enterReal(entry, l.Map)
	}
	return m.enter(entry)
}

// enter sets the first vCPU to the kernel's entry.
func (m *Machine) enter(e boot.Entry) error {
	cpu := m.runners[0].cpu
	s, err := cpu.Sregs()
	if err != nil {
		return err
	}
	switch e.Mode {
	case boot.LongMode:
		arch.LongMode(&s)
		if err := arch.WritePageTables(m.mem); err != nil {
			return err
		}
	case boot.ProtectedMode:
		arch.ProtectedMode(&s)
	}
	if err := arch.WriteGDT(m.mem, &s); err != nil {
		return err
	}
	if err := cpu.SetSregs(&s); err != nil {
		return err
	}
	r := arch.Registers(e.RIP)
	r.RSI, r.RAX, r.RBX = e.RSI, e.RAX, e.RBX
	return cpu.SetRegs(&r)
}

// memoryMap is what the kernel is told of its address space.
func memoryMap(mem *memory.Memory, ecam uint64) []boot.Range {
	low := mem.Regions()[0].Size
	out := []boot.Range{
		{Base: 0, Size: arch.LowReserved, Type: boot.RAM},
		{Base: arch.LowReserved, Size: arch.HighMemory - arch.LowReserved, Type: boot.Reserved},
		{Base: arch.HighMemory, Size: low - arch.HighMemory, Type: boot.RAM},
		{Base: arch.ECAMBase, Size: ecam, Type: boot.Reserved},
	}
	for _, r := range mem.Regions()[1:] {
		out = append(out, boot.Range{Base: r.GPA, Size: r.Size, Type: boot.RAM})
	}
	return out
}

// Close frees everything. The machine has ended, or was never started.
func (m *Machine) Close() error {
	m.watcher.Wait() // it looks at vCPUs, and kicks them
	m.homes.leave(m.runners)
	m.lifeMu.Lock()
	defer m.lifeMu.Unlock()
	var errs []error
	for _, d := range m.devices {
		errs = append(errs, d.close())
	}
	errs = append(errs, m.closeSlots(), m.buffers.Close())
	if m.vfio != nil {
		errs = append(errs, m.vfio.Close())
	}
	for _, r := range m.runners {
		if r.stats != nil {
			errs = append(errs, r.stats.Close())
		}
		errs = append(errs, r.cpu.Close())
	}
	m.mu.Lock()
	m.devices = nil
	m.mu.Unlock()
	m.disks, m.nics, m.runners = nil, nil, nil
	if m.look != nil {
		m.look.Close() // which the end of the guest has done, where there was one
	}
	if m.serial != nil {
		errs = append(errs, m.serial.Close())
	}
	if m.vm != nil {
		errs = append(errs, m.vm.Close())
	}
	if m.mem != nil {
		errs = append(errs, m.mem.Close())
	}
	return errors.Join(append(errs, m.views.Close(), m.c.KVM.Close())...)
}
