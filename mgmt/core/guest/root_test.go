//go:build roottest

package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/drivers/cgroup"
	"github.com/ashlar-hv/ashlar/mgmt/core/folder"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/mgmt/core/image"
	"github.com/ashlar-hv/ashlar/mgmt/core/network"
	"github.com/ashlar-hv/ashlar/vmm/jail"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/seqpacket"

	"github.com/ashlar-hv/ashlar/initramfs/layout"

	"golang.org/x/sys/unix"
)

// These tests run guests whose VMM is this program again: a peer that speaks
// the protocol, in the real jail, and does what the guest's name says.

const cgroups = "/sys/fs/cgroup"

func TestMain(m *testing.M) {
	if len(os.Args) == 1 && os.Getenv("PATH") == "" {
		os.Exit(peer())
	}
	os.Exit(m.Run())
}

// peer is the VMM.
func peer() int {
	l, err := net.FileListener(os.NewFile(protocol.ListenFD, "listen"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	result := os.NewFile(protocol.ResultFD, "result")
	name, paused, balloon := "", false, protocol.Balloon{}
	var memory memoryPeer
	var disk *os.File
	var panicked time.Time
	vcpus := &protocol.VCPUs{}
	var plugged plugs
	for {
		u, err := l.(*net.UnixListener).AcceptUnix()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		conn := seqpacket.New(u)
		for {
			var r protocol.Request
			files, err := conn.Recv(&r)
			if err != nil {
				conn.Close()
				break
			}
			out := protocol.Response{ID: r.ID, Status: &protocol.Status{State: protocol.Waiting}}
			end := protocol.Result{}
			var send []*os.File
			switch r.Method {
			case protocol.Configure:
				name = r.Spec.Name
				vcpus.Present, vcpus.Target = r.Spec.VCPUs, r.Spec.VCPUs
				fmt.Fprintf(os.Stderr, "configured as %s\n", name)
				if err := jail.Enter(jail.Config{UID: r.Spec.Jail.UID, GID: r.Spec.Jail.GID,
					Filter: jail.Filter{Rules: append(append(jail.Messages(), jail.Files()...), jail.Allow(unix.SYS_FSTATFS, "mapping memory in here"))}}); err != nil {
					out.Error = &protocol.Error{Code: protocol.Internal, Message: err.Error()}
					break
				}
				out.Error = configured(name, r.Spec, files)
				if len(r.Spec.Disks) > 0 {
					disk = files[r.Spec.Disks[0].File]
				}
			case protocol.AttachDisk, protocol.AttachNIC, protocol.Detach:
				out.Error = plugged.answer(name, &r, files)
			case protocol.Query:
				if name == "mute" {
					continue
				}
				out.Status.Devices = plugged.devices
				if name != "" {
					out.Status.State = protocol.Running
				}
				if paused {
					out.Status.State = protocol.Paused
				}
				out.Status.Panicked = panicked
			case protocol.Pause, protocol.Resume:
				paused = r.Method == protocol.Pause && name != "restless"
				out.Status.State = protocol.Running
				if paused {
					out.Status.State = protocol.Paused
				}
			case protocol.NMI:
				fmt.Fprintln(os.Stderr, "NMI")
				if name == "panics" {
					panicked = time.Now()
				}
			case protocol.SetVCPUs: // up at once, down one by one
				vcpus.Target = r.VCPUs
				vcpus.Present = max(vcpus.Present-1, r.VCPUs)
				if name == "boastful" {
					vcpus.Present = 1 << 20
				}
			case protocol.SetBalloon:
				balloon.TargetBytes = r.BalloonBytes
			case protocol.BalloonMethod:
				out.Balloon = &balloon
			case protocol.SetMemory, protocol.MemoryMethod:
				out.Memory = memory.answer(name, r)
			case protocol.ResizeDisk:
				if err := growth(disk, int64(r.Size)); err != nil {
					out.Error = &protocol.Error{Code: protocol.Internal, Message: err.Error()}
				}
			case protocol.SetDiskLimits:
				if r.Disk > 0 || r.Limits == nil {
					out.Error = &protocol.Error{Code: protocol.InvalidArgument, Field: "disk", Message: "no such disk"}
				}
			case protocol.CountersMethod:
				out.Counters = counters(name)
			case protocol.HistogramsMethod:
				if name == "rude" {
					out.Error = &protocol.Error{Code: protocol.InvalidArgument, Message: "unknown method"}
				}
				out.Histograms = protocol.Histograms{"disk0.read": {0, 1}}
			case protocol.ResetMethod:
				if name == "stubborn" {
					continue
				}
				end = protocol.Result{Reason: protocol.Reset}
			case protocol.PowerButton:
				if name == "deaf" {
					break
				}
				if paused {
					out.Error = &protocol.Error{Code: protocol.FailedPrecondition, Message: "paused"}
					break
				}
				end = protocol.Result{Reason: protocol.PoweredOff, Message: "bye"}
				if name == "starves" {
					end = protocol.Result{Reason: protocol.WatchdogExpired}
				}
			case protocol.Stop:
				if name == "stubborn" {
					continue
				}
				end = protocol.Result{Reason: protocol.Killed}
			case protocol.Console:
				ours, theirs, err := seqpacket.Pair()
				if err == nil && name != "lies" {
					ours.Close()
					theirs.Close()
					ours, theirs, err = streamPair()
				}
				if err == nil {
					io.WriteString(ours, "hello from "+name)
					ours.Close()
					send = append(send, theirs)
				}
			}
			out.Status.VCPUs = vcpus
			conn.Send(out, send...)
			if end.Reason != "" {
				b, _ := json.Marshal(end)
				result.Write(b)
				return 0
			}
		}
	}
}

// counters are those of a guest of this name.
func counters(name string) *protocol.Counters {
	switch name {
	case "chatty":
		c := &protocol.Counters{Devices: map[string]uint64{}}
		for i := range maxCounters + 1 {
			c.Devices[fmt.Sprintf("disk%d.reads", i)] = 1
		}
		return c
	case "rude":
		return &protocol.Counters{VCPUs: map[string][]uint64{"\x1b[2J": {1}}}
	}
	return &protocol.Counters{Devices: map[string]uint64{"disk0.reads": 7, "nic0.rx_bytes": 1 << 60, "nic0.errors": 3},
		VCPUs: map[string][]uint64{"exits": {1, 2}}}
}

// growth writes up to the new end of a disk, and not past it.
func growth(disk *os.File, size int64) error {
	if _, err := disk.WriteAt(make([]byte, 4096), size-4096); err != nil {
		return fmt.Errorf("write to the new end: %w", err)
	}
	if _, err := disk.WriteAt(make([]byte, 4096), size); !errors.Is(err, unix.EFBIG) {
		return fmt.Errorf("write past the new end: %v", err)
	}
	return nil
}

// configured does what a guest of this name does at its start.
func configured(name string, spec *protocol.Spec, files []*os.File) *protocol.Error {
	switch name {
	case "refused":
		return &protocol.Error{Code: protocol.InvalidArgument, Field: "boot.kernel", Message: "Not a bzImage."}
	case "hogs", "greedy", "hoards":
		return touches(name, spec, files)
	case "starved before":
		if !spec.WatchdogExpired {
			return &protocol.Error{Code: protocol.Internal, Message: "The run before ended otherwise."}
		}
	case "dies":
		os.Exit(3)
	case "escapes":
		os.Open("/etc/passwd")
	case "floods":
		go func() {
			for range 2 * maxRunFiles / 4096 {
				os.Stderr.Write(make([]byte, 4096))
			}
		}()
	case "grows":
		for what, place := range map[string]protocol.File{"log": spec.Log, "disk": spec.Disks[0].File} {
			if _, err := files[place].WriteAt(make([]byte, 4096), 8<<20); !errors.Is(err, unix.EFBIG) {
				return &protocol.Error{Code: protocol.Internal, Message: fmt.Sprintf("%s grows: %v", what, err)}
			}
		}
		if _, err := files[spec.Disks[0].File].WriteAt(make([]byte, 4096), 1<<20-4096); err != nil {
			return &protocol.Error{Code: protocol.Internal, Message: fmt.Sprintf("disk: %v", err)}
		}
	}
	b := make([]byte, 6)
	if _, err := files[spec.Boot.Kernel].ReadAt(b, 0); err != nil || string(b) != "kernel" {
		return &protocol.Error{Code: protocol.InvalidArgument, Field: "boot.kernel", Message: fmt.Sprintf("%q, %v", b, err)}
	}
	info, err := files[spec.Memory].Stat()
	if err != nil || uint64(info.Size()) != spec.MemoryBytes+spec.Pluggable.Max() {
		return &protocol.Error{Code: protocol.Internal, Message: fmt.Sprintf("memory: %v, %v", info, err)}
	}
	return nil
}

func streamPair() (*os.File, *os.File, error) {
	fds, err := pair()
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "a"), os.NewFile(uintptr(fds[1]), "b"), nil
}

// A bench is a manager on folders of its own.
type bench struct {
	*Manager
	c      Config
	kernel string

	mu     sync.Mutex
	events []hostcall.GuestStatus
}

func id(n int) string { return fmt.Sprintf("%032x", n) }

func newBench(t *testing.T) *bench {
	t.Helper()
	dir := t.TempDir()
	group := filepath.Join(cgroups, "test-guests")
	if err := cgroup.Enable(cgroups, group); err != nil {
		t.Fatal(err)
	}
	images, err := image.Open(filepath.Join(dir, "images"))
	if err != nil {
		t.Fatal(err)
	}
	folders, err := folder.Open(filepath.Join(dir, "guests"), images)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{kernel: id(0xabc)}
	f, err := images.Create(b.kernel, 4096)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("kernel")
	f.Close()
	if err := images.Seal(b.kernel); err != nil {
		t.Fatal(err)
	}
	program, err := filepath.Abs(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	nets, problems := network.New(layout.HostInfo{Networks: []layout.Network{{Name: "lan", Subnet: "10.80.0.0/24"}}},
		func(string, string) {}, slog.Default())
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	b.c = Config{RunDir: filepath.Join(dir, "run"), EndDir: filepath.Join(dir, "ended"), Cgroup: group, VMM: program,
		Folders: folders, Images: images, Networks: nets, Log: slog.Default(),
		Memory: func() (int64, error) { return 1 << 30, nil },
		Notify: func(s hostcall.GuestStatus) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.events = append(b.events, s)
		}}
	b.restart(t)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		b.Shutdown(ctx)
		b.nothingLeft(t)
	})
	return b
}

