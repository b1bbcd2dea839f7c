//go:build roottest

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/initramfs/layout"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/seqpacket"
	"golang.org/x/sys/unix"
)

// This test runs the programs as they are on a host: core, netd, and real
// VMMs with a Linux guest, ordered over the socket that control uses.

const (
	guestKernel    = "/guest-bzImage"
	guestInitramfs = "/guest.cpio"
	patience       = 90 * time.Second // software emulation, twice
)

// A core is a running ashlar-core.
type core struct {
	cmd *exec.Cmd
	log *bytes.Buffer
}

func startCore(t *testing.T) *core {
	t.Helper()
	group, err := os.Open(layout.CoreCgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	c := &core{cmd: exec.Command(layout.CoreBinary), log: new(bytes.Buffer)}
	c.cmd.Stderr = io.MultiWriter(c.log, os.Stdout)
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(group.Fd())}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *core) end(t *testing.T, sig os.Signal) error {
	t.Helper()
	if err := c.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	return c.cmd.Wait()
}

// A client speaks to core, and collects events.
type client struct {
	t    *testing.T
	conn *seqpacket.Conn
	seq  uint64

	mu     sync.Mutex
	events []hostcall.GuestStatus
	got    chan reply
}

type reply struct {
	m     hostcall.Message
	files []*os.File
}

func dial(t *testing.T) *client {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := seqpacket.Dial(layout.CoreSocket)
		if err == nil {
			c := &client{t: t, conn: conn, got: make(chan reply, 16)}
			go c.receive()
			c.must(hostcall.Call{Method: hostcall.Subscribe})
			return c
		}
		if time.Now().After(deadline) {
			t.Fatalf("core does not listen: %v", err)
		}
	}
}

func (c *client) receive() {
	defer close(c.got)
	for {
		var m hostcall.Message
		files, err := c.conn.Recv(&m)
		if err != nil {
			return
		}
		if m.Event != nil {
			if m.Event.Guest != nil { // and not the host's
				c.mu.Lock()
				c.events = append(c.events, *m.Event.Guest)
				c.mu.Unlock()
			}
			continue
		}
		c.got <- reply{m, files}
	}
}

func (c *client) call(call hostcall.Call) (hostcall.Message, []*os.File) {
	c.t.Helper()
	c.seq++
	call.Seq = c.seq
	if err := c.conn.Send(call); err != nil {
		c.t.Fatalf("%s: %v", call.Method, err)
	}
	select {
	case r, ok := <-c.got:
		if !ok || r.m.Seq != call.Seq {
			c.t.Fatalf("%s: answer %+v, connected %v", call.Method, r.m, ok)
		}
		return r.m, r.files
	case <-time.After(patience):
		c.t.Fatalf("%s: no answer", call.Method)
	}
	return hostcall.Message{}, nil
}

func (c *client) must(call hostcall.Call) (hostcall.Message, []*os.File) {
	c.t.Helper()
	m, files := c.call(call)
	if m.Error != nil {
		c.t.Fatalf("%s: %s: %s: %s", call.Method, m.Error.Code, m.Error.Field, m.Error.Message)
	}
	return m, files
}

// upload makes a sealed image of a file.
func (c *client) upload(id, file string) {
	c.t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		c.t.Fatal(err)
	}
	_, files := c.must(hostcall.Call{Method: hostcall.ImageCreate, ID: id, Size: int64(len(b))})
	_, err = files[0].Write(b)
	if err := errors.Join(err, files[0].Close()); err != nil {
		c.t.Fatal(err)
	}
	c.must(hostcall.Call{Method: hostcall.ImageSeal, ID: id})
}

func (c *client) status(id string) hostcall.GuestStatus {
	c.t.Helper()
	m, _ := c.must(hostcall.Call{Method: hostcall.GuestList})
	i := slices.IndexFunc(m.Guests, func(s hostcall.GuestStatus) bool { return s.ID == id })
	if i < 0 {
		c.t.Fatalf("guest %s is not in %+v", id, m.Guests)
	}
	return m.Guests[i]
}

