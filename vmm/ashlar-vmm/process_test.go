package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/internal/tinykernel"
	"github.com/ashlar-hv/ashlar/vmm/jail"
	"github.com/ashlar-hv/ashlar/vmm/jail/jailtest"
	"github.com/ashlar-hv/ashlar/vmm/memory"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/seqpacket"
)

var binary string

// TestMain builds the command: what is tested is the process as core starts it.
func TestMain(m *testing.M) {
	jailtest.RecordMain(jailtest.VMMRules)
	takenOverMain()
	dir, err := os.MkdirTemp("", "ashlar-vmm-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// A VMM is nobody who could look into what is root's alone.
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "ashlar-vmm")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	code := 1
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build ashlar-vmm: %v\n%s", err, out)
	} else {
		code = m.Run()
		code = use.Check(code, "")
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// use is what VMMs use of their jails in these tests.
var use = jailtest.NewUse(jailtest.Processes, jailtest.VMMRules(0))

// A vmm is a process in namespaces of its own, as core makes them.
type vmm struct {
	t      *testing.T
	cmd    *exec.Cmd
	sock   string
	result *os.File
	stderr strings.Builder
	id     uint64
	conn   *seqpacket.Conn
}

const testUID = 100000

func startVMM(t *testing.T) *vmm {
	t.Helper()
	v := startProgram(t, binary)
	recording, err := jailtest.Record(v.cmd.Process.Pid, filepath.Join(t.TempDir(), "calls"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		v.cmd.Process.Kill()
		v.cmd.Wait()
		use.Note(t, recording)
	})
	v.connect()
	return v
}

// startProgram starts a program as core starts a VMM.
func startProgram(t *testing.T, program string, argv ...string) *vmm {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("this test needs root: a VMM is started as root and gives it up")
	}
	dir := t.TempDir()
	v := &vmm{t: t, sock: dir + "/s"}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: v.sock, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	lf, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	if v.result, err = os.Create(dir + "/result"); err != nil {
		t.Fatal(err)
	}
	v.cmd = exec.Command(program)
	v.cmd.Args = append(v.cmd.Args, argv...)
	v.cmd.ExtraFiles = []*os.File{lf, v.result}
	v.cmd.Stderr = &v.stderr
	v.cmd.SysProcAttr = jail.Attributes(testUID, testUID)
	v.cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if err := v.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lf.Close()
	l.Close()
	t.Cleanup(func() {
		v.cmd.Process.Kill()
		v.cmd.Wait()
		v.result.Close()
		if t.Failed() {
			said := v.stderr.String()
			t.Logf("stderr of ashlar-vmm:\n%s", said[:min(len(said), 4096)])
		}
	})
	return v
}

func (v *vmm) connect() {
	v.t.Helper()
	if v.conn != nil {
		v.conn.Close()
	}
	c, err := seqpacket.Dial(v.sock)
	if err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(func() { c.Close() })
	v.conn = c
}

func (v *vmm) call(req protocol.Request, files ...*os.File) (protocol.Response, []*os.File) {
	v.t.Helper()
	v.id++
	req.ID = v.id
	if err := v.conn.Send(req, files...); err != nil {
		v.t.Fatalf("%s: %v", req.Method, err)
	}
	var resp protocol.Response
	got, err := v.conn.Recv(&resp)
	if err != nil {
		v.t.Fatalf("%s: %v", req.Method, err)
	}
	if resp.ID != v.id {
		v.t.Fatalf("%s: response %d to request %d", req.Method, resp.ID, v.id)
	}
	return resp, got
}

// ask is call for what must succeed and brings no descriptor.
func (v *vmm) ask(m protocol.Method) protocol.Response {
	v.t.Helper()
	resp, _ := v.call(protocol.Request{Method: m})
	if resp.Error != nil {
		v.t.Fatalf("%s: %v", m, resp.Error)
	}
	return resp
}

