// Package coretest is a core for tests: it speaks mgmt/core/hostcall over a real
// socket and keeps real files, but its guests are only noted down. Tests say what they
// do (Exit, Print), and what core does (Stop, Start, Reboot, Refuse).
package coretest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/seqpacket"
)

// A Core is a core with its files below Dir.
type Core struct {
	Dir string

	mu       sync.Mutex
	host     hostcall.HostStatus
	images   map[string]*hostcall.ImageStatus
	guests   map[string]*guest
	calls    map[hostcall.Method]int
	refuse   map[hostcall.Method]*hostcall.Error
	hold     map[hostcall.Method]chan struct{}
	cut      map[hostcall.Method]bool
	stubborn bool
	listener *net.UnixListener
	conns    map[*conn]bool
	wg       sync.WaitGroup // of connections
	viewing  sync.WaitGroup // of consoles and ports
	ports    map[uint32]func(*net.UnixConn)
	serials  map[string]func(*net.UnixConn)
	pci      []hostcall.PCIDevice
	pools    []hostcall.HugepagePool
	links    []hostcall.Link
	vfs      []hostcall.VFs // that were asked for
}

// A conn is one connection of control.
type conn struct {
	c          *seqpacket.Conn
	subscribed bool
}

// A guest is what a Core knows about one.
type guest struct {
	status  hostcall.GuestStatus
	disks   []hostcall.Disk
	numbers []int // of disks
	devices []protocol.PluggedDevice
	spec    hostcall.Guest
	output  []byte
	viewers []*os.File
	typed   []byte
	stopped chan struct{}
	nmis    uint64
	balloon protocol.Balloon
	vcpus   protocol.VCPUs
	memory  protocol.Memory
	keeps   int             // processors
	serial  map[string]bool // ports that have a connection
}

// New makes a Core that does not serve yet.
func New(dir string) *Core {
	return &Core{
		Dir: dir,
		host: hostcall.HostStatus{
			Hostname: "lab", Version: "test", KernelVersion: "6.12", Uptime: time.Minute, BootToCore: time.Second,
			CPUModel: "test", CPUs: 2, MemoryTotal: 8 << 30, MemoryAvailable: 4 << 30, PoolTotal: 1 << 40, PoolFree: 1 << 39,
			KVM: true, Networks: []string{"default"}, Addresses: []string{"192.0.2.1/24"},
		},
		images: map[string]*hostcall.ImageStatus{}, guests: map[string]*guest{},
		calls: map[hostcall.Method]int{}, refuse: map[hostcall.Method]*hostcall.Error{},
		hold: map[hostcall.Method]chan struct{}{}, cut: map[hostcall.Method]bool{}, conns: map[*conn]bool{},
	}
}

// Socket is where it serves.
func (c *Core) Socket() string { return filepath.Join(c.Dir, "core.sock") }

// Start serves.
func (c *Core) Start() error {
	if err := os.RemoveAll(c.Socket()); err != nil {
		return err
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: c.Socket(), Net: "unixpacket"})
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.listener = l
	c.mu.Unlock()
	c.wg.Go(func() {
		for {
			u, err := l.AcceptUnix()
			if err != nil {
				return
			}
			c.wg.Go(func() { c.serve(seqpacket.New(u)) })
		}
	})
	return nil
}

// Stop ends core, not its guests: what it would answer gets lost.
func (c *Core) Stop() {
	c.mu.Lock()
	if c.listener != nil {
		_ = c.listener.Close()
		c.listener = nil
	}
	for k := range c.conns {
		_ = k.c.Close()
	}
	for m, ch := range c.hold {
		close(ch)
		delete(c.hold, m)
	}
	c.mu.Unlock()
	c.wg.Wait()
}

// Close ends core and guests.
func (c *Core) Close() {
	c.Stop()
	c.Reboot()
	c.viewing.Wait()
}

// Reboot forgets all that runs.
func (c *Core) Reboot() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, g := range c.guests {
		g.end(hostcall.GuestStatus{ID: id, State: hostcall.Stopped})
	}
}

// Refuse makes method fail with e, nil no longer.
func (c *Core) Refuse(method hostcall.Method, e *hostcall.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refuse[method] = e
}

// Hold makes calls of method wait, after they were carried out, until release.
func (c *Core) Hold(method hostcall.Method) (release func()) {
	ch := make(chan struct{})
	c.mu.Lock()
	c.hold[method] = ch
	c.mu.Unlock()
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.hold[method] == ch {
			close(ch)
			delete(c.hold, method)
		}
	}
}

// Cut makes the connection end instead of the next answer to method.
func (c *Core) Cut(method hostcall.Method) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut[method] = true
}

