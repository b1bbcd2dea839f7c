package main

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
	"net"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/drivers/vfio"
	"github.com/ashlar-hv/ashlar/vmm/jail"
	"github.com/ashlar-hv/ashlar/vmm/memory"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/seqpacket"
)

// vmmProgram is the one in the image.
const vmmProgram = "/bin/ashlar-vmm"

// jailUID is nobody's else.
const jailUID = 64000

// startAshlar does what core does: namespaces, every descriptor, jail.
func startAshlar(b *bench, sp spec) (*guest, error) {
	g := &guest{began: time.Now()}
	mine, theirs, err := listen(b)
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	result, err := os.CreateTemp(b.scratch, "result-")
	if err != nil {
		return nil, err
	}
	os.Remove(result.Name())
	g.close = append(g.close, func() { result.Close() })
	g.said = func() string {
		text := make([]byte, 4096)
		n, _ := result.ReadAt(text, 0) // as far as there is any
		return string(text[:n])
	}
	pspec, files, err := b.protocolSpec(sp)
	if err != nil {
		return nil, err
	}
	argv, extra := sp.watch.wrap(b.payload, vmmProgram)
	g.cmd = exec.Command(argv[0], argv[1:]...)
	g.cmd.Env = []string{}
	g.cmd.Dir = "/"
	g.cmd.Stderr = os.Stderr
	g.cmd.ExtraFiles = append([]*os.File{theirs, result}, extra...)
	g.cmd.SysProcAttr = jail.Attributes(jailUID, jailUID)
	if err := g.cmd.Start(); err != nil {
		closeAll(files)
		return nil, err
	}
	// As init and core let it: in its user namespace it cannot do so itself. The jail lowers both.
	for resource, most := range map[int]uint64{unix.RLIMIT_NOFILE: 1 << 20, unix.RLIMIT_MEMLOCK: unix.RLIM_INFINITY} {
		if err := unix.Prlimit(g.cmd.Process.Pid, resource, &unix.Rlimit{Cur: most, Max: most}, nil); err != nil {
			closeAll(files)
			g.end()
			return nil, fmt.Errorf("set limits of the VMM: %w", err)
		}
	}
	if sp.watch != nil {
		// It never answers: it waits at its first KVM_RUN.
		go func() {
			defer closeAll(files)
			if c, err := seqpacket.Dial(mine); err == nil {
				defer c.Close()
				_, _, _ = call(c, protocol.Request{Method: protocol.Configure, Spec: pspec}, files...)
			}
			os.Remove(mine)
		}()
		return g, nil
	}
	defer closeAll(files)
	if err := g.configure(mine, pspec, files, sp.limit()); err != nil {
		g.end()
		return nil, err
	}
	return g, nil
}

// listen makes the VMM's socket.
func listen(b *bench) (path string, f *os.File, err error) {
	path = b.scratchFile(fmt.Sprintf("vmm-%d.sock", time.Now().UnixNano()))
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return "", nil, err
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	f, err = l.File()
	return path, f, err
}

// configure starts the guest, and gets its console.
func (g *guest) configure(path string, pspec *protocol.Spec, files []*os.File, limit time.Duration) error {
	c, err := seqpacket.Dial(path)
	if err != nil {
		return err
	}
	os.Remove(path)
	g.close = append(g.close, func() { c.Close() })
	late := time.AfterFunc(limit, func() { c.Close() })
	defer late.Stop()
	if _, _, err := call(c, protocol.Request{Method: protocol.Configure, Spec: pspec}, files...); err != nil {
		return err
	}
	_, got, err := call(c, protocol.Request{Method: protocol.Console})
	if err != nil {
		return err
	}
	if len(got) != 1 {
		return fmt.Errorf("%s: %d descriptors, want 1", protocol.Console, len(got))
	}
	defer got[0].Close()
	conn, err := net.FileConn(got[0])
	if err != nil {
		return err
	}
	g.close = append(g.close, func() { conn.Close() })
	g.console = newConsole(conn)
	g.exits = func() (exits, error) {
		r, _, err := call(c, protocol.Request{Method: protocol.CountersMethod})
		if err != nil {
			return nil, err
		}
		if r.Counters == nil || len(r.Counters.VCPUs[exitKinds[0]]) == 0 {
			return nil, errors.New("the VMM does not count exits")
		}
		sum := make(exits)
		for _, name := range exitKinds {
			for _, n := range r.Counters.VCPUs[name] {
				sum[name] += n
			}
		}
		return sum, nil
	}
	return nil
}

