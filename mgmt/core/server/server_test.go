package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/drivers/pci"
	"github.com/ashlar-hv/ashlar/initramfs/layout"
	"github.com/ashlar-hv/ashlar/mgmt/core/folder"
	"github.com/ashlar-hv/ashlar/mgmt/core/guest"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/mgmt/core/image"
	"github.com/ashlar-hv/ashlar/mgmt/core/sriov"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/seqpacket"
	"golang.org/x/sys/unix"
)

func id(n int) string { return fmt.Sprintf("%032x", n) }

// noNetworks is a host without guest networks.
type noNetworks struct{ guest.Networks }

func (noNetworks) Check(nics []hostcall.NIC) error {
	if len(nics) > 0 {
		return &hostcall.Error{Code: hostcall.InvalidArgument, Field: "guest.nics[0].network", Message: "There is no network."}
	}
	return nil
}
func (noNetworks) Release(string) {}

// A fixture is a server on a real socket.
type fixture struct {
	s    *Server
	path string
	l    *net.UnixListener
	log  bytes.Buffer
}

func start(t *testing.T) *fixture {
	t.Helper()
	dir := t.TempDir()
	images, err := image.Open(filepath.Join(dir, "images"))
	if err != nil {
		t.Fatal(err)
	}
	folders, err := folder.Open(filepath.Join(dir, "guests"), images)
	if err != nil {
		t.Fatal(err)
	}
	fx := &fixture{path: filepath.Join(dir, "core", "core.sock")}
	log := slog.New(slog.NewTextHandler(&fx.log, nil))
	fx.s = &Server{Images: images, UID: uint32(os.Getuid()), Log: log,
		Host:  func() hostcall.HostStatus { return hostcall.HostStatus{Hostname: "h"} },
		Check: func() hostcall.HostCheckResult { return hostcall.HostCheckResult{Refused: true} },
		Facts: func() layout.HostInfo { return layout.HostInfo{} }}
	fx.s.Functions = functions(log)
	fx.s.Guests, err = guest.New(guest.Config{RunDir: filepath.Join(dir, "run"), EndDir: filepath.Join(dir, "ended"), DeviceDir: filepath.Join(dir, "devices"),
		FindDevices: findDevices, Functions: fx.s.Functions,
		Cgroup: filepath.Join(dir, "cgroup"), VMM: "/none", Folders: folders, Images: images, Networks: noNetworks{},
		Memory: func() (int64, error) { return 256 << 20, nil }, Notify: fx.s.Notify, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	l, err := Listen(fx.path, os.Getuid())
	if err != nil {
		t.Fatalf("Listen: %v", err)
	}
	fx.l = l
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- fx.s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return fx
}

func (fx *fixture) dial(t *testing.T) *seqpacket.Conn {
	t.Helper()
	c, err := seqpacket.Dial(fx.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// ask makes one call and waits for its reply.
func ask(t *testing.T, c *seqpacket.Conn, call hostcall.Call) (hostcall.Message, []*os.File) {
	t.Helper()
	if call.Seq == 0 {
		call.Seq = 1
	}
	if err := c.Send(call); err != nil {
		t.Fatalf("send %s: %v", call.Method, err)
	}
	for {
		var m hostcall.Message
		files, err := c.Recv(&m)
		if err != nil {
			t.Fatalf("receive answer to %s: %v", call.Method, err)
		}
		if m.Seq == call.Seq {
			t.Cleanup(func() { seqpacket.CloseAll(files) })
			return m, files
		}
	}
}

func TestSocket(t *testing.T) {
	fx := start(t)
	info, err := os.Stat(fx.path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v; want mode 0600", info, err)
	}
	if _, err := os.Stat(fx.path + ".new"); err == nil {
		t.Error("the socket's first name is left behind")
	}
}

func TestImageCalls(t *testing.T) {
	c := start(t).dial(t)
	m, files := ask(t, c, hostcall.Call{Method: hostcall.ImageCreate, ID: id(1), Size: 5})
	if m.Error != nil || len(files) != 1 {
		t.Fatalf("create: %+v with %d files", m, len(files))
	}
	files[0].WriteString("hello")
	files[0].Close()
	if m, _ := ask(t, c, hostcall.Call{Method: hostcall.ImageSeal, ID: id(1)}); m.Error != nil {
		t.Fatalf("seal: %v", m.Error)
	}
	m, files = ask(t, c, hostcall.Call{Method: hostcall.ImageOpen, ID: id(1)})
	if m.Error != nil || len(files) != 1 || m.Size != 5 {
		t.Fatalf("open: %+v with %d files", m, len(files))
	}
	if b, err := io.ReadAll(files[0]); err != nil || string(b) != "hello" {
		t.Errorf("image = %q, %v", b, err)
	}
	m, _ = ask(t, c, hostcall.Call{Method: hostcall.ImageList})
	if len(m.Images) != 1 || !m.Images[0].Sealed {
		t.Errorf("list: %+v", m)
	}
	m, _ = ask(t, c, hostcall.Call{Method: hostcall.GuestCreate, ID: id(2), Disks: []hostcall.Disk{{Image: id(1)}}})
	if m.Error != nil {
		t.Errorf("create guest: %v", m.Error)
	}
	m, _ = ask(t, c, hostcall.Call{Method: hostcall.GuestList})
	if len(m.Guests) != 1 || m.Guests[0].State != hostcall.Stopped {
		t.Errorf("list guests: %+v", m)
	}
	if m, _ := ask(t, c, hostcall.Call{Method: hostcall.Host}); m.Host == nil || m.Host.Hostname != "h" {
		t.Errorf("host: %+v", m)
	}
}

// TestHostile asks for what must be refused, each with its code and field, on
// one connection, which goes on.
func TestHostile(t *testing.T) {
	fx := start(t)
	c := fx.dial(t)
	if m, _ := ask(t, c, hostcall.Call{Method: hostcall.GuestCreate, ID: id(1)}); m.Error != nil {
		t.Fatal(m.Error)
	}
	guest := func(change func(*hostcall.Guest)) *hostcall.Guest {
		g := &hostcall.Guest{Name: "vm", VCPUs: 1, MemoryBytes: 64 << 20, Kernel: id(9)}
		change(g)
		return g
	}
	tests := []struct {
		name  string
		call  hostcall.Call
		code  hostcall.Code
		field string
	}{
		{"unknown method", hostcall.Call{Method: "shell", ID: id(1)}, hostcall.InvalidArgument, "method"},
		{"no method", hostcall.Call{}, hostcall.InvalidArgument, "method"},
		{"no id", hostcall.Call{Method: hostcall.ImageOpen}, hostcall.InvalidArgument, "id"},
		{"path as id", hostcall.Call{Method: hostcall.ImageOpen, ID: "../../../etc/passwd"}, hostcall.InvalidArgument, "id"},
		{"path of right length", hostcall.Call{Method: hostcall.ImageDelete, ID: "../" + strings.Repeat("a", 29)}, hostcall.InvalidArgument, "id"},
		{"capitals", hostcall.Call{Method: hostcall.GuestLog, ID: strings.Repeat("A", 32)}, hostcall.InvalidArgument, "id"},
		{"part of another", hostcall.Call{Method: hostcall.ImageOpen, ID: id(1) + ".part"}, hostcall.InvalidArgument, "id"},
		{"negative image", hostcall.Call{Method: hostcall.ImageCreate, ID: id(3), Size: -1}, hostcall.InvalidArgument, "size"},
		{"huge image", hostcall.Call{Method: hostcall.ImageCreate, ID: id(3), Size: 1<<63 - 1}, hostcall.InvalidArgument, "size"},
		{"image larger than the pool", hostcall.Call{Method: hostcall.ImageCreate, ID: id(3), Size: image.MaxSize}, hostcall.ResourceExhausted, "size"},
		{"seal before create", hostcall.Call{Method: hostcall.ImageSeal, ID: id(3)}, hostcall.NotFound, "id"},
		{"negative disk", hostcall.Call{Method: hostcall.GuestCreate, ID: id(4), Disks: []hostcall.Disk{{Size: -512}}}, hostcall.InvalidArgument, "disks[0].size"},
		{"start of nothing", hostcall.Call{Method: hostcall.GuestStart, ID: id(1)}, hostcall.InvalidArgument, "guest"},
		{"start before create", hostcall.Call{Method: hostcall.GuestStart, ID: id(4), Guest: guest(func(*hostcall.Guest) {})}, hostcall.NotFound, "id"},
		{"no name", hostcall.Call{Method: hostcall.GuestStart, ID: id(1), Guest: guest(func(g *hostcall.Guest) { g.Name = "" })}, hostcall.InvalidArgument, "guest.name"},
		{"name with escapes", hostcall.Call{Method: hostcall.GuestStart, ID: id(1), Guest: guest(func(g *hostcall.Guest) { g.Name = "a\x1b[2J" })}, hostcall.InvalidArgument, "guest.name"},
		{"pool of no size", hostcall.Call{Method: hostcall.HugepagesSet}, hostcall.InvalidArgument, "hugepageSize"},
		{"pool of pages that there are not", hostcall.Call{Method: hostcall.HugepagesSet, HugepageSize: &hostcall.HugepageSize{Page: 4 << 20, Pages: 1}}, hostcall.NotFound, "hugepageSize.page"},
		{"no processor", hostcall.Call{Method: hostcall.GuestStart, ID: id(1), Guest: guest(func(g *hostcall.Guest) { g.VCPUs = 0 })}, hostcall.InvalidArgument, "guest.vcpus"},
		{"too many processors", hostcall.Call{Method: hostcall.GuestStart, ID: id(1), Guest: guest(func(g *hostcall.Guest) { g.VCPUs = 1 << 30 })}, hostcall.InvalidArgument, "guest.vcpus"},
		{"most processors below those at the start", hostcall.Call{Method: hostcall.GuestStart, ID: id(1), Guest: guest(func(g *hostcall.Guest) { g.VCPUs, g.MaxVCPUs = 2, 1 })}, hostcall.InvalidArgument, "guest.maxVcpus"},
		{"most processors beyond all", hostcall.Call{Method: hostcall.GuestStart, ID: id(1), Guest: guest(func(g *hostcall.Guest) { g.MaxVCPUs = 129 })}, hostcall.InvalidArgument, "guest.maxVcpus"},
		{"processors of a stopped guest", hostcall.Call{Method: hostcall.GuestVCPUs, ID: id(1)}, hostcall.FailedPrecondition, ""},
		{"set processors of a stopped guest", hostcall.Call{Method: hostcall.GuestSetVCPUs, ID: id(1), VCPUs: 1}, hostcall.FailedPrecondition, ""},
		{"no memory", hostcall.Call{Method: hostcall.GuestStart, ID: id(1), Guest: guest(func(g *hostcall.Guest) { g.MemoryBytes = 0 })}, hostcall.InvalidArgument, "guest.memoryBytes"},
		{"all memory", hostcall.Call{Method: hostcall.GuestStart, ID: id(1), Guest: guest(func(g *hostcall.Guest) { g.MemoryBytes = 1<<64 - 2<<20 })}, hostcall.InvalidArgument, "guest.memoryBytes"},
		{"more memory than there is", hostcall.Call{Method: hostcall.GuestStart, ID: id(1), Guest: guest(func(g *hostcall.Guest) { g.MemoryBytes = 1 << 30 })}, hostcall.ResourceExhausted, "guest.memoryBytes"},
		{"command line with a line end", hostcall.Call{Method: hostcall.GuestStart, ID: id(1), Guest: guest(func(g *hostcall.Guest) { g.Cmdline = "a\nb" })}, hostcall.InvalidArgument, "guest.cmdline"},
		{"command line too long", hostcall.Call{Method: hostcall.GuestStart, ID: id(1), Guest: guest(func(g *hostcall.Guest) { g.Cmdline = strings.Repeat("a", 2048) })}, hostcall.InvalidArgument, "guest.cmdline"},
		{"NIC on nothing", hostcall.Call{Method: hostcall.GuestStart, ID: id(1), Guest: guest(func(g *hostcall.Guest) { g.NICs = []hostcall.NIC{{}} })}, hostcall.InvalidArgument, "guest.nics[0].network"},
		{"power button of a stopped guest", hostcall.Call{Method: hostcall.GuestPowerButton, ID: id(1)}, hostcall.FailedPrecondition, ""},
		{"pause of a stopped guest", hostcall.Call{Method: hostcall.GuestPause, ID: id(1)}, hostcall.FailedPrecondition, ""},
		{"resume of a stopped guest", hostcall.Call{Method: hostcall.GuestResume, ID: id(1)}, hostcall.FailedPrecondition, ""},
		{"reset of a stopped guest", hostcall.Call{Method: hostcall.GuestReset, ID: id(1)}, hostcall.FailedPrecondition, ""},
		{"limits for more disks than there are", hostcall.Call{Method: hostcall.GuestStart, ID: id(1), Guest: guest(func(g *hostcall.Guest) { g.DiskLimits = make([]*protocol.DiskLimits, 9) })}, hostcall.InvalidArgument, "guest.diskLimits"},
		{"a disk too slow", hostcall.Call{Method: hostcall.GuestStart, ID: id(1), Guest: guest(func(g *hostcall.Guest) {
			g.Disks, g.DiskLimits = []int64{1}, []*protocol.DiskLimits{{BytesPerSecond: 1}}
		})}, hostcall.InvalidArgument, "guest.disks[0].limits.bytesPerSecond"},
		{"bad limits", hostcall.Call{Method: hostcall.GuestSetDiskLimits, ID: id(1), Limits: &protocol.DiskLimits{BurstBytes: 1}}, hostcall.InvalidArgument, "limits.burstBytes"},
		{"limits of a stopped guest", hostcall.Call{Method: hostcall.GuestSetDiskLimits, ID: id(1)}, hostcall.FailedPrecondition, ""},
		{"resize of nobody's disk", hostcall.Call{Method: hostcall.GuestResizeDisk, ID: id(8), Size: 4096}, hostcall.NotFound, "id"},
		{"resize of no disk", hostcall.Call{Method: hostcall.GuestResizeDisk, ID: id(1), Disk: 9, Size: 4096}, hostcall.InvalidArgument, "disk"},
		{"a NIC too slow", hostcall.Call{Method: hostcall.GuestStart, ID: id(1), Guest: guest(func(g *hostcall.Guest) {
			g.NICs = []hostcall.NIC{{Limits: &hostcall.NICLimits{Transmit: &hostcall.NetworkLimits{PacketsPerSecond: 1}}}}
		})}, hostcall.InvalidArgument, "guest.nics[0].limits.transmit.packetsPerSecond"},
		{"bad limits of a NIC", hostcall.Call{Method: hostcall.GuestSetNICLimits, ID: id(1), NICLimits: &hostcall.NICLimits{Receive: &hostcall.NetworkLimits{BurstBytes: 1}}}, hostcall.InvalidArgument, "nicLimits.receive.burstBytes"},
		{"limits of a NIC of a stopped guest", hostcall.Call{Method: hostcall.GuestSetNICLimits, ID: id(1)}, hostcall.FailedPrecondition, ""},
		{"link of a stopped guest", hostcall.Call{Method: hostcall.GuestSetNICLink, ID: id(1)}, hostcall.FailedPrecondition, ""},
		{"NMI to a stopped guest", hostcall.Call{Method: hostcall.GuestNMI, ID: id(1)}, hostcall.FailedPrecondition, ""},
		{"counters of a stopped guest", hostcall.Call{Method: hostcall.GuestCounters, ID: id(1)}, hostcall.FailedPrecondition, ""},
		{"balloon of a stopped guest", hostcall.Call{Method: hostcall.GuestBalloon, ID: id(1)}, hostcall.FailedPrecondition, ""},
		{"set balloon of a stopped guest", hostcall.Call{Method: hostcall.GuestSetBalloon, ID: id(1)}, hostcall.FailedPrecondition, ""},
		{"balloon of all memory", hostcall.Call{Method: hostcall.GuestStart, ID: id(1), Guest: guest(func(g *hostcall.Guest) { g.BalloonBytes = g.MemoryBytes })}, hostcall.InvalidArgument, "guest.balloonBytes"},
		{"memory of a stopped guest", hostcall.Call{Method: hostcall.GuestMemory, ID: id(1)}, hostcall.FailedPrecondition, ""},
		{"set memory of a stopped guest", hostcall.Call{Method: hostcall.GuestSetMemory, ID: id(1)}, hostcall.FailedPrecondition, ""},
		{"too much memory to plug in", hostcall.Call{Method: hostcall.GuestStart, ID: id(1), Guest: guest(func(g *hostcall.Guest) { g.Pluggable = &protocol.Pluggable{MaxBytes: 1 << 40} })}, hostcall.InvalidArgument, "guest.pluggable.maxBytes"},
		{"more memory plugged in than there may be", hostcall.Call{Method: hostcall.GuestStart, ID: id(1), Guest: guest(func(g *hostcall.Guest) {
			g.Pluggable = &protocol.Pluggable{MaxBytes: 128 << 20, Bytes: 256 << 20}
		})}, hostcall.InvalidArgument, "guest.pluggable.bytes"},
		{"histograms of a stopped guest", hostcall.Call{Method: hostcall.GuestHistograms, ID: id(1)}, hostcall.FailedPrecondition, ""},
		{"pause of nobody", hostcall.Call{Method: hostcall.GuestPause, ID: id(8)}, hostcall.NotFound, "id"},
		{"reset of nobody", hostcall.Call{Method: hostcall.GuestReset, ID: id(8)}, hostcall.NotFound, "id"},
		{"NMI to a path", hostcall.Call{Method: hostcall.GuestNMI, ID: "../../../../../dev/kvm"}, hostcall.InvalidArgument, "id"},
		{"counters without an id", hostcall.Call{Method: hostcall.GuestCounters}, hostcall.InvalidArgument, "id"},
		{"console of a stopped guest", hostcall.Call{Method: hostcall.GuestConsole, ID: id(1)}, hostcall.FailedPrecondition, ""},
		{"log of a guest never started", hostcall.Call{Method: hostcall.GuestLog, ID: id(1)}, hostcall.FailedPrecondition, ""},
		{"kill of nobody", hostcall.Call{Method: hostcall.GuestKill, ID: id(8)}, hostcall.NotFound, "id"},
		{"delete of nobody", hostcall.Call{Method: hostcall.GuestDelete, ID: id(8)}, hostcall.NotFound, "id"},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.call.Seq = uint64(i + 1)
			m, files := ask(t, c, tt.call)
			if m.Error == nil || m.Error.Code != tt.code || m.Error.Field != tt.field || len(files) != 0 {
				t.Errorf("answer = %+v (%v) with %d files, want %s of %q", m, m.Error, len(files), tt.code, tt.field)
			}
			if m.Error != nil && !strings.HasSuffix(m.Error.Message, ".") {
				t.Errorf("message %q is no sentence", m.Error.Message)
			}
		})
	}
}

// TestBroken sends what is no call at all: the connection is closed, others go on.
func TestBroken(t *testing.T) {
	fx := start(t)
	other := fx.dial(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for name, send := range map[string]func(*net.UnixConn) error{
		"not JSON":   func(u *net.UnixConn) error { _, err := u.Write([]byte("hello")); return err },
		"not a call": func(u *net.UnixConn) error { _, err := u.Write([]byte(`{"seq":"x"}`)); return err },
		"no number":  func(u *net.UnixConn) error { _, err := u.Write([]byte(`{"method":"host"}`)); return err },
		"too long":   func(u *net.UnixConn) error { _, err := u.Write(make([]byte, seqpacket.MaxMessage+1)); return err },
		"descriptors": func(u *net.UnixConn) error {
			return seqpacket.New(u).Send(hostcall.Call{Seq: 1, Method: hostcall.Host}, null)
		},
		"empty packet": func(u *net.UnixConn) error { _, err := u.Write(nil); return err },
	} {
		t.Run(name, func(t *testing.T) {
			u, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: fx.path, Net: "unixpacket"})
			if err != nil {
				t.Fatal(err)
			}
			defer u.Close()
			if err := send(u); err != nil {
				t.Fatal(err)
			}
			u.SetReadDeadline(time.Now().Add(10 * time.Second))
			if n, err := u.Read(make([]byte, 100)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read %d bytes, %v; want the end", n, err)
			}
			if m, _ := ask(t, other, hostcall.Call{Method: hostcall.Host}); m.Error != nil {
				t.Errorf("another connection: %v", m.Error)
			}
		})
	}
}

// TestFlood sends calls without reading the answers: that connection is lost,
// the others are not.
func TestFlood(t *testing.T) {
	fx := start(t)
	flood, other := fx.dial(t), fx.dial(t)
	stop := time.AfterFunc(30*time.Second, func() { flood.Close() })
	defer stop.Stop()
	sent := 0
	for ; sent < 100000; sent++ {
		if err := flood.Send(hostcall.Call{Seq: uint64(sent + 1), Method: hostcall.Host}); err != nil {
			break
		}
	}
	if sent == 100000 || !stop.Stop() {
		t.Errorf("%d calls were taken without an answer read", sent)
	}
	if m, _ := ask(t, other, hostcall.Call{Method: hostcall.Host}); m.Error != nil {
		t.Errorf("another connection: %v", m.Error)
	}
}

func TestEvents(t *testing.T) {
	fx := start(t)
	with, without, slow := fx.dial(t), fx.dial(t), fx.dial(t)
	for _, c := range []*seqpacket.Conn{with, slow} {
		if m, _ := ask(t, c, hostcall.Call{Method: hostcall.Subscribe}); m.Error != nil {
			t.Fatal(m.Error)
		}
	}
	const events = 5000 // more than queue and socket hold
	const burst = 500
	read := make(chan struct{}, events)
	go func() {
		defer close(read)
		for range events {
			var m hostcall.Message
			if _, err := with.Recv(&m); err != nil || m.Event == nil || m.Seq != 0 {
				return
			}
			read <- struct{}{}
		}
	}()
	got := 0
	for i := range events {
		fx.s.Notify(hostcall.GuestStatus{ID: id(i), State: hostcall.Running, Message: strings.Repeat("x", 100)})
		for i%burst == burst-1 && got <= i {
			if _, ok := <-read; !ok {
				t.Fatalf("subscriber got %d events, want %d", got, events)
			}
			got++
		}
	}
	if m, _ := ask(t, without, hostcall.Call{Method: hostcall.Host}); m.Error != nil || m.Event != nil {
		t.Errorf("connection without subscription: %+v", m)
	}
	for { // what was in the socket, then the end
		var m hostcall.Message
		if _, err := slow.Recv(&m); err != nil {
			if !errors.Is(err, io.EOF) {
				t.Errorf("slow subscriber: %v, want the end", err)
			}
			break
		}
	}
	fx.s.mu.Lock()
	defer fx.s.mu.Unlock()
	if !strings.Contains(fx.log.String(), "does not read") {
		t.Errorf("log says nothing of the slow subscriber:\n%s", fx.log.String())
	}
}

// TestAcceptFails lets taking a connection fail for a while, as it does when
// descriptors have run out: the service goes on.
func TestAcceptFails(t *testing.T) {
	fx := start(t)
	before := fx.dial(t)
	if m, _ := ask(t, before, hostcall.Call{Method: hostcall.Host}); m.Error != nil {
		t.Fatal(m.Error)
	}
	if err := fx.l.SetDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	if err := fx.l.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	after := fx.dial(t)
	stop := time.AfterFunc(10*time.Second, func() { after.Close() })
	defer stop.Stop()
	if m, _ := ask(t, after, hostcall.Call{Method: hostcall.Host}); m.Error != nil {
		t.Error(m.Error)
	}
}

// TestListenerGone ends the listener under a server that has a connection: it
// says so, for core to be started again.
func TestListenerGone(t *testing.T) {
	s := &Server{UID: uint32(os.Getuid()), Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	path := filepath.Join(t.TempDir(), "core.sock")
	l, err := Listen(path, os.Getuid())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(t.Context(), l) }()
	c, err := seqpacket.Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if m, _ := ask(t, c, hostcall.Call{Method: hostcall.Subscribe}); m.Error != nil {
		t.Fatal(m.Error)
	}
	l.Close()
	select {
	case err := <-done:
		if err == nil {
			t.Error("Serve without a listener: no error")
		}
	case <-time.After(10 * time.Second):
		t.Error("Serve without a listener goes on")
	}
}

func TestTooManyConnections(t *testing.T) {
	fx := start(t)
	for range maxConns {
		if m, _ := ask(t, fx.dial(t), hostcall.Call{Method: hostcall.Host}); m.Error != nil {
			t.Fatal(m.Error)
		}
	}
	var m hostcall.Message
	if _, err := fx.dial(t).Recv(&m); !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("connection %d: %v, want the end", maxConns+1, err)
	}
}