// restart makes a new manager, as a core does that is started again.
func (b *bench) restart(t *testing.T) {
	t.Helper()
	m, err := New(b.c)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	b.Manager = m
}

func (b *bench) guest(name string) *hostcall.Guest {
	return &hostcall.Guest{Name: name, VCPUs: 1, MemoryBytes: 64 << 20, Kernel: b.kernel, Disks: []int64{1 << 20, 8192},
		NICs: []hostcall.NIC{{Network: "lan", MAC: "02:00:00:00:00:01"}}}
}

func (b *bench) create(t *testing.T, n int) string {
	t.Helper()
	if err := b.Create(id(n), []hostcall.Disk{{Size: 1 << 20}, {Image: b.kernel, Size: 8192}}); err != nil {
		t.Fatalf("Create: %v", err)
	}
	return id(n)
}

func (b *bench) start(t *testing.T, n int, name string) string {
	t.Helper()
	guest := b.create(t, n)
	if err := b.Start(t.Context(), guest, b.guest(name)); err != nil {
		t.Fatalf("Start: %v", err)
	}
	return guest
}

// status returns what the manager says of a guest.
func (b *bench) status(t *testing.T, id string) hostcall.GuestStatus {
	t.Helper()
	all, err := b.List()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(s hostcall.GuestStatus) bool { return s.ID == id })
	if i < 0 {
		t.Fatalf("guest %s is not in %v", id, all)
	}
	return all[i]
}

