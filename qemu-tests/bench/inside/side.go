package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/ashlar-hv/ashlar/qemu-tests/bench/figure"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// A spec says what a guest is like, the same for all sides.
type spec struct {
	cpus      int
	memoryMiB int
	initramfs string // a file of the payload
	cmdline   string // added to the usual one
	disk      string // a file of the scratch folder, or the path of a device; "" for none
	nic       *nic   // nil for none
	// pages are the kind that the guest's memory is made of; this and device are for Ashlar's guests alone.
	pages protocol.Pages
	// device is the address of a PCI device that vfio-pci has, for the guest; "" for none.
	device string
	// bare guests have nothing but what this spec says, a serial port and a clock.
	bare bool
	// watch reports the first KVM_RUN; the guest is of no use then.
	watch *watch
	// crowd is how many guests are started together with this one.
	crowd int
}

// limit is how long a start may take: the guests of a crowd share the host's CPUs.
func (sp spec) limit() time.Duration { return startLimit * time.Duration(max(sp.crowd, 1)) }

// cmdline for all guests: nothing is printed but what init prints, and a panic.
const cmdline = "console=ttyS0 quiet loglevel=1 panic=-1 reboot=t "

// A side is one of those that are compared.
type side struct {
	name string
	// start starts a guest and returns when its VMM process runs.
	start func(*bench, spec) (*guest, error)
}

// The sides. plainMicrovm is the leanest QEMU: Debian's binary with microvm and
// KVM alone, a machine without PCI. It has no devices that the guest has drivers
// for; microvm is the machine with PCI. QEMU's memory is what it takes by itself: not
// shared, and of huge pages as far as there are some.
var (
	ashlar       = side{figure.Ours, startAshlar}
	plainMicrovm = side{"microvm", qemuSide{kind: microvmPlain}.start}
	microvm      = side{"microvm+pci", qemuSide{kind: microvmPCI}.start}
	q35          = side{"q35", qemuSide{kind: fullPC}.start}
)

// A guest is a VMM process and what it runs.
type guest struct {
	cmd     *exec.Cmd
	began   time.Time // just before the first thing done for the start
	console *console
	exits   func() (exits, error) // so far
	said    func() string         // what the VMM has to say about its end
	close   []func()
}

// why adds to an error what the VMM said, which may be the reason.
func (g *guest) why(err error) error {
	time.Sleep(100 * time.Millisecond) // a VMM that ends speaks last
	if text := strings.TrimSpace(g.said()); text != "" {
		return fmt.Errorf("%w; the VMM said: %s", err, text)
	}
	return err
}

// An output keeps what a process writes.
type output struct {
	mu sync.Mutex
	b  strings.Builder
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// end kills the VMM.
func (g *guest) end() {
	_ = g.cmd.Process.Kill()
	_ = g.cmd.Wait()
	for _, f := range g.close {
		f()
	}
}

func (b *bench) payloadFile(name string) string { return filepath.Join(b.payload, name) }
func (b *bench) scratchFile(name string) string { return filepath.Join(b.scratch, name) }

// diskFile is where the disk of a spec is, for somebody who sees the scratch folder as scratch.
func diskFile(scratch, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(scratch, name)
}

// openAll opens files; all are closed with an error.
func openAll(flags int, names ...string) ([]*os.File, error) {
	var files []*os.File
	for _, n := range names {
		f, err := os.OpenFile(n, flags, 0)
		if err != nil {
			closeAll(files)
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// startAndWait starts a guest and waits until its init runs; it is ended with an error.
func (b *bench) startAndWait(s side, sp spec) (*guest, time.Duration, error) {
	g, err := s.start(b, sp)
	if err != nil {
		return nil, 0, err
	}
	at, err := g.console.started(sp.limit())
	if err != nil {
		err = g.why(err)
		g.end()
		return nil, 0, fmt.Errorf("guest of %d CPUs and %d MiB: %w", sp.cpus, sp.memoryMiB, err)
	}
	return g, at.Sub(g.began), nil
}

// startLimit is far more than a start alone takes anywhere.
const startLimit = 3 * time.Minute
