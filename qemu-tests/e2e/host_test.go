// Package e2e tests Ashlar as its users see it: a host that UEFI firmware
// boots from the disk image on an emulated USB stick, asked over gRPC.
package e2e

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/u-root/u-root/pkg/cpio"

	"github.com/ashlar-hv/ashlar/mgmt/ctl/client"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/contexts"
	"github.com/ashlar-hv/ashlar/qemu-tests/lab"
	"github.com/ashlar-hv/ashlar/qemu-tests/writecache"
)

// top is the top of the tree, where out/ is.
const top = "../.."

// built is what make build leaves in out/.
var built = []string{"ashlar.img", "ashlar-rescue.img", "guest-bzImage", "bin/ashlarctl", "demo/disk.img", "demo/vmlinuz", "demo/initrd.img", "kernels/generic", "kernels/installer", "kernels/installer-initrd.gz", "kernels/ipxe.lkrn"}

var keep = flag.Bool("keep", false, "leave the machines' files and the shared host behind")

// dirs are removed at the end, the shared host's among them.
var (
	base   string
	shared struct {
		once sync.Once
		host *host
	}
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(func() int {
		for _, f := range built {
			if _, err := os.Stat(filepath.Join(top, "out", f)); err != nil {
				fmt.Fprintf(os.Stderr, "missing %v: run make build first\n", err)
				return 1
			}
		}
		var err error
		if base, err = os.MkdirTemp("", "ashlar-e2e-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if err := buildTestGuest(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		code := m.Run()
		if h := shared.host; h != nil && !*keep {
			h.Cut()
		}
		if !*keep {
			os.RemoveAll(base)
		}
		return code
	}())
}

// testInitramfs is the small guest's initramfs.
func testInitramfs() string { return filepath.Join(base, "testguest.cpio") }

// buildTestGuest packs the program testguest as an initramfs.
func buildTestGuest() error { return packGuest("testguest", testInitramfs()) }

// packGuest packs a program of a folder beside this one as an initramfs.
func packGuest(program, archive string) error {
	bin := filepath.Join(base, program)
	c := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", bin, "../"+program)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", program, err, out)
	}
	b, err := os.ReadFile(bin)
	if err != nil {
		return err
	}
	f, err := os.Create(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	w := cpio.Newc.Writer(f)
	records := []cpio.Record{
		cpio.Directory("dev", 0o755), cpio.CharDev("dev/console", 0o600, 5, 1), cpio.CharDev("dev/null", 0o666, 1, 3),
		cpio.StaticFile("init", string(b), 0o755),
	}
	if err := cpio.WriteRecords(w, records); err != nil {
		return err
	}
	return cpio.WriteTrailer(w)
}

// A host is an Ashlar host in the lab and a connection to it.
type host struct {
	*lab.Lab
	*client.Host
	config string // ashlarctl's folder
	rescue *lab.Rescue
	cache  *writecache.Disk // the data disk, where a cut of the power loses what it has not flushed
}

// options of a host.
type options struct {
	args   []string
	cpus   int // 0: lab.Config's choice; with more in software emulation guests do not get far
	noDisk bool
	disk   int64                   // bytes of the data disk; 0: as the lab has it
	memory string                  // as lab.Config has it
	plug   bool                    // the data disk can be pulled out
	cache  bool                    // the data disk has a write cache that is lost with the power
	iommu  string                  // as lab.Config has it
	edit   func(doc string) string // changes the configuration document
}

// sharedHost is a host that several tests use. It has the rescue shell.
func sharedHost(t testing.TB) *host {
	t.Helper()
	shared.once.Do(func() { shared.host = newHost(t, options{}) })
	if shared.host == nil || !shared.host.Running() {
		t.Fatal("the shared host did not come up, or has ended: see the first failure")
	}
	showConsoleOnFailure(t, shared.host)
	return shared.host
}