func (b *bench) wait(t *testing.T, id string, want hostcall.GuestState) hostcall.GuestStatus {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		s := b.status(t, id)
		if s.State == want {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("guest is %+v, want %s", s, want)
		}
	}
}

// nothingLeft looks for remains of guests that do not run.
func (b *bench) nothingLeft(t *testing.T) {
	t.Helper()
	for _, dir := range []string{b.c.RunDir, b.c.Cgroup} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Error(err)
		}
		for _, e := range entries {
			if e.IsDir() {
				t.Errorf("%s/%s is left behind", dir, e.Name())
			}
		}
	}
	links, err := net.Interfaces()
	if err != nil {
		t.Error(err)
	}
	for _, l := range links {
		if strings.HasPrefix(l.Name, "gtap") {
			t.Errorf("tap %s is left behind", l.Name)
		}
	}
}

func TestPowerButton(t *testing.T) {
	b := newBench(t)
	guest := b.start(t, 1, "vm1")
	s := b.status(t, guest)
	if s.State != hostcall.Running || s.PID == 0 || s.Started.IsZero() {
		t.Errorf("status = %+v", s)
	}
	proc, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID))
	if err != nil || !strings.Contains(string(proc), "Uid:\t100000\t100000\t100000\t100000\n") ||
		!strings.Contains(string(proc), "CapBnd:\t0000000000000000\n") || !strings.Contains(string(proc), "Seccomp:\t2\n") {
		t.Errorf("VMM: %v\n%s", err, proc)
	}
	if group, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", s.PID)); err != nil || string(group) != "0::/test-guests/"+guest+"\n" {
		t.Errorf("VMM is in cgroup %q, %v", group, err)
	}
	if err := b.Start(t.Context(), guest, b.guest("vm1")); code(err) != hostcall.FailedPrecondition {
		t.Errorf("second Start: %v", err)
	}
	if err := b.Delete(guest); code(err) != hostcall.FailedPrecondition {
		t.Errorf("Delete of a running guest: %v", err)
	}
	f, err := b.Console(t.Context(), guest)
	if err != nil {
		t.Fatalf("Console: %v", err)
	}
	if text, err := io.ReadAll(f); err != nil || string(text) != "hello from vm1" {
		t.Errorf("console = %q, %v", text, err)
	}
	f.Close()
	if err := b.PowerButton(t.Context(), guest); err != nil {
		t.Fatalf("PowerButton: %v", err)
	}
	end := b.wait(t, guest, hostcall.Stopped)
	if end.Reason != "powered-off" || end.Message != "bye" {
		t.Errorf("end = %+v", end)
	}
	b.nothingLeft(t)
	if err := b.PowerButton(t.Context(), guest); code(err) != hostcall.FailedPrecondition {
		t.Errorf("PowerButton of a stopped guest: %v", err)
	}
	b.restart(t)
	if s := b.status(t, guest); s.Reason != "powered-off" {
		t.Errorf("status after a restart = %+v", s)
	}
	if err := b.Delete(guest); err != nil {
		t.Errorf("Delete: %v", err)
	}
	if err := b.Kill(t.Context(), guest); code(err) != hostcall.NotFound {
		t.Errorf("Kill of a deleted guest: %v", err)
	}
}