// Stubborn makes guests ignore the power button.
func (c *Core) Stubborn(yes bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stubborn = yes
}

// Calls is how often method was called.
func (c *Core) Calls(method hostcall.Method) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls[method]
}

// Has reports whether there is a guest and an image with that ID.
func (c *Core) Has(id string) (guest, image bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.guests[id] != nil, c.images[id] != nil
}

// Count is how many guests and images there are.
func (c *Core) Count() (guests, images int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.guests), len(c.images)
}

// Spec is what the guest was last started with, and its disks.
func (c *Core) Spec(id string) (hostcall.Guest, []hostcall.Disk) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g := c.guests[id]; g != nil {
		return g.spec, g.disks
	}
	return hostcall.Guest{}, nil
}

// ImageFile is the file of an image.
func (c *Core) ImageFile(id string) string { return filepath.Join(c.Dir, "image-"+id) }

// serve serves one connection; each call on its own.
func (c *Core) serve(sc *seqpacket.Conn) {
	k := &conn{c: sc}
	c.mu.Lock()
	if c.listener == nil {
		c.mu.Unlock()
		_ = sc.Close()
		return
	}
	c.conns[k] = true
	c.mu.Unlock()
	var wg sync.WaitGroup
	for {
		var call hostcall.Call
		files, err := sc.Recv(&call)
		seqpacket.CloseAll(files)
		if err != nil {
			break
		}
		wg.Go(func() { c.answer(k, call) })
	}
	_ = sc.Close()
	c.mu.Lock()
	delete(c.conns, k)
	c.mu.Unlock()
	wg.Wait()
}

func (c *Core) answer(k *conn, call hostcall.Call) {
	c.mu.Lock()
	c.calls[call.Method]++
	var (
		msg hostcall.Message
		f   *os.File
		err error
	)
	if e := c.refuse[call.Method]; e != nil {
		err = e
	} else {
		msg, f, err = c.do(k, call)
	}
	hold, cut := c.hold[call.Method], c.cut[call.Method]
	delete(c.cut, call.Method)
	c.mu.Unlock()
	if f != nil {
		defer f.Close()
	}
	if hold != nil {
		<-hold
	}
	if cut {
		_ = k.c.Close()
		return
	}
	msg.Seq = call.Seq
	var he *hostcall.Error
	if errors.As(err, &he) {
		msg = hostcall.Message{Seq: call.Seq, Error: he}
	} else if err != nil {
		msg = hostcall.Message{Seq: call.Seq, Error: &hostcall.Error{Code: hostcall.Internal, Message: err.Error()}}
	}
	if f != nil && err == nil {
		_ = k.c.Send(msg, f)
		return
	}
	_ = k.c.Send(msg)
}

