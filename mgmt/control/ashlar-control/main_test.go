package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/initramfs/layout"
	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1/ashlarv1connect"
	"github.com/ashlar-hv/ashlar/mgmt/control/coretest"
	"github.com/ashlar-hv/ashlar/mgmt/control/pkitest"
	"github.com/ashlar-hv/ashlar/vmm/jail"
	"github.com/ashlar-hv/ashlar/vmm/jail/jailtest"
)

// binary is the program as it goes onto a host.
var binary string

// use is what control uses of its jail in these tests.
var use = jailtest.NewUse(jailtest.Control, jailRules(0))

// jailRules are those of control, which knows itself as pid.
func jailRules(pid int) []jail.Rule { return slices.Concat(jail.RuntimeOf(pid), rules()) }

func TestMain(m *testing.M) {
	jailtest.RecordMain(jailRules)
	dir, err := os.MkdirTemp("", "ashlar-control")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "ashlar-control")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(use.Check(code, ""))
	}))
}

// A daemon is control as init starts it: confined, with its descriptors handed over.
type daemon struct {
	t        *testing.T
	core     *coretest.Core
	ca       *pkitest.CA
	settings layout.ControlSettings
	listener *os.File
	address  string
	log      *logBuffer
	cmd      *exec.Cmd

	images     ashlarv1connect.ImageServiceClient
	machines   ashlarv1connect.VirtualMachineServiceClient
	operations ashlarv1connect.OperationServiceClient
	hosts      ashlarv1connect.HostServiceClient
	watch      ashlarv1connect.WatchServiceClient
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newDaemon(t *testing.T) *daemon {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test runs as root: it hands descriptors of its own to a confined program")
	}
	d := &daemon{t: t, core: coretest.New(t.TempDir()), ca: pkitest.NewCA(t, "operator"), log: &logBuffer{}}
	if err := d.core.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.core.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.address = l.Addr().String()
	if d.listener, err = l.(*net.TCPListener).File(); err != nil {
		t.Fatal(err)
	}
	l.Close()
	t.Cleanup(func() { d.listener.Close() })
	cert, key := d.ca.Issue(t, "localhost", x509.ExtKeyUsageServerAuth, time.Now().Add(time.Hour))
	d.settings = layout.ControlSettings{Hostname: "lab", Version: "test", ClientCA: d.ca.PEM, Certificate: cert, Key: key}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(d.log.String())
		}
	})
	t.Cleanup(d.kill)
	transport := &http.Transport{TLSClientConfig: d.ca.Client(t, d.ca), ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	client, url := &http.Client{Transport: transport}, "https://"+d.address
	d.images = ashlarv1connect.NewImageServiceClient(client, url, connect.WithGRPC())
	d.machines = ashlarv1connect.NewVirtualMachineServiceClient(client, url, connect.WithGRPC())
	d.operations = ashlarv1connect.NewOperationServiceClient(client, url, connect.WithGRPC())
	d.hosts = ashlarv1connect.NewHostServiceClient(client, url, connect.WithGRPC())
	d.watch = ashlarv1connect.NewWatchServiceClient(client, url, connect.WithGRPC())
	return d
}

// start starts the program.
func (d *daemon) start() {
	d.t.Helper()
	doc, err := json.Marshal(d.settings)
	if err != nil {
		d.t.Fatal(err)
	}
	fd, err := unix.MemfdCreate("settings", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		d.t.Fatal(err)
	}
	settings := os.NewFile(uintptr(fd), "settings")
	defer settings.Close()
	if _, err := settings.Write(doc); err != nil {
		d.t.Fatal(err)
	}
	d.cmd = exec.Command(binary, "-state", d.core.Dir, "-core", d.core.Dir)
	d.cmd.ExtraFiles = []*os.File{d.listener, settings}
	d.cmd.Stderr = d.log
	d.cmd.Env = []string{}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	recording, err := jailtest.Record(d.cmd.Process.Pid, filepath.Join(d.t.TempDir(), "calls"))
	if err != nil {
		d.t.Fatal(err)
	}
	cmd := d.cmd
	d.t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
		}
		use.Note(d.t, recording)
	})
}

// kill ends the program the hard way.
func (d *daemon) kill() {
	if d.cmd != nil {
		d.cmd.Process.Kill()
		d.cmd.Wait()
		d.cmd = nil
	}
}

// alive fails the test when the program has ended by itself.
func (d *daemon) alive() {
	d.t.Helper()
	var ws syscall.WaitStatus
	if pid, _ := syscall.Wait4(d.cmd.Process.Pid, &ws, syscall.WNOHANG, nil); pid != 0 {
		d.cmd = nil
		d.t.Fatalf("control has ended: %v, signal %v", ws.ExitStatus(), ws.Signal())
	}
}

func ctxOf(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func req[T any](m *T) *connect.Request[T] { return connect.NewRequest(m) }

func content(n int) (data []byte, sum string) {
	data = make([]byte, n)
	rand.Read(data)
	s := sha256.Sum256(data)
	return data, hex.EncodeToString(s[:])
}

func (d *daemon) upload(name string, offset int64, data []byte) (*ashlarv1.Image, error) {
	stream := d.images.UploadImage(ctxOf(d.t))
	for len(data) > 0 {
		n := min(len(data), 1<<20)
		m := &ashlarv1.UploadImageRequest{Name: name, Offset: offset, Piece: &ashlarv1.UploadImageRequest_Data{Data: data[:n]}}
		if stream.Send(m) != nil {
			break
		}
		data, offset = data[n:], offset+int64(n)
	}
	res, err := stream.CloseAndReceive()
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

func (d *daemon) announce(id string, data []byte, sum string) {
	d.t.Helper()
	_, err := d.images.CreateImage(ctxOf(d.t), req(&ashlarv1.CreateImageRequest{ImageId: id, Image: &ashlarv1.Image{SizeBytes: int64(len(data)), Sha256: sum}}))
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *daemon) machine() *ashlarv1.VirtualMachine {
	d.t.Helper()
	data, sum := content(4096)
	d.announce("kernel", data, sum)
	if _, err := d.upload("images/kernel", 0, data); err != nil {
		d.t.Fatal(err)
	}
	res, err := d.machines.CreateVirtualMachine(ctxOf(d.t), req(&ashlarv1.CreateVirtualMachineRequest{
		VirtualMachineId: "demo",
		VirtualMachine: &ashlarv1.VirtualMachine{
			Cpus: 1, MemoryBytes: 64 << 20, Boot: &ashlarv1.Boot{Kernel: "images/kernel"},
			NetworkInterfaces: []*ashlarv1.NetworkInterface{{Network: "default"}},
		},
	}))
	if err != nil {
		d.t.Fatal(err)
	}
	return res.Msg
}

func (d *daemon) wait(res *connect.Response[ashlarv1.Operation], err error) *ashlarv1.Operation {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
	res, err = d.operations.WaitOperation(ctxOf(d.t), req(&ashlarv1.WaitOperationRequest{Name: res.Msg.Name}))
	if err != nil || !res.Msg.Done {
		d.t.Fatalf("wait: %v, %v", res, err)
	}
	return res.Msg
}

func (d *daemon) startVM(name string) {
	d.t.Helper()
	if op := d.wait(d.machines.StartVirtualMachine(ctxOf(d.t), req(&ashlarv1.StartVirtualMachineRequest{Name: name}))); op.Error != nil {
		d.t.Fatal(op.Error)
	}
}