// configure starts a guest of code with one empty disk.
func (v *vmm) configure(code []byte, edit func(*protocol.Spec)) *protocol.Error {
	v.t.Helper()
	disk, err := os.Create(v.t.TempDir() + "/disk")
	if err == nil {
		err = disk.Truncate(1 << 20)
	}
	if err != nil {
		v.t.Fatal(err)
	}
	return v.configureWith(code, disk, edit)
}

// configureWith starts a guest of code with that disk, and closes its file.
func (v *vmm) configureWith(code []byte, disk *os.File, edit func(*protocol.Spec)) *protocol.Error {
	v.t.Helper()
	const mem = 64 << 20
	spec := protocol.Spec{
		Name: "test", UUID: "00112233-4455-6677-8899-aabbccddeeff", VCPUs: 2, MemoryBytes: mem,
		Boot: protocol.Boot{Cmdline: "test"}, Jail: protocol.Jail{UID: testUID, GID: testUID},
	}
	var files []*os.File
	add := func(f *os.File, err error) protocol.File {
		v.t.Helper()
		if err != nil {
			v.t.Fatal(err)
		}
		files = append(files, f)
		return protocol.File(len(files) - 1)
	}
	spec.KVM = add(os.OpenFile("/dev/kvm", os.O_RDWR, 0))
	spec.Memory = add(memory.Create("guest", mem))
	spec.Log = add(os.Create(v.t.TempDir() + "/log"))
	spec.Entropy = add(os.Open("/dev/urandom"))
	spec.Boot.Kernel = add(tinykernel.File(v.t, code), nil)
	spec.Disks = []protocol.Disk{{File: add(disk, nil), Serial: "root"}}
	if edit != nil {
		edit(&spec)
	}
	resp, _ := v.call(protocol.Request{Method: protocol.Configure, Spec: &spec}, files...)
	seqpacket.CloseAll(files)
	if resp.Error == nil && (resp.Status == nil || resp.Status.State != protocol.Running) {
		v.t.Errorf("status after configure = %+v", resp.Status)
	}
	return resp.Error
}

// ended waits for the process and returns what it wrote.
func (v *vmm) ended(exit int) protocol.Result {
	v.t.Helper()
	done := make(chan error, 1)
	go func() { done <- v.cmd.Wait() }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		v.t.Fatal("ashlar-vmm does not end")
	}
	if got := v.cmd.ProcessState.ExitCode(); got != exit {
		v.t.Errorf("exit code = %d (%v), want %d", got, v.cmd.ProcessState, exit)
	}
	b, err := os.ReadFile(v.result.Name())
	if err != nil {
		v.t.Fatal(err)
	}
	var r protocol.Result
	if err := json.Unmarshal(b, &r); err != nil {
		v.t.Fatalf("result = %q: %v", b, err)
	}
	return r
}

func TestPowerOff(t *testing.T) {
	v := startVMM(t)
	if err := v.configure(tinykernel.Code{}.Print("hi").PowerOff(), nil); err != nil {
		t.Fatal(err)
	}
	if got := v.ended(0); got.Reason != protocol.PoweredOff {
		t.Errorf("result = %+v, want powered-off", got)
	}
}