func TestStartRefused(t *testing.T) {
	b := newBench(t)
	guest := b.create(t, 1)
	change := func(f func(*hostcall.Guest)) *hostcall.Guest {
		g := b.guest("vm")
		f(g)
		return g
	}
	tests := []struct {
		name  string
		guest *hostcall.Guest
		code  hostcall.Code
		field string
	}{
		{"by the VMM", b.guest("refused"), hostcall.InvalidArgument, "guest.kernel"},
		{"VMM dies", b.guest("dies"), hostcall.Internal, ""},
		{"VMM leaves its jail", b.guest("escapes"), hostcall.Internal, ""},
		{"no such kernel", change(func(g *hostcall.Guest) { g.Kernel = id(99) }), hostcall.NotFound, "guest.kernel"},
		{"kernel is no identifier", change(func(g *hostcall.Guest) { g.Kernel = "../../etc/passwd" }), hostcall.InvalidArgument, "guest.kernel"},
		{"no such initramfs", change(func(g *hostcall.Guest) { g.Initramfs = id(99) }), hostcall.NotFound, "guest.initramfs"},
		{"no such network", change(func(g *hostcall.Guest) { g.NICs[0].Network = "x" }), hostcall.InvalidArgument, "guest.nics[0].network"},
		{"too much memory", change(func(g *hostcall.Guest) { g.MemoryBytes = 2 << 30 }), hostcall.ResourceExhausted, "guest.memoryBytes"},
		{"odd memory", change(func(g *hostcall.Guest) { g.MemoryBytes = 64<<20 + 1 }), hostcall.InvalidArgument, "guest.memoryBytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := b.Start(t.Context(), guest, tt.guest)
			var e *hostcall.Error
			if !errors.As(err, &e) || e.Code != tt.code || e.Field != tt.field {
				t.Errorf("Start: %#v, want %s of %q", err, tt.code, tt.field)
			}
			if s := b.status(t, guest); s.State != hostcall.Stopped || s.Reason != "" {
				t.Errorf("status = %+v, want as before", s)
			}
			b.nothingLeft(t)
			if _, err := b.Log(guest); code(err) != hostcall.FailedPrecondition {
				t.Errorf("Log of a guest that has not come to run: %v", err)
			}
		})
	}
	if err := b.Start(t.Context(), guest, b.guest("vm")); err != nil {
		t.Fatal(err)
	}
	f, err := b.Log(guest)
	if err != nil {
		t.Fatalf("Log: %v", err)
	}
	f.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	b.Shutdown(ctx)
	if entries, err := os.ReadDir(filepath.Join(b.c.RunDir, "..", "guests", guest)); err != nil || slices.ContainsFunc(entries,
		func(e os.DirEntry) bool { return strings.HasSuffix(e.Name(), ".new") }) {
		t.Errorf("guest's folder: %v, %v", entries, err)
	}
}

