// Package hosttest is a host for tests of ashlarctl: ashlar.v1 served over
// gRPC and mutual TLS 1.3 with the generated handlers, from memory. Guests are
// a few bytes of console output; everything on the wire is real.
package hosttest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1/ashlarv1connect"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/contexts"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/pki"
)

// Time is when everything on the host happened.
var Time = time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)

// A Host is a server.
type Host struct {
	Addr string
	Dir  contexts.Dir // with a context `test` for it

	t    testing.TB
	conf *tls.Config
	srv  *http.Server
	done chan struct{}

	mu      sync.Mutex
	images  map[string]*ashlarv1.Image
	content map[string][]byte
	vms     map[string]*Guest
	ops     map[string]*ashlarv1.Operation
	order   []string          // operations by age
	seen    map[string]string // request_id to operation or virtual machine
	changed chan struct{}     // closed at every change
	// BreakUpload ends an upload stream after so many bytes, once; 0 never.
	breakUpload int64
	// received counts what uploads have brought.
	data, zeroes int64
	// hugepages are the pages of 2 MiB on each node.
	hugepages [2]int64
}

// A Guest is a virtual machine and what it does.
type Guest struct {
	vm     *ashlarv1.VirtualMachine
	output []byte
	input  []byte
}

// Start serves until the test ends, and makes a context for it.
func Start(t testing.TB) *Host {
	t.Helper()
	ca, err := pki.NewAuthority("test", time.Now())
	check(t, err)
	client, err := ca.Client("admin", time.Now())
	check(t, err)
	host, err := ca.Host([]string{"host.test"}, time.Now())
	check(t, err)
	cert, err := tls.X509KeyPair(host.Certificate, host.Key)
	check(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.Certificate)
	h := &Host{
		t: t, Dir: contexts.Dir(t.TempDir()),
		conf: &tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert},
			ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert, NextProtos: []string{"h2"},
		},
		images: map[string]*ashlarv1.Image{}, content: map[string][]byte{}, vms: map[string]*Guest{},
		ops: map[string]*ashlarv1.Operation{}, seen: map[string]string{}, changed: make(chan struct{}),
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	h.Addr = l.Addr().String()
	check(t, h.Dir.Update(func(f *contexts.File) error {
		f.Put(contexts.Context{
			Name: "test", Address: h.Addr, ServerName: "host.test",
			CA: string(ca.Certificate), Certificate: string(client.Certificate), Key: string(client.Key),
		})
		f.Current = "test"
		return nil
	}))
	h.serve(l)
	t.Cleanup(h.Stop)
	return h
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serve answers on l.
func (h *Host) serve(l net.Listener) {
	mux := http.NewServeMux()
	mux.Handle(ashlarv1connect.NewHostServiceHandler(h))
	mux.Handle(ashlarv1connect.NewImageServiceHandler(h))
	mux.Handle(ashlarv1connect.NewVirtualMachineServiceHandler(h))
	mux.Handle(ashlarv1connect.NewOperationServiceHandler(h))
	mux.Handle(ashlarv1connect.NewWatchServiceHandler(h))
	mux.Handle(ashlarv1connect.NewDeviceServiceHandler(h))
	mux.Handle(ashlarv1connect.NewHugepageServiceHandler(h))
	mux.Handle(ashlarv1connect.NewLinkServiceHandler(h))
	h.srv = &http.Server{Handler: mux, TLSConfig: h.conf, ErrorLog: log.New(io.Discard, "", 0)}
	h.done = make(chan struct{})
	go func(srv *http.Server, done chan struct{}) {
		defer close(done)
		_ = srv.ServeTLS(l, "", "")
	}(h.srv, h.done)
}

// Stop ends the server and breaks every connection, as SIGKILL would.
func (h *Host) Stop() {
	_ = h.srv.Close()
	<-h.done
}

// Restart serves again on the same address.
func (h *Host) Restart() {
	l, err := net.Listen("tcp", h.Addr)
	if err != nil {
		h.t.Errorf("restart: %v", err)
		return
	}
	h.serve(l)
}

// BreakUpload breaks the connection of an upload once so many bytes are there.
func (h *Host) BreakUpload(after int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.breakUpload = after
}

// Received is how many bytes of data and of zeroes uploads have brought.
func (h *Host) Received() (data, zeroes int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.data, h.zeroes
}

// Content is that of an image.
func (h *Host) Content(id string) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.content["images/"+id]
}

// AddImage puts an image there.
func (h *Host) AddImage(id string, size int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.images["images/"+id] = &ashlarv1.Image{
		Name: "images/" + id, Uid: fmt.Sprintf("%032x", len(h.images)+1), SizeBytes: size, UploadedBytes: size,
		Sha256: fmt.Sprintf("%064x", size), State: ashlarv1.Image_STATE_READY, CreateTime: timestamppb.New(Time), Etag: "1",
	}
}

// touch tells watchers; h.mu is held.
func (h *Host) touch() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// GetHost describes the host.
func (h *Host) GetHost(context.Context, *connect.Request[ashlarv1.GetHostRequest]) (*connect.Response[ashlarv1.Host], error) {
	return connect.NewResponse(&ashlarv1.Host{
		Name: "host", Hostname: "host.test", Version: "1", KernelVersion: "6.12.1", BootTime: timestamppb.New(Time),
		BootDuration: durationpb.New(3200 * time.Millisecond), CpuModel: "Test CPU", Cpus: 4,
		MemoryBytes: 8 << 30, MemoryAvailableBytes: 7 << 30, PoolDevice: "/dev/nvme0n1", PoolBytes: 100 << 30, PoolFreeBytes: 90 << 30,
		Addresses: []string{"192.0.2.10/24"}, Kvm: true, Iommu: true, Networks: []string{"default"},
		Problems: []string{"no time server answered"},
	}), nil
}

// notFound is the answer for what is not there.
func notFound(name string) error {
	return connect.NewError(connect.CodeNotFound, fmt.Errorf("%s does not exist", name))
}

// violation is the answer to a wrong field.
func violation(field, text string) error {
	e := connect.NewError(connect.CodeInvalidArgument, errors.New(field+": "+text))
	d, err := connect.NewErrorDetail(&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: field, Description: text}}})
	if err == nil {
		e.AddDetail(d)
	}
	return e
}

// TempFile writes content to a file of the test.
func TempFile(t testing.TB, name string, content []byte) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	check(t, os.WriteFile(p, content, 0o600))
	return p
}