func refusal(code hostcall.Code, format string, args ...any) error {
	return &hostcall.Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// do carries out a call. mu is held.
func (c *Core) do(k *conn, call hostcall.Call) (hostcall.Message, *os.File, error) {
	var msg hostcall.Message
	if call.ID != "" && !hostcall.ValidID(call.ID) {
		return msg, nil, refusal(hostcall.InvalidArgument, "id %q", call.ID)
	}
	switch call.Method {
	case hostcall.Host:
		host := c.host
		msg.Host = &host
	case hostcall.HostTopology:
		msg.Topology = Topology()
	case hostcall.HostCheck:
		msg.Check = Check()
	case hostcall.PCIList:
		msg.PCI = c.pciPage(call.After)
	case hostcall.LinkList:
		msg.Links = c.linkPage(call.After)
	case hostcall.VFsSet:
		return msg, nil, c.setVFs(*call.VFs)
	case hostcall.HugepagesList:
		msg.Hugepages = c.pools
	case hostcall.HugepagesSet:
		pools, err := c.hugepages(call.HugepageSize)
		msg.Hugepages = pools
		return msg, nil, err
	case hostcall.Subscribe:
		k.subscribed = true
	case hostcall.ImageList:
		for _, im := range c.images {
			msg.Images = append(msg.Images, *im)
		}
	case hostcall.GuestCounters:
		g := c.guests[call.ID]
		if g == nil || g.stopped == nil {
			return msg, nil, refusal(hostcall.FailedPrecondition, "does not run")
		}
		msg.Counters = &hostcall.Counters{
			Started: g.status.Started, Read: g.status.Started.Add(time.Second),
			Devices: map[string]uint64{"disk0.reads": 7, "disk0.read_bytes": 1 << 63},
			VCPUs:   map[string][]uint64{"exits": {1, 2}, "nmi_injections": {g.nmis, 0}},
		}
	case hostcall.GuestVCPUs, hostcall.GuestSetVCPUs:
		g := c.guests[call.ID]
		if g == nil || g.stopped == nil {
			return msg, nil, refusal(hostcall.FailedPrecondition, "does not run")
		}
		if call.Method == hostcall.GuestSetVCPUs {
			c.setVCPUs(g, call.VCPUs)
		}
		v := g.vcpus
		msg.VCPUs = &v
	case hostcall.GuestPlacement:
		g := c.guests[call.ID]
		if g == nil || g.stopped == nil {
			return msg, nil, refusal(hostcall.FailedPrecondition, "does not run")
		}
		msg.Placed = Placed()
	case hostcall.GuestBalloon:
		g := c.guests[call.ID]
		if g == nil || g.stopped == nil {
			return msg, nil, refusal(hostcall.FailedPrecondition, "does not run")
		}
		b := g.balloon
		msg.Balloon = &b
	case hostcall.GuestMemory:
		g := c.guests[call.ID]
		if g == nil || g.stopped == nil {
			return msg, nil, refusal(hostcall.FailedPrecondition, "does not run")
		}
		mem := g.memory
		msg.Memory = &mem
	case hostcall.GuestDevices:
		g := c.guests[call.ID]
		if g == nil || g.stopped == nil {
			return msg, nil, refusal(hostcall.FailedPrecondition, "does not run")
		}
		msg.Devices = slices.Clone(g.devices)
	case hostcall.GuestHistograms:
		if g := c.guests[call.ID]; g == nil || g.stopped == nil {
			return msg, nil, refusal(hostcall.FailedPrecondition, "does not run")
		}
		msg.Histograms = protocol.Histograms{"disk0.read": {0, 0, 3, 4}}
	case hostcall.GuestList:
		for _, g := range c.guests {
			msg.Guests = append(msg.Guests, g.status)
		}
	default:
		if strings.HasPrefix(string(call.Method), "image-") {
			f, err := c.doImage(call)
			return msg, f, err
		}
		f, err := c.doGuest(call)
		return msg, f, err
	}
	return msg, nil, nil
}

func (c *Core) doImage(call hostcall.Call) (*os.File, error) {
	im := c.images[call.ID]
	path := c.ImageFile(call.ID)
	switch {
	case call.Method == hostcall.ImageCreate && im != nil:
		return nil, refusal(hostcall.AlreadyExists, "image exists")
	case call.Method == hostcall.ImageCreate:
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return nil, err
		}
		c.images[call.ID] = &hostcall.ImageStatus{ID: call.ID, Size: call.Size}
		return f, f.Truncate(call.Size)
	case im == nil:
		return nil, refusal(hostcall.NotFound, "no such image")
	case call.Method == hostcall.ImageOpen && im.Sealed:
		return os.Open(path)
	case call.Method == hostcall.ImageOpen:
		return os.OpenFile(path, os.O_RDWR, 0)
	case call.Method == hostcall.ImageSeal:
		im.Sealed = true
		return nil, nil
	case call.Method == hostcall.ImageDelete:
		delete(c.images, call.ID)
		return nil, os.Remove(path)
	}
	return nil, refusal(hostcall.InvalidArgument, "method %q", call.Method)
}