// TestFlood starts a VMM that writes more messages than there is room for.
func TestFlood(t *testing.T) {
	b := newBench(t)
	guest := b.start(t, 1, "floods")
	if s := b.wait(t, guest, hostcall.Stopped); s.Reason != hostcall.Lost {
		t.Errorf("status = %+v", s)
	}
	b.nothingLeft(t)
}

// TestGrow starts a VMM that looks whether it can take more of the pool than it
// was given.
func TestGrow(t *testing.T) {
	b := newBench(t)
	b.start(t, 1, "grows")
}

// TestEndKeptFirst looks what is on disk at the moment when the remains of a
// guest are cleared away: core could end there.
func TestEndKeptFirst(t *testing.T) {
	b := newBench(t)
	seen := make(chan error, 4)
	guest := id(1)
	b.c.Networks = spyNetworks{b.c.Networks, func() {
		_, err := os.Stat(filepath.Join(b.c.EndDir, guest))
		seen <- err
	}}
	b.restart(t)
	b.start(t, 1, "vm")
	if err := b.PowerButton(t.Context(), guest); err != nil {
		t.Fatal(err)
	}
	b.wait(t, guest, hostcall.Stopped)
	if err := <-seen; err != nil {
		t.Errorf("the end of a guest whose remains are gone: %v", err)
	}
}

// spyNetworks tells when a guest is cleared away.
type spyNetworks struct {
	Networks
	cleared func()
}

func (s spyNetworks) Deactivate(nics []folder.Interface) {
	s.cleared()
	s.Networks.Deactivate(nics)
}

// TestAdoptStarting finds a start that core did not live to finish: the guest is
// as it was before.
func TestAdoptStarting(t *testing.T) {
	b := newBench(t)
	guest := b.start(t, 1, "vm")
	if err := b.PowerButton(t.Context(), guest); err != nil {
		t.Fatal(err)
	}
	b.wait(t, guest, hostcall.Stopped)
	dir := filepath.Join(b.c.RunDir, guest)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(dir, recordName), []byte(`{"id":"`+guest+`","name":"vm","slot":7}`), 0o600)
	if _, err := cgroup.Create(filepath.Join(b.c.Cgroup, guest), cgroup.Limits{}); err != nil {
		t.Fatal(err)
	}
	b.restart(t)
	if s := b.status(t, guest); s.State != hostcall.Stopped || s.Reason != "powered-off" {
		t.Errorf("status = %+v, want the end before", s)
	}
	b.nothingLeft(t)
}

// TestAdoptMute adopts VMMs that do not answer: core waits for all of them no
// longer than for one.
func TestAdoptMute(t *testing.T) {
	b := newBench(t)
	const guests = 4
	for n := range guests {
		guest, g := b.create(t, n), b.guest("mute")
		g.NICs = nil
		if err := b.Start(t.Context(), guest, g); err != nil {
			t.Fatal(err)
		}
		b.lookup(guest).client.close()
	}
	b.Manager.c.RunDir, b.Manager.c.EndDir, b.Manager.c.Cgroup = t.TempDir(), t.TempDir(), t.TempDir()
	begin := time.Now()
	b.restart(t)
	if took := time.Since(begin); took > (guests-1)*callTimeout {
		t.Errorf("New took %v, want it to wait for all at once", took)
	}
	for n := range guests {
		if s := b.status(t, id(n)); s.State != hostcall.Running {
			t.Errorf("status = %+v", s)
		}
	}
}

func TestKill(t *testing.T) {
	b := newBench(t)
	for i, name := range []string{"vm", "stubborn"} {
		guest := b.start(t, i+1, name)
		if err := b.Kill(t.Context(), guest); err != nil {
			t.Errorf("%s: Kill: %v", name, err)
		}
		if s := b.status(t, guest); s.State != hostcall.Stopped || s.Reason != "killed" {
			t.Errorf("%s: status = %+v", name, s)
		}
		b.nothingLeft(t)
	}
}

