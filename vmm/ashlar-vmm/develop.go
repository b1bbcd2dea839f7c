package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/machine"
	"github.com/ashlar-hv/ashlar/vmm/memory"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// detach is Ctrl-].
const detach = 0x1d

// develop is ashlar-vmm run: a guest from files, without core and jail.
func develop(args []string) error {
	var files []*os.File
	add := func(f *os.File, err error) (protocol.File, error) {
		files = append(files, f)
		return protocol.File(len(files) - 1), err
	}
	spec, err := parse(args, add)
	if err != nil {
		return err
	}
	runtime.GOMAXPROCS(spec.VCPUs + 2)
	g, perr := machine.FromSpec(spec, files)
	if perr == nil {
		if perr = g.Load(); perr != nil {
			g.Close()
		}
	}
	if perr != nil {
		return fmt.Errorf("%s: %w", perr.Field, perr)
	}
	restore := raw(os.Stdin)
	defer restore()
	viewer, err := g.Hub.Attach()
	if err != nil {
		return err
	}
	shown := make(chan struct{})
	go func() { _, _ = io.Copy(os.Stdout, viewer); close(shown) }()
	go typeInto(viewer, g.Stop)
	terminate := make(chan os.Signal, 1)
	signal.Notify(terminate, unix.SIGTERM)
	go func() {
		for range terminate {
			if err := g.PowerButton(); err != nil {
				fmt.Fprintln(os.Stderr, "ashlar-vmm:", err)
			}
		}
	}()
	if err := g.Start(); err != nil {
		return err
	}
	<-g.Done()
	res := g.Result()
	err = g.Close()
	<-shown
	restore()
	fmt.Fprintf(os.Stderr, "ashlar-vmm: guest ended: %s %s\n", res.Reason, res.Message)
	if res.Reason == protocol.Failed {
		err = errors.Join(err, errors.New(res.Message))
	}
	return err
}

// parse turns arguments into a Spec, and opens what it names with add.
func parse(args []string, add func(*os.File, error) (protocol.File, error)) (*protocol.Spec, error) {
	fs := flag.NewFlagSet("ashlar-vmm run", flag.ContinueOnError)
	kernel, initramfs := fs.String("kernel", "", "bzImage, ELF file with a PVH entry, or multiboot 1 image"), fs.String("initramfs", "", "cpio archive")
	s := &protocol.Spec{Name: "run"}
	fs.StringVar(&s.Boot.Cmdline, "cmdline", "console=ttyS0", "for the kernel")
	fs.IntVar(&s.VCPUs, "cpus", 1, "1 to 128")
	fs.IntVar(&s.MaxVCPUs, "max-cpus", 0, "that there may come to be; 0: as many as --cpus")
	fs.Func("cpu", "model and options", func(v string) (err error) {
		s.CPU, err = parseCPU(v)
		return err
	})
	boardFlags(fs, s)
	size := fs.String("memory", "256MiB", "such as 512MiB or 4GiB,transparent,populate")
	var errs []error
	open := func(f *os.File, err error) protocol.File {
		n, err := add(f, err)
		errs = append(errs, err)
		return n
	}
	fs.Func("disk", "raw image; FILE,ro for one that is only read", func(v string) error {
		name, ro := strings.CutSuffix(v, ",ro")
		flags := os.O_RDWR
		if ro {
			flags = os.O_RDONLY
		}
		f, err := os.OpenFile(name, flags, 0)
		s.Disks = append(s.Disks, protocol.Disk{File: open(f, err), ReadOnly: ro})
		return err
	})
	fs.Func("tap", "network device on this tap interface", func(v string) error {
		f, err := openTap(v)
		s.NICs = append(s.NICs, protocol.NIC{Pairs: []protocol.Pair{{Tap: open(f, err)}}, MAC: fmt.Sprintf("52:54:00:12:34:%02x", len(s.NICs)+1)})
		return err
	})
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 || *kernel == "" {
		return nil, errors.New("run: want --kernel and options only: see ashlar-vmm --help")
	}
	var err error
	if s.MemoryBytes, s.Backing, err = parseMemory(*size); err != nil {
		return nil, err
	}
	s.Boot.Kernel = open(os.Open(*kernel))
	if *initramfs != "" {
		n := open(os.Open(*initramfs))
		s.Boot.Initramfs = &n
	}
	s.Memory = open(memory.Create("guest", s.MemoryBytes))
	s.KVM = open(os.OpenFile("/dev/kvm", os.O_RDWR, 0))
	s.Entropy = open(os.Open("/dev/urandom"))
	s.Log = open(openLog())
	return s, errors.Join(errs...)
}

// openLog makes a log without a name, which is gone with the process.
func openLog() (*os.File, error) {
	f, err := os.CreateTemp("", "ashlar-vmm-*.log")
	if err == nil {
		err = os.Remove(f.Name())
	}
	return f, err
}

// openTap attaches to a tap interface with the flags that the Spec asks for.
func openTap(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("attach to tap %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// typeInto types what comes from the terminal, and calls end at Ctrl-].
func typeInto(w io.Writer, end func()) {
	b := make([]byte, 256)
	for {
		n, err := os.Stdin.Read(b)
		for i := range b[:n] {
			if b[i] == detach {
				end()
				return
			}
		}
		if _, werr := w.Write(b[:n]); err != nil || werr != nil {
			return
		}
	}
}

// raw makes the terminal f pass every key on, until the function it returns
// is called. What is no terminal is left alone.
func raw(f *os.File) func() {
	fd := int(f.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return func() {}
	}
	t := *old
	t.Iflag &^= unix.ICRNL | unix.IXON | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.BRKINT
	t.Lflag &^= unix.ECHO | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &t); err != nil {
		return func() {}
	}
	return func() {
		// The terminal was set before; a failure now leaves it raw, no more.
		_ = unix.IoctlSetTermios(fd, unix.TCSETS, old)
	}
}