// newHost boots a host of its own for a test; it is cut off at the test's end,
// unless it is the shared one.
func newHost(t testing.TB, o options) *host {
	t.Helper()
	dir, err := os.MkdirTemp(base, "host-")
	if err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	h := &host{config: filepath.Join(dir, "config")}
	doc := filepath.Join(dir, "ashlar.yaml")
	h.mustCtl(t, "config", "init", "--context", "e2e", "--host-name", "lab", "--address", fmt.Sprintf("127.0.0.1:%d", port),
		"--interface", lab.ManagementMAC, "--disk", "serial=ashlar-data", "--out", doc)
	stick := filepath.Join(dir, lab.StickFile)
	copyFile(t, filepath.Join(top, "out/ashlar-rescue.img"), stick)
	edit := o.edit
	if edit == nil && o.cpus == 0 {
		// On the one CPU of the emulation tests have more processors than a host would let in.
		edit = func(doc string) string { return strings.Replace(doc, "overcommit: 16", "overcommit: 64", 1) }
	}
	if edit != nil {
		b, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(doc, []byte(edit(string(b))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.mustCtl(t, "image", "configure", stick, "--config", doc)
	if o.cache {
		h.serveDisk(t, dir)
	}
	h.start(t, lab.Config{DiskSocket: h.diskSocket(dir), Dir: dir, Port: port, Args: o.args, CPUs: o.cpus, NoDisk: o.noDisk, DiskSize: o.disk, Memory: o.memory, PluggableDisk: o.plug, IOMMU: o.iommu})
	return h
}

// start boots the host and connects to it.
func (h *host) start(t testing.TB, c lab.Config) {
	t.Helper()
	l, err := lab.Start(c)
	if err != nil {
		t.Fatal(err)
	}
	h.Lab = l
	if t.Name() != "" && h != shared.host {
		showConsoleOnFailure(t, h)
	}
	if err := l.WaitReady(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	h.connect(t)
}

// connect makes a fresh connection with the operator's certificate.
func (h *host) connect(t testing.TB) {
	t.Helper()
	if h.Host != nil {
		h.Host.Close()
	}
	o := h.clientOptions(t)
	c, err := client.New(o)
	if err != nil {
		t.Fatal(err)
	}
	h.Host = c
}

// clientOptions are those of the context e2e.
func (h *host) clientOptions(t testing.TB) client.Options {
	t.Helper()
	d := contexts.Dir(h.config)
	f, err := d.Load()
	if err != nil {
		t.Fatal(err)
	}
	c, err := f.Lookup("e2e")
	if err != nil {
		t.Fatal(err)
	}
	m, err := d.Material(c)
	if err != nil {
		t.Fatal(err)
	}
	return client.Options{
		Address: c.Address, ServerName: c.ServerName, CA: m.CA, Certificate: m.Certificate, Key: m.Key,
		Retry: 30 * time.Second, UserAgent: "e2e",
	}
}

// ctl runs ashlarctl with the host's context.
func (h *host) ctl(args ...string) (string, error) {
	c := exec.Command(filepath.Join(top, "out/bin/ashlarctl"), args...)
	c.Env = append(os.Environ(), "ASHLAR_CONFIG_DIR="+h.config, "ASHLAR_CONTEXT=e2e")
	out, err := c.CombinedOutput()
	return string(out), err
}

func (h *host) mustCtl(t testing.TB, args ...string) string {
	t.Helper()
	out, err := h.ctl(args...)
	if err != nil {
		t.Fatalf("ashlarctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// shell runs a command on the host as root.
func (h *host) shell(t testing.TB, command string) string {
	t.Helper()
	if h.rescue == nil {
		r, err := h.Rescue()
		if err != nil {
			t.Fatal(err)
		}
		h.rescue = r
	}
	out, err := h.rescue.Run(command)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// pids are the processes on the host that run a program.
func (h *host) pids(t testing.TB, program string) []string {
	t.Helper()
	return strings.Fields(h.shell(t, "pidof "+program))
}

// reboot starts the host again after it was switched off or cut.
func (h *host) reboot(t testing.TB) {
	t.Helper()
	if h.rescue != nil {
		h.rescue.Close()
		h.rescue = nil
	}
	h.start(t, h.Config)
}

func showConsoleOnFailure(t testing.TB, h *host) {
	t.Cleanup(func() {
		if t.Failed() && h.Lab != nil {
			t.Logf("the host's files are in %s (kept with -keep); the end of its console:\n%s", h.Dir, h.Tail())
		}
		if h != shared.host && h.Lab != nil {
			if h.Host != nil {
				h.Host.Close()
			}
			if err := h.Cut(); err != nil {
				t.Error(err)
			}
			if !*keep {
				os.RemoveAll(h.Dir)
			}
		}
	})
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	src, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(dst, src); err != nil {
		t.Fatal(err)
	}
	if err := dst.Close(); err != nil {
		t.Fatal(err)
	}
}
