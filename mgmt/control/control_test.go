package control_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1/ashlarv1connect"
	"github.com/ashlar-hv/ashlar/mgmt/control"
	"github.com/ashlar-hv/ashlar/mgmt/control/coretest"
	"github.com/ashlar-hv/ashlar/mgmt/control/pkitest"
	"github.com/ashlar-hv/ashlar/mgmt/control/serve"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A lab is a control domain served over TLS, with a core and clients.
type lab struct {
	t       *testing.T
	core    *coretest.Core
	ca      *pkitest.CA
	address string
	log     *logBuffer
	stop    func() // ends control, as init would

	client     *http.Client
	hosts      ashlarv1connect.HostServiceClient
	images     ashlarv1connect.ImageServiceClient
	machines   ashlarv1connect.VirtualMachineServiceClient
	operations ashlarv1connect.OperationServiceClient
	watches    ashlarv1connect.WatchServiceClient
	devices    ashlarv1connect.DeviceServiceClient
	hugepages  ashlarv1connect.HugepageServiceClient
	links      ashlarv1connect.LinkServiceClient
}

// A logBuffer keeps the log for tests to look into.
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

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t, core: coretest.New(t.TempDir()), ca: pkitest.NewCA(t, "operator"), log: &logBuffer{}}
	if err := l.core.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.core.Close)
	l.startControl()
	t.Cleanup(func() { l.stop() })
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(l.log.String())
		}
	})
	l.dial()
	return l
}

// dial makes the clients.
func (l *lab) dial() {
	transport := &http.Transport{TLSClientConfig: l.ca.Client(l.t, l.ca), ForceAttemptHTTP2: true}
	l.client = &http.Client{Transport: transport}
	l.t.Cleanup(transport.CloseIdleConnections)
	url := "https://" + l.address
	l.hosts = ashlarv1connect.NewHostServiceClient(l.client, url)
	l.images = ashlarv1connect.NewImageServiceClient(l.client, url, connect.WithGRPC())
	l.machines = ashlarv1connect.NewVirtualMachineServiceClient(l.client, url, connect.WithGRPC())
	l.operations = ashlarv1connect.NewOperationServiceClient(l.client, url, connect.WithGRPCWeb())
	l.watches = ashlarv1connect.NewWatchServiceClient(l.client, url)
	l.devices = ashlarv1connect.NewDeviceServiceClient(l.client, url, connect.WithGRPC())
	l.hugepages = ashlarv1connect.NewHugepageServiceClient(l.client, url)
	l.links = ashlarv1connect.NewLinkServiceClient(l.client, url)
}

// startControl starts control with the store of the one before.
func (l *lab) startControl() {
	l.t.Helper()
	log := slog.New(slog.NewTextHandler(l.log, nil))
	c, err := control.Open(filepath.Join(l.core.Dir, "control.db"), l.core.Socket(), log)
	if err != nil {
		l.t.Fatal(err)
	}
	address := l.address
	if address == "" {
		address = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		l.t.Fatal(err)
	}
	l.address = listener.Addr().String()
	cert, key := l.ca.Issue(l.t, "localhost", x509.ExtKeyUsageServerAuth, time.Now().Add(time.Hour))
	config, err := serve.Identity{ClientCA: l.ca.PEM, Certificate: cert, Key: key}.TLS()
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { c.Run(ctx) })
	c.WaitReady(ctx)
	wg.Go(func() {
		if err := serve.Serve(ctx, listener, config, c.Handler(), log); err != nil {
			l.t.Error(err)
		}
	})
	l.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		if err := c.Close(); err != nil {
			l.t.Error(err)
		}
	})
}

// restartControl ends control and starts it again.
func (l *lab) restartControl() {
	l.t.Helper()
	l.stop()
	l.client.CloseIdleConnections()
	l.startControl()
}