func TestRequests(t *testing.T) {
	v := startVMM(t)
	if st := v.ask(protocol.Query).Status; st.State != protocol.Waiting {
		t.Errorf("status before configure = %+v", st)
	}
	if resp, _ := v.call(protocol.Request{Method: protocol.Stop}); resp.Error == nil || resp.Error.Code != protocol.FailedPrecondition {
		t.Errorf("stop before configure = %+v", resp)
	}
	v.connect() // a lost connection is nothing
	if err := v.configure(tinykernel.Code{}.Print("hello").Spin(), nil); err != nil {
		t.Fatal(err)
	}
	for range 3 { // a restarted core
		v.connect()
		if st := v.ask(protocol.Query).Status; st.State != protocol.Running || st.PID != 1 {
			t.Errorf("status = %+v, want running as PID 1 of its namespace", st)
		}
	}
	if st := v.ask(protocol.Pause).Status; st.State != protocol.Paused {
		t.Errorf("status after pause = %+v", st)
	}
	if resp, _ := v.call(protocol.Request{Method: protocol.Pause}); resp.Error == nil || resp.Error.Code != protocol.FailedPrecondition {
		t.Errorf("second pause = %+v", resp)
	}
	if st := v.ask(protocol.Resume).Status; st.State != protocol.Running {
		t.Errorf("status after resume = %+v", st)
	}
	if resp, _ := v.call(protocol.Request{Method: protocol.SetBalloon, BalloonBytes: 1}); resp.Error == nil || resp.Error.Field != "balloonBytes" {
		t.Errorf("balloon of a byte = %+v", resp)
	}
	if resp, _ := v.call(protocol.Request{Method: protocol.SetBalloon, BalloonBytes: 1 << 20}); resp.Error != nil {
		t.Errorf("balloon of 1 MiB = %+v", resp.Error)
	}
	if b := v.ask(protocol.BalloonMethod).Balloon; b == nil || b.TargetBytes != 1<<20 || b.ActualBytes != 0 {
		t.Errorf("balloon = %+v", b)
	}
	if resp, _ := v.call(protocol.Request{Method: protocol.SetMemory, PluggedBytes: 2 << 20}); resp.Error == nil || resp.Error.Code != protocol.FailedPrecondition {
		t.Errorf("more of a fixed memory = %+v", resp)
	}
	if got := v.ask(protocol.MemoryMethod).Memory; got == nil || *got != (protocol.Memory{}) {
		t.Errorf("memory = %+v", got)
	}
	v.ask(protocol.PowerButton)
	if n := v.ask(protocol.CountersMethod).Counters; n == nil || n.VCPUs["exits"][0] == 0 {
		t.Errorf("counters = %v", n)
	}
	for range 2 { // several viewers
		resp, files := v.call(protocol.Request{Method: protocol.Console})
		if resp.Error != nil || len(files) != 1 {
			t.Fatalf("console = %+v with %d descriptors", resp, len(files))
		}
		defer files[0].Close()
		b := make([]byte, 5)
		if _, err := io.ReadFull(files[0], b); err != nil || string(b) != "hello" {
			t.Errorf("console = %q, %v", b, err)
		}
	}
	if resp, _ := v.call(protocol.Request{Method: "dance"}); resp.Error == nil || resp.Error.Code != protocol.InvalidArgument {
		t.Errorf("unknown method = %+v", resp)
	}
	if resp, _ := v.call(protocol.Request{Method: protocol.Configure, Spec: &protocol.Spec{}}); resp.Error == nil {
		t.Error("second configure succeeded")
	}
	if st := v.ask(protocol.Stop).Status; st.State != protocol.Stopped || st.Reason != protocol.Killed {
		t.Errorf("status after stop = %+v", st)
	}
	if got := v.ended(0); got.Reason != protocol.Killed {
		t.Errorf("result = %+v, want killed", got)
	}
}

// TestNMIAndReset sends NMIs and resets from within the jail: its filter has to
// allow what they need.
func TestNMIAndReset(t *testing.T) {
	v := startVMM(t)
	if err := v.configure(tinykernel.Code{}.Print("hello").Spin(), nil); err != nil {
		t.Fatal(err)
	}
	v.ask(protocol.Pause)
	if resp, _ := v.call(protocol.Request{Method: protocol.NMI}); resp.Error == nil || resp.Error.Code != protocol.FailedPrecondition {
		t.Errorf("NMI to a paused guest = %+v", resp)
	}
	if st := v.ask(protocol.ResetMethod).Status; st.State != protocol.Stopped || st.Reason != protocol.Reset {
		t.Errorf("status after reset = %+v", st)
	}
	if got := v.ended(0); got.Reason != protocol.Reset {
		t.Errorf("result = %+v, want reset", got)
	}
	v = startVMM(t)
	if err := v.configure(tinykernel.Code{}.Spin(), nil); err != nil {
		t.Fatal(err)
	}
	v.ask(protocol.NMI)
	if got := v.ended(0); got.Reason != protocol.TripleFault {
		t.Errorf("a guest without a handler met an NMI: %+v, want a triple fault", got)
	}
}