func (c *Core) doGuest(call hostcall.Call) (*os.File, error) {
	g := c.guests[call.ID]
	if call.Method == hostcall.GuestCreate {
		return nil, c.createGuest(call)
	}
	if call.Method == hostcall.GuestCheckDevices {
		return nil, c.checkDevices(call.ID, call.HostDevices, true)
	}
	if g == nil {
		return nil, refusal(hostcall.NotFound, "no such guest")
	}
	paused := g.status.State == hostcall.Paused
	runs := paused || g.status.State == hostcall.Running
	switch call.Method {
	case hostcall.GuestStart:
		if runs {
			return nil, refusal(hostcall.FailedPrecondition, "runs already")
		}
		g.spec, g.output, g.typed, g.stopped, g.nmis = *call.Guest, nil, nil, make(chan struct{}), 0
		g.balloon = protocol.Balloon{TargetBytes: call.Guest.BalloonBytes}
		g.vcpus = protocol.VCPUs{Present: call.Guest.VCPUs, Target: call.Guest.VCPUs}
		g.memory = protocol.Memory{}
		if p := call.Guest.Pluggable; p != nil {
			g.memory.RequestedBytes = p.Bytes
		}
		held, err := c.holdDevices(call.ID, call.Guest.Devices)
		if err == nil {
			err = g.plugAll(call.Guest)
		}
		if err != nil {
			return nil, err
		}
		st := hostcall.GuestStatus{ID: call.ID, State: hostcall.Running, PID: 4711, Started: time.Now(), Addresses: make([]string, len(call.Guest.NICs)), VCPUs: call.Guest.VCPUs, Devices: held, NICs: nicNumbers(call.Guest.NICs)}
		if call.Guest.Vsock {
			st.CID = CID
		}
		c.change(g, st)
	case hostcall.GuestPowerButton:
		if !runs || paused {
			return nil, refusal(hostcall.FailedPrecondition, "does not run")
		}
		if !c.stubborn {
			c.exit(g, string(protocol.PoweredOff), "")
		}
	case hostcall.GuestKill:
		if runs {
			c.exit(g, string(protocol.Killed), "")
		}
	case hostcall.GuestDelete:
		if runs {
			return nil, refusal(hostcall.FailedPrecondition, "runs")
		}
		delete(c.guests, call.ID)
	case hostcall.GuestConsole:
		if !runs {
			return nil, refusal(hostcall.FailedPrecondition, "does not run")
		}
		return c.view(g)
	case hostcall.GuestResizeDisk:
		i := slices.Index(g.numbers, call.Disk)
		if call.Size < g.disks[i].Size {
			return nil, refusal(hostcall.InvalidArgument, "smaller")
		}
		g.disks = slices.Clone(g.disks)
		g.disks[i].Size = call.Size
	case hostcall.GuestSetDiskLimits:
		if !runs {
			return nil, refusal(hostcall.FailedPrecondition, "does not run")
		}
		g.spec.DiskLimits = slices.Clone(g.spec.DiskLimits)
		g.spec.DiskLimits[slices.Index(g.spec.DiskNumbers, call.Disk)] = call.Limits
	case hostcall.GuestSetNICLimits, hostcall.GuestSetNICLink:
		if !runs {
			return nil, refusal(hostcall.FailedPrecondition, "does not run")
		}
		g.spec.NICs = slices.Clone(g.spec.NICs)
		n := &g.spec.NICs[slices.IndexFunc(g.spec.NICs, func(n hostcall.NIC) bool { return n.Number == call.NIC })]
		if call.Method == hostcall.GuestSetNICLink {
			n.LinkDown = call.LinkDown
			break
		}
		n.Limits = call.NICLimits
	case hostcall.GuestPause, hostcall.GuestResume, hostcall.GuestReset, hostcall.GuestNMI:
		if !runs {
			return nil, refusal(hostcall.FailedPrecondition, "does not run")
		}
		return nil, c.turn(g, call.Method)
	case hostcall.GuestSetBalloon:
		if !runs {
			return nil, refusal(hostcall.FailedPrecondition, "does not run")
		}
		g.balloon.TargetBytes = uint64(call.Size)
	case hostcall.GuestConnect:
		if !runs || paused {
			return nil, refusal(hostcall.FailedPrecondition, "does not run")
		}
		if call.SerialPort != "" {
			return c.connectSerial(g, call.SerialPort)
		}
		return c.connect(g, call.Port)
	case hostcall.GuestSetMemory:
		switch {
		case !runs:
			return nil, refusal(hostcall.FailedPrecondition, "does not run")
		case call.Size > MemoryLeft:
			return nil, refusal(hostcall.ResourceExhausted, "the host has not enough")
		}
		g.memory.RequestedBytes = uint64(call.Size)
	case hostcall.GuestAttachDisk, hostcall.GuestAttachNIC, hostcall.GuestAttachDevice, hostcall.GuestDetach, hostcall.GuestDrop:
		return nil, c.hotplug(g, call, runs)
	case hostcall.GuestLog:
		return c.log(call.ID, g)
	default:
		return nil, refusal(hostcall.InvalidArgument, "method %q", call.Method)
	}
	return nil, nil
}

func (c *Core) createGuest(call hostcall.Call) error {
	if c.guests[call.ID] != nil {
		return refusal(hostcall.AlreadyExists, "guest exists")
	}
	for i, d := range call.Disks {
		if d.Image != "" && (c.images[d.Image] == nil || !c.images[d.Image].Sealed) {
			return &hostcall.Error{Code: hostcall.NotFound, Field: fmt.Sprintf("disks[%d].image", i), Message: "no such image"}
		}
	}
	numbers := []int{}
	for i := range call.Disks {
		numbers = append(numbers, i)
	}
	c.guests[call.ID] = &guest{disks: slices.Clone(call.Disks), numbers: numbers, status: hostcall.GuestStatus{ID: call.ID, State: hostcall.Stopped}}
	return nil
}