func TestWrongUser(t *testing.T) {
	fx := start(t)
	a, b, err := seqpacket.Pair()
	if err != nil {
		t.Fatal(err)
	}
	peer, err := seqpacket.FromFile(a)
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	defer b.Close()
	s := &Server{UID: uint32(os.Getuid()) + 1, Log: fx.s.Log}
	err = s.admit(newConn(peer, s))
	if os.Getuid() == 0 && err != nil {
		t.Errorf("root is refused: %v", err)
	}
	if os.Getuid() != 0 && err == nil {
		t.Error("another user is admitted")
	}
}

// FuzzCall sends packets to a server as control could.
func FuzzCall(f *testing.F) {
	f.Add([]byte(`{"seq":1,"method":"host"}`))
	f.Add([]byte(`{"seq":1,"method":"image-create","id":"00000000000000000000000000000001","size":10}`))
	f.Add([]byte(`{"seq":1,"method":"guest-create","id":"00000000000000000000000000000001","disks":[{"size":512}]}`))
	f.Add([]byte(`{"seq":1,"method":"guest-start","id":"00000000000000000000000000000001","guest":{"name":"x","vcpus":1,"memoryBytes":67108864,"nics":[{}]}}`))
	f.Add([]byte(`{"seq":18446744073709551615,"method":"subscribe"}`))
	images, err := image.Open(filepath.Join(f.TempDir(), "images"))
	if err != nil {
		f.Fatal(err)
	}
	dir := f.TempDir()
	folders, err := folder.Open(filepath.Join(dir, "guests"), images)
	if err != nil {
		f.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	s := &Server{Images: images, Log: log, Host: func() hostcall.HostStatus { return hostcall.HostStatus{} },
		Facts: func() layout.HostInfo { return layout.HostInfo{} }}
	s.Functions = functions(log)
	s.Guests, err = guest.New(guest.Config{RunDir: filepath.Join(dir, "run"), EndDir: filepath.Join(dir, "ended"), DeviceDir: filepath.Join(dir, "devices"),
		FindDevices: findDevices, Functions: s.Functions, Cgroup: filepath.Join(dir, "cgroup"),
		VMM: "/none", Folders: folders, Images: images, Networks: noNetworks{}, Notify: s.Notify, Log: log,
		Memory: func() (int64, error) { return 0, nil }})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		ours, theirs, err := seqpacket.Pair()
		if err != nil {
			t.Fatal(err)
		}
		peer, err := seqpacket.FromFile(theirs)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Write(int(ours.Fd()), b); err != nil && !errors.Is(err, unix.EMSGSIZE) {
			t.Fatal(err)
		}
		unix.Shutdown(int(ours.Fd()), unix.SHUT_WR)
		newConn(peer, s).serve(t.Context())
		ours.Close()
	})
}

// findDevices finds the devices of the machine that the tests run on.
func findDevices() (*pci.Inventory, error) { return pci.Find(pci.Host{}) }

// functions are their virtual functions, none of which anybody has.
func functions(log *slog.Logger) *sriov.Manager {
	return sriov.New(sriov.Config{Inventory: findDevices, Owners: func() map[string]string { return nil }, Uplink: func(string) []string { return nil }, Log: log})
}