// TestDiskLimits changes limits from within the jail, of a guest that runs and of one
// that is paused.
func TestDiskLimits(t *testing.T) {
	v := startVMM(t)
	limits := &protocol.DiskLimits{BytesPerSecond: 1 << 20, OperationsPerSecond: 100}
	if err := v.configure(tinykernel.Code{}.Spin(), func(s *protocol.Spec) { s.Disks[0].Limits = limits }); err != nil {
		t.Fatal(err)
	}
	set := func(disk int, l *protocol.DiskLimits) *protocol.Error {
		resp, _ := v.call(protocol.Request{Method: protocol.SetDiskLimits, Disk: disk, Limits: l})
		return resp.Error
	}
	if err := set(0, nil); err != nil {
		t.Errorf("no limits: %v", err)
	}
	v.ask(protocol.Pause)
	if err := set(0, limits); err != nil {
		t.Errorf("limits while paused: %v", err)
	}
	v.ask(protocol.Resume)
	for _, disk := range []int{-1, 1} {
		if err := set(disk, limits); err == nil || err.Code != protocol.InvalidArgument || err.Field != "disk" {
			t.Errorf("limits of disk %d: %+v", disk, err)
		}
	}
	if err := set(0, &protocol.DiskLimits{BurstBytes: 5}); err == nil || err.Code != protocol.InvalidArgument || err.Field != "limits.burstBytes" {
		t.Errorf("bad limits: %+v", err)
	}
	for _, nic := range []int{-1, 0} {
		resp, _ := v.call(protocol.Request{Method: protocol.SetLink, NIC: nic, LinkDown: true})
		if err := resp.Error; err == nil || err.Code != protocol.InvalidArgument || err.Field != "nic" {
			t.Errorf("link of network device %d of none: %+v", nic, err)
		}
	}
	if n := v.ask(protocol.CountersMethod).Counters.Devices["disk0.throttled"]; n != 0 {
		t.Errorf("throttled = %d, want 0", n)
	}
	if h := v.ask(protocol.HistogramsMethod).Histograms; len(h) != 3 || h["disk0.flush"] == nil || len(h["disk0.flush"]) != 0 {
		t.Errorf("histograms = %v, want three of nothing", h)
	}
	v.ask(protocol.Stop)
	v.ended(0)
}

// TestResizeDisk grows a disk from within the jail.
func TestResizeDisk(t *testing.T) {
	v := startVMM(t)
	disk, err := os.Create(t.TempDir() + "/disk")
	if err == nil {
		err = disk.Truncate(1 << 20)
	}
	if err != nil {
		t.Fatal(err)
	}
	name := disk.Name()
	if err := v.configureWith(tinykernel.Code{}.Spin(), disk, nil); err != nil {
		t.Fatal(err)
	}
	resize := func(disk int, size uint64) *protocol.Error {
		resp, _ := v.call(protocol.Request{Method: protocol.ResizeDisk, Disk: disk, Size: size})
		return resp.Error
	}
	if err := resize(0, 2<<20); err == nil || err.Code != protocol.InvalidArgument || err.Field != "size" {
		t.Errorf("more than the file has: %+v", err)
	}
	if err := os.Truncate(name, 2<<20); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := resize(0, 2<<20); err != nil {
			t.Errorf("resize: %v", err)
		}
	}
	if err := resize(0, 1<<20); err == nil || err.Code != protocol.InvalidArgument || err.Field != "size" {
		t.Errorf("smaller: %+v", err)
	}
	if err := resize(1, 2<<20); err == nil || err.Code != protocol.InvalidArgument || err.Field != "disk" {
		t.Errorf("no such disk: %+v", err)
	}
	v.ask(protocol.Stop)
	v.ended(0)
}