// wait waits for an event that fits.
func (c *client) wait(what string, fits func(hostcall.GuestStatus) bool) hostcall.GuestStatus {
	c.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		c.mu.Lock()
		i := slices.IndexFunc(c.events, fits)
		all := slices.Clone(c.events)
		c.mu.Unlock()
		if i >= 0 {
			return all[i]
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("no event: %s; there were %+v", what, all)
		}
	}
}

// A console is a guest's serial line.
type console struct {
	t *testing.T
	net.Conn
	seen strings.Builder
}

func (c *client) console(id string) *console {
	c.t.Helper()
	_, files := c.must(hostcall.Call{Method: hostcall.GuestConsole, ID: id})
	defer files[0].Close()
	conn, err := net.FileConn(files[0])
	if err != nil {
		c.t.Fatal(err)
	}
	return &console{t: c.t, Conn: conn}
}

// expect reads until text has come.
func (c *console) expect(text string) {
	c.t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	for b := make([]byte, 4096); !strings.Contains(c.seen.String(), text); {
		n, err := c.Read(b)
		c.seen.Write(b[:n])
		if err != nil {
			c.t.Fatalf("console: %v before %q; it said:\n%s", err, text, c.seen.String())
		}
	}
}

func (c *console) command(line, want string) {
	c.t.Helper()
	c.seen.Reset()
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		c.t.Fatal(err)
	}
	c.expect(want)
}

// pidOf finds the process, other than not, that runs a program.
func pidOf(t *testing.T, program string, not int) int {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		found, _ := filepath.Glob("/proc/[0-9]*/stat")
		for _, f := range found {
			var pid int
			b, err := os.ReadFile(f)
			// The dead wait for init here, which is no real one.
			if err != nil || !strings.Contains(string(b), " ("+program+") ") || strings.Contains(string(b), ") Z ") {
				continue
			}
			if _, err := fmt.Sscan(string(b), &pid); err == nil && pid != not {
				return pid
			}
		}
	}
	t.Fatalf("%s does not run", program)
	return 0
}