func TestLost(t *testing.T) {
	b := newBench(t)
	guest := b.start(t, 1, "vm")
	p, err := os.FindProcess(b.status(t, guest).PID)
	if err != nil {
		t.Fatal(err)
	}
	p.Kill()
	if s := b.wait(t, guest, hostcall.Stopped); s.Reason != hostcall.Lost {
		t.Errorf("status = %+v, want lost", s)
	}
}

func TestConsoleLies(t *testing.T) {
	b := newBench(t)
	guest := b.start(t, 1, "lies")
	if f, err := b.Console(t.Context(), guest); err == nil {
		t.Errorf("Console: %v from a VMM that sends no stream", f.Name())
	}
}

func TestSameMAC(t *testing.T) {
	b := newBench(t)
	b.start(t, 1, "vm")
	other := b.create(t, 2)
	if err := b.Start(t.Context(), other, b.guest("vm")); code(err) != hostcall.AlreadyExists {
		t.Errorf("Start with a MAC in use: %v", err)
	}
	if s := b.status(t, id(1)); s.State != hostcall.Running {
		t.Errorf("the first guest is %+v", s)
	}
}

func TestAdmission(t *testing.T) {
	b := newBench(t)
	b.c.Memory = func() (int64, error) { return 320 << 20, nil }
	b.restart(t)
	b.start(t, 1, "vm")
	other := b.create(t, 2)
	g := b.guest("vm2")
	g.NICs = nil
	g.MemoryBytes = 128 << 20
	if err := b.Start(t.Context(), other, g); code(err) != hostcall.ResourceExhausted {
		t.Errorf("Start over what is promised: %v", err)
	}
}

func TestAdopt(t *testing.T) {
	b := newBench(t)
	guest := b.start(t, 1, "vm")
	before := b.status(t, guest)
	// The end of the old core: it lets go of the VMM, and touches nothing more.
	b.lookup(guest).client.close()
	b.Manager.c.RunDir, b.Manager.c.EndDir, b.Manager.c.Cgroup = t.TempDir(), t.TempDir(), t.TempDir()
	b.restart(t)
	after := b.status(t, guest)
	if after.State != hostcall.Running || after.PID != before.PID || !after.Started.Equal(before.Started) {
		t.Errorf("adopted %+v, want %+v", after, before)
	}
	if err := b.PowerButton(t.Context(), guest); err != nil {
		t.Errorf("PowerButton of an adopted guest: %v", err)
	}
	if s := b.wait(t, guest, hostcall.Stopped); s.Reason != "powered-off" {
		t.Errorf("end = %+v", s)
	}
}

// TestAdoptDead finds the remains of guests that ended while core was away.
func TestAdoptDead(t *testing.T) {
	b := newBench(t)
	guest := b.create(t, 1)
	for name, rec := range map[string]string{
		"powered-off": `{"id":"` + guest + `","name":"vm","pid":999999,"startTime":1,"slot":7}`,
		"lost":        `{"id":"` + guest + `","name":"vm","pid":1,"startTime":12345,"slot":7}`,
		"":            `{"id":"` + guest + `","slot":-1}`,
	} {
		t.Run(name, func(t *testing.T) {
			b.removeEnd(guest)
			dir := filepath.Join(b.c.RunDir, guest)
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			os.WriteFile(filepath.Join(dir, recordName), []byte(rec), 0o600)
			if name == "powered-off" {
				os.WriteFile(filepath.Join(dir, resultName), []byte(`{"reason":"powered-off"}`), 0o600)
			}
			if _, err := cgroup.Create(filepath.Join(b.c.Cgroup, guest), cgroup.Limits{}); err != nil {
				t.Fatal(err)
			}
			b.restart(t)
			if s := b.status(t, guest); s.State != hostcall.Stopped || s.Reason != name {
				t.Errorf("status = %+v, want %q", s, name)
			}
			b.nothingLeft(t)
		})
	}
}

func TestShutdown(t *testing.T) {
	b := newBench(t)
	b.start(t, 1, "vm")
	guest := b.create(t, 2)
	g := b.guest("deaf")
	g.NICs = nil
	if err := b.Start(t.Context(), guest, g); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	b.Shutdown(ctx)
	if s := b.status(t, id(1)); s.Reason != "powered-off" {
		t.Errorf("vm: %+v", s)
	}
	if s := b.status(t, guest); s.Reason != "killed" {
		t.Errorf("deaf: %+v", s)
	}
	if err := b.Start(t.Context(), guest, g); code(err) != hostcall.Unavailable {
		t.Errorf("Start after Shutdown: %v", err)
	}
}