// TestHotplug attaches and detaches from within the jail. The guest never answers, so
// that what it has not switched on leaves at once.
func TestHotplug(t *testing.T) {
	v := startVMM(t)
	if err := v.configure(tinykernel.Code{}.Spin(), func(s *protocol.Spec) { s.HotplugSlots = 1 }); err != nil {
		t.Fatal(err)
	}
	for _, direct := range []int{0, unix.O_DIRECT} {
		name := t.TempDir() + "/disk"
		if err := os.WriteFile(name, make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(name, os.O_RDWR|direct, 0)
		if err != nil {
			t.Fatal(err)
		}
		attach := protocol.Request{Method: protocol.AttachDisk, NewDisk: &protocol.Disk{Number: 1, Serial: "late"}}
		resp, _ := v.call(attach, f)
		f.Close()
		want := protocol.PluggedDevice{Name: "disk1", Slot: 1}
		if resp.Error != nil || len(resp.Status.Devices) != 2 || resp.Status.Devices[1] != want {
			t.Fatalf("attach = %+v, %+v", resp.Error, resp.Status)
		}
		if resp, _ := v.call(attach); resp.Error == nil || resp.Error.Field != "newDisk.number" {
			t.Errorf("attach of the same again = %+v", resp.Error)
		}
		if resp, _ := v.call(protocol.Request{Method: protocol.Detach, Device: "disk1"}); resp.Error != nil {
			t.Fatalf("detach = %+v", resp.Error)
		}
		for deadline := time.Now().Add(20 * time.Second); len(v.ask(protocol.Query).Status.Devices) != 1; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("disk1 does not leave")
			}
		}
	}
	if resp, _ := v.call(protocol.Request{Method: protocol.AttachNIC}); resp.Error == nil || resp.Error.Field != "newNic" {
		t.Errorf("attach of no network device = %+v", resp.Error)
	}
	v.ask(protocol.Stop)
	v.ended(0)
}

func TestConfigureRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, field string
		edit        func(*protocol.Spec)
	}{
		{"kernel", "boot.kernel", func(s *protocol.Spec) { s.Boot.Kernel, s.Entropy = s.Entropy, s.Boot.Kernel }},
		{"command line", "boot.cmdline", func(s *protocol.Spec) { s.Boot.Cmdline = strings.Repeat("x", 1000) }},
		{"memory", "memoryBytes", func(s *protocol.Spec) { s.MemoryBytes = 1 }},
		{"disk", "disks[0].file", func(s *protocol.Spec) { s.Disks[0].File = 77 }},
		{"jail", "", func(s *protocol.Spec) { s.Jail = protocol.Jail{} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := startVMM(t)
			err := v.configure(tinykernel.Code{}.Spin(), tt.edit)
			if err == nil || err.Field != tt.field {
				t.Errorf("configure = %+v, want an error at %q", err, tt.field)
			}
			if got := v.ended(1); got.Reason != protocol.Failed || got.Message == "" {
				t.Errorf("result = %+v, want failed", got)
			}
		})
	}
}

func TestWithoutCore(t *testing.T) {
	for _, tt := range []struct {
		args []string
		exit int
		says string
	}{
		{nil, 1, "no listening socket"},
		{[]string{"--help"}, 0, "Synopsis:"},
		{[]string{"dance"}, 1, "unknown argument"},
		{[]string{"run"}, 1, "want --kernel"},
		{[]string{"run", "--kernel", "main.go"}, 1, "boot.kernel: bad kernel image"},
		{[]string{"run", "--kernel", "no such"}, 1, "no such file"},
		{[]string{"run", "--kernel", "main.go", "--memory", "1TB"}, 1, "MiB or GiB"},
	} {
		cmd := exec.Command(binary, tt.args...)
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != tt.exit || !strings.Contains(string(out), tt.says) {
			t.Errorf("ashlar-vmm %v = %d, %q, want %d and %q", tt.args, got, out, tt.exit, tt.says)
		}
	}
}

func TestRun(t *testing.T) {
	cmd := exec.Command(binary, "run", "--kernel", tinykernel.File(t, tinykernel.Code{}.Print("hello\n").PowerOff()).Name(), "--cpus", "2", "--memory", "32MiB")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "hello\n") || !strings.Contains(string(out), "powered-off") {
		t.Errorf("run = %q, %v", out, err)
	}
}