func ctxOf(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func req[T any](m *T) *connect.Request[T] { return connect.NewRequest(m) }

// content makes some bytes and their digest.
func content(n int) (data []byte, sum string) {
	data = make([]byte, n)
	rand.Read(data)
	s := sha256.Sum256(data)
	return data, hex.EncodeToString(s[:])
}

// upload brings a whole image.
func (l *lab) upload(id string, n int) *ashlarv1.Image {
	l.t.Helper()
	data, sum := content(n)
	l.announce(id, int64(n), sum)
	im, err := l.send("images/"+id, 0, data)
	if err != nil {
		l.t.Fatalf("upload %s: %v", id, err)
	}
	if im.State != ashlarv1.Image_STATE_READY {
		l.t.Fatalf("upload %s: state %v", id, im.State)
	}
	return im
}

func (l *lab) announce(id string, size int64, sum string) *ashlarv1.Image {
	l.t.Helper()
	res, err := l.images.CreateImage(ctxOf(l.t), req(&ashlarv1.CreateImageRequest{ImageId: id, Image: &ashlarv1.Image{SizeBytes: size, Sha256: sum}}))
	if err != nil {
		l.t.Fatalf("create image %s: %v", id, err)
	}
	return res.Msg
}

// send uploads data from offset on in pieces.
func (l *lab) send(name string, offset int64, data []byte) (*ashlarv1.Image, error) {
	stream := l.images.UploadImage(ctxOf(l.t))
	first := true
	for len(data) > 0 {
		n := min(len(data), 100_000)
		m := &ashlarv1.UploadImageRequest{Offset: offset, Piece: &ashlarv1.UploadImageRequest_Data{Data: data[:n]}}
		if first {
			m.Name, first = name, false
		}
		if stream.Send(m) != nil {
			break // the answer says why
		}
		data, offset = data[n:], offset+int64(n)
	}
	res, err := stream.CloseAndReceive()
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

// spec is a machine that can be made once the images `kernel` and `disk` are there.
func spec(id string) *ashlarv1.CreateVirtualMachineRequest {
	return &ashlarv1.CreateVirtualMachineRequest{
		VirtualMachineId: id,
		VirtualMachine: &ashlarv1.VirtualMachine{
			Cpus: 2, MemoryBytes: 128 << 20,
			Boot:              &ashlarv1.Boot{Kernel: "images/kernel", Cmdline: "console=ttyS0"},
			Disks:             []*ashlarv1.Disk{{Image: "images/disk"}, {SizeBytes: 1 << 20}},
			NetworkInterfaces: []*ashlarv1.NetworkInterface{{Network: "default"}},
		},
	}
}

// withMachine uploads images and makes a machine.
func (l *lab) withMachine(id string) *ashlarv1.VirtualMachine {
	l.t.Helper()
	l.upload("kernel", 10_000)
	l.upload("disk", 512*100)
	res, err := l.machines.CreateVirtualMachine(ctxOf(l.t), req(spec(id)))
	if err != nil {
		l.t.Fatalf("create %s: %v", id, err)
	}
	return res.Msg
}

func (l *lab) get(name string) *ashlarv1.VirtualMachine {
	l.t.Helper()
	res, err := l.machines.GetVirtualMachine(ctxOf(l.t), req(&ashlarv1.GetVirtualMachineRequest{Name: name}))
	if err != nil {
		l.t.Fatalf("get %s: %v", name, err)
	}
	return res.Msg
}

// until waits for a state of the machine.
func (l *lab) until(name string, what string, cond func(*ashlarv1.VirtualMachine) bool) *ashlarv1.VirtualMachine {
	l.t.Helper()
	var vm *ashlarv1.VirtualMachine
	for range 1000 {
		if vm = l.get(name); cond(vm) {
			return vm
		}
		time.Sleep(10 * time.Millisecond)
	}
	l.t.Fatalf("%s: not %s: %v", name, what, vm)
	return nil
}

// done waits for the end of an operation.
func (l *lab) done(res *connect.Response[ashlarv1.Operation], err error) *ashlarv1.Operation {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
	return l.wait(res.Msg.Name)
}

func (l *lab) wait(name string) *ashlarv1.Operation {
	l.t.Helper()
	res, err := l.operations.WaitOperation(ctxOf(l.t), req(&ashlarv1.WaitOperationRequest{Name: name}))
	if err != nil {
		l.t.Fatal(err)
	}
	if !res.Msg.Done {
		l.t.Fatalf("operation not done: %v", res.Msg)
	}
	return res.Msg
}

func (l *lab) start(name string) *ashlarv1.Operation {
	l.t.Helper()
	return l.done(l.machines.StartVirtualMachine(ctxOf(l.t), req(&ashlarv1.StartVirtualMachineRequest{Name: name})))
}

func (l *lab) mustStart(name string) {
	l.t.Helper()
	if op := l.start(name); op.Error != nil {
		l.t.Fatalf("start %s: %v", name, op.Error)
	}
}

// wantError checks code, reason and a part of the message, and returns the fields that
// the error names.
func wantError(t *testing.T, err error, code connect.Code, reason, part string) (fields []string) {
	t.Helper()
	var ce *connect.Error
	if !errors.As(err, &ce) {
		t.Fatalf("error = %v, want a %v", err, code)
	}
	if ce.Code() != code || !strings.Contains(ce.Message(), part) {
		t.Errorf("error = %v, want %v with %q", err, code, part)
	}
	got := ""
	for _, d := range ce.Details() {
		m, err := d.Value()
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *errdetails.ErrorInfo:
			got = m.Reason
			if m.Domain != "ashlar" {
				t.Errorf("domain = %q", m.Domain)
			}
		case *errdetails.BadRequest:
			for _, v := range m.FieldViolations {
				fields = append(fields, v.Field)
			}
		}
	}
	if got != reason {
		t.Errorf("ErrorInfo reason = %q, want %q (%v)", got, reason, err)
	}
	return fields
}