func TestCore(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(errors.Join(os.MkdirAll(layout.RunDir, 0o755), os.Mkdir(layout.CoreCgroup, 0o755)))
	info, err := json.Marshal(layout.HostInfo{Hostname: "h", Version: "test", CPUOvercommit: 16, DNS: []string{"9.9.9.9"},
		Networks: []layout.Network{{Name: "nat", Subnet: "10.80.0.0/24"}, {Name: "bad", Subnet: "10.80.0.0/16"}}})
	must(err)
	must(os.WriteFile(layout.HostFile, info, 0o600))
	first := startCore(t)
	t.Cleanup(func() {
		if t.Failed() {
			time.Sleep(3 * time.Second) // for core to say why
		}
	})
	c := dial(t)
	host, _ := c.must(hostcall.Call{Method: hostcall.Host})
	if h := host.Host; !h.KVM || h.MemoryTotal == 0 || len(h.Problems) != 1 || !slices.Equal(h.Networks, []string{"nat"}) || h.BootToCore == 0 {
		t.Errorf("host = %+v", h)
	}
	checkCore(t, first.cmd.Process.Pid)

	kernel, initramfs, guest, bad := id(1), id(2), id(3), id(4)
	c.upload(kernel, guestKernel)
	c.upload(initramfs, guestInitramfs)
	c.upload(bad, guestInitramfs)
	c.must(hostcall.Call{Method: hostcall.GuestCreate, ID: guest, Disks: []hostcall.Disk{{Size: 16 << 20}}})
	spec := func() *hostcall.Guest {
		return &hostcall.Guest{Name: "vm", VCPUs: 2, MemoryBytes: 128 << 20, Kernel: kernel, Initramfs: initramfs,
			Cmdline: "console=ttyS0 panic=-1 quiet", Disks: []int64{16 << 20}, NICs: []hostcall.NIC{{Network: "nat", MAC: "02:00:00:00:00:01"}}}
	}
	wrong := spec()
	wrong.Kernel = bad
	if m, _ := c.call(hostcall.Call{Method: hostcall.GuestStart, ID: guest, Guest: wrong}); m.Error == nil ||
		m.Error.Code != hostcall.InvalidArgument || m.Error.Field != "guest.kernel" {
		t.Errorf("start of a kernel that is none: %+v", m.Error)
	}
	nothingLeft(t)

	c.must(hostcall.Call{Method: hostcall.GuestStart, ID: guest, Guest: spec()})
	serial := c.console(guest)
	serial.expect("TESTGUEST ready")
	serial.expect("10.80.0.2")
	running := c.wait("an address", func(s hostcall.GuestStatus) bool { return len(s.Addresses) == 1 && s.Addresses[0] == "10.80.0.2" })
	serial.command("ping 10.80.0.1", "OK ping")
	serial.command("write /dev/vda 1 4", "OK write")

	t.Log("core is killed while the guest runs")
	first.end(t, unix.SIGKILL)
	if err := unix.Kill(running.PID, 0); err != nil {
		t.Fatalf("the VMM is gone with core: %v", err)
	}
	second := startCore(t)
	c = dial(t)
	if s := c.status(guest); s.State != hostcall.Running || s.PID != running.PID || !slices.Equal(s.Addresses, running.Addresses) {
		t.Errorf("after core's restart %+v, want %+v", s, running)
	}
	serial = c.console(guest)
	serial.command("cpus", "OK cpus 2")
	serial.command("ping 10.80.0.1", "OK ping")

	t.Log("netd is killed")
	old := pidOf(t, "ashlar-netd", 0)
	must(unix.Kill(old, unix.SIGKILL))
	pidOf(t, "ashlar-netd", old)

	c.must(hostcall.Call{Method: hostcall.GuestPowerButton, ID: guest})
	end := c.wait("the end", func(s hostcall.GuestStatus) bool { return s.State == hostcall.Stopped })
	if end.Reason != "powered-off" {
		t.Errorf("end = %+v", end)
	}
	nothingLeft(t)

	t.Log("the guest is started again, and core is asked to end")
	c.must(hostcall.Call{Method: hostcall.GuestStart, ID: guest, Guest: spec()})
	serial = c.console(guest)
	serial.expect("10.80.0.2") // from the new netd
	serial.command("check /dev/vda 1 4", "OK check")
	if err := second.end(t, unix.SIGTERM); err != nil {
		t.Errorf("core ended with %v", err)
	}
	if !strings.Contains(second.log.String(), "reason=powered-off") {
		t.Errorf("core's log:\n%s", second.log)
	}
	nothingLeft(t)
}

func id(n int) string { return fmt.Sprintf("%032x", n) }

// checkCore looks that core has no privilege more than its list, and no door
// to the network.
func checkCore(t *testing.T, pid int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	var want uint64
	for c := range capabilities {
		want |= 1 << c
	}
	for _, set := range []string{"CapPrm", "CapEff", "CapBnd"} {
		if line := fmt.Sprintf("%s:\t%016x\n", set, want); !strings.Contains(string(b), line) {
			t.Errorf("core has not %q:\n%s", line, b)
		}
	}
	for _, f := range []string{"tcp", "tcp6"} {
		b, err := os.ReadFile("/proc/net/" + f)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if lines := strings.Count(string(b), "\n"); lines > 1 {
			t.Errorf("something listens on %s:\n%s", f, b)
		}
	}
	state, err := os.Stat(layout.ControlDir)
	if err != nil || state.Mode().Perm() != 0o700 || state.Sys().(*syscall.Stat_t).Uid != layout.ControlUID {
		t.Errorf("control's folder: %v, %v", state, err)
	}
}

func nothingLeft(t *testing.T) {
	t.Helper()
	for _, pattern := range []string{layout.GuestRunDir + "/*", layout.GuestCgroup + "/*/", "/sys/class/net/gtap*"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			t.Errorf("left behind: %v", found)
		}
	}
}