// call makes a request and waits for its answer.
func call(c *seqpacket.Conn, r protocol.Request, files ...*os.File) (protocol.Response, []*os.File, error) {
	r.ID = 1
	var resp protocol.Response
	if err := c.Send(r, files...); err != nil {
		return resp, nil, fmt.Errorf("%s: %w", r.Method, err)
	}
	got, err := c.Recv(&resp)
	if errors.Is(err, io.EOF) {
		err = errors.New("the VMM ended")
	}
	if err == nil && resp.Error != nil {
		err = resp.Error
	}
	if err != nil {
		return resp, got, fmt.Errorf("%s: %w", r.Method, err)
	}
	return resp, got, nil
}

// protocolSpec opens everything that a guest uses. The files are to be closed.
func (b *bench) protocolSpec(sp spec) (*protocol.Spec, []*os.File, error) {
	size := uint64(sp.memoryMiB) << 20
	mem, err := guestMemory(size, sp.pages)
	if err != nil {
		return nil, nil, err
	}
	log, err := os.CreateTemp(b.scratch, "log-")
	if err != nil {
		mem.Close()
		return nil, nil, err
	}
	os.Remove(log.Name())
	files := []*os.File{mem, log}
	ro, err := openAll(os.O_RDONLY, b.payloadFile("kernel"), b.payloadFile(sp.initramfs), "/dev/urandom")
	if err != nil {
		closeAll(files)
		return nil, nil, err
	}
	files = append(files, ro...)
	rw := []string{"/dev/kvm"}
	if sp.nic != nil {
		rw = append(rw, "/dev/vhost-net")
	}
	devices, err := openAll(os.O_RDWR, rw...)
	if err != nil {
		closeAll(files)
		return nil, nil, err
	}
	files = append(files, devices...)
	initramfs := protocol.File(3)
	p := &protocol.Spec{
		Name: "bench", UUID: "6f1c2d7e-0000-4000-8000-000000000001", VCPUs: sp.cpus, MemoryBytes: size,
		Memory: 0, Log: 1, Boot: protocol.Boot{Kernel: 2, Initramfs: &initramfs, Cmdline: cmdline + sp.cmdline},
		Entropy: 4, KVM: 5, Jail: protocol.Jail{UID: jailUID, GID: jailUID},
		// As on hardware, whose TSC is invariant, and as QEMU has it here, too.
		CPU: &protocol.CPU{TSCDeadline: true},
	}
	if sp.bare {
		p.Board = &protocol.Board{Bare: true}
	}
	if b.repeatable {
		// QEMU 10.0's -icount, when the time of a slice is over, delivers an interrupt again that
		// VMRUN has just injected (EVENTINJ), also to a guest that takes none then, unless an exit
		// came between. With no PV EOI each interrupt's first act is an exit.
		p.CPU.NoPVEOI = true
	}
	if sp.nic != nil {
		tap, err := sp.nic.attach()
		if err != nil {
			closeAll(files)
			return nil, nil, err
		}
		vhost := protocol.File(6)
		files = append(files, tap)
		p.NICs = []protocol.NIC{{Pairs: []protocol.Pair{{Tap: 7, Vhost: &vhost}}, MAC: guestMAC}}
	}
	if sp.disk != "" {
		d, err := os.OpenFile(diskFile(b.scratch, sp.disk), os.O_RDWR|unix.O_DIRECT, 0)
		if err != nil {
			closeAll(files)
			return nil, nil, err
		}
		p.Disks = []protocol.Disk{{File: protocol.File(len(files))}}
		files = append(files, d)
	}
	if sp.pages != "" {
		p.Backing = &protocol.Backing{Pages: sp.pages}
	}
	if sp.device != "" {
		more, err := openAll(os.O_RDWR, vfio.IOMMUFD, vfio.Node(sp.device))
		if err != nil {
			closeAll(files)
			return nil, nil, fmt.Errorf("open %s for a guest: %w", sp.device, err)
		}
		iommufd, device := protocol.File(len(files)), protocol.File(len(files)+1)
		p.VFIO = &protocol.VFIO{IOMMUFD: &iommufd, Devices: []protocol.VFIODevice{{Address: sp.device, File: &device}}}
		files = append(files, more...)
	}
	return p, files, nil
}

// guestMemory makes the memory of a guest, as core does.
func guestMemory(size uint64, pages protocol.Pages) (*os.File, error) {
	page := pages.PoolSize()
	if page == 0 {
		return memory.Create("ashlar-guest", size)
	}
	fd, err := unix.MemfdCreate("ashlar-guest", unix.MFD_CLOEXEC|unix.MFD_HUGETLB|bits.TrailingZeros64(page)<<unix.MFD_HUGE_SHIFT)
	if err != nil {
		return nil, fmt.Errorf("make guest memory on pages of %s: %w", pages, err)
	}
	f := os.NewFile(uintptr(fd), "ashlar-guest")
	if err := f.Truncate(int64(size)); err != nil {
		f.Close()
		return nil, fmt.Errorf("make guest memory on pages of %s: %w", pages, err)
	}
	return f, nil
}
