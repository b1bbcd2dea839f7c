package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/client"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/pki"
)

func TestHostBootsFromTheStick(t *testing.T) {
	h := sharedHost(t)
	if out := h.shell(t, "ls /sys/firmware/efi"); !strings.Contains(out, "runtime") && !strings.Contains(out, "fw_platform_size") {
		t.Errorf("ls /sys/firmware/efi says %q: not booted by UEFI", out)
	}
	r, err := h.Hosts.GetHost(within(t, time.Minute), connect.NewRequest(&v1.GetHostRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	got := r.Msg
	if got.Hostname != "lab" || !got.Kvm || !got.Iommu || got.PoolBytes < 10<<30 || got.Cpus < 1 || len(got.Addresses) == 0 || got.Version == "" {
		t.Errorf("host is %v, want name lab, KVM, an IOMMU, a pool of over 10 GiB, CPUs, an address, a version", got)
	}
	// The tests' host is the rescue variant, and says so.
	if len(got.Problems) != 1 || !strings.Contains(got.Problems[0], "root shell") {
		t.Errorf("host reports the problems %q, want the one about its open root shell", got.Problems)
	}
	if out := h.mustCtl(t, "host", "get", "-o", "json"); !json.Valid([]byte(out)) || !strings.Contains(out, `"lab"`) {
		t.Errorf("ashlarctl host get -o json = %q, want JSON that names lab", out)
	}
	if out := h.shell(t, "ls /sys/class/iommu"); strings.TrimSpace(out) == "" {
		t.Error("no IOMMU in /sys/class/iommu")
	}
}

// refusal tries a call with a TLS configuration and returns how it failed. It
// writes and reads by itself: in TLS 1.3 a client learns of a refused
// certificate only when it reads.
func (h *host) refusal(t testing.TB, conf *tls.Config) error {
	t.Helper()
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 20 * time.Second}, "tcp", fmt.Sprintf("127.0.0.1:%d", h.Port), conf)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	const call = "POST /ashlar.v1.HostService/GetHost HTTP/1.1\r\nHost: lab\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
	if _, err := io.WriteString(c, call); err != nil {
		return err
	}
	b := make([]byte, 4096)
	n, err := c.Read(b)
	if err == nil && !bytes.Contains(b[:n], []byte("200 OK")) {
		return fmt.Errorf("answered %q", b[:n])
	}
	return err
}

func TestAPIRefusesStrangers(t *testing.T) {
	h := sharedHost(t)
	o := h.clientOptions(t)
	good, err := client.TLSConfig(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.refusal(t, good); err != nil {
		t.Fatalf("with the operator's certificate: %v", err)
	}
	other, err := pki.NewAuthority("another operator", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := other.Client("admin", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*tls.Config){
		"no certificate":              func(c *tls.Config) { c.Certificates = nil },
		"a certificate of another CA": func(c *tls.Config) { c.Certificates = []tls.Certificate{stranger} },
		"TLS 1.2":                     func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
	} {
		t.Run(name, func(t *testing.T) {
			c := good.Clone()
			change(c)
			if err := h.refusal(t, c); err == nil {
				t.Errorf("a call with %s was answered", name)
			} else if !strings.Contains(err.Error(), "tls:") {
				t.Errorf("a call with %s failed with %v, want a TLS alert", name, err)
			}
		})
	}
	t.Run("plain TCP", func(t *testing.T) {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", h.Port))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprint(c, "POST /ashlar.v1.HostService/GetHost HTTP/1.1\r\nHost: lab\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
		b := make([]byte, 4096)
		n, _ := c.Read(b)
		if bytes.Contains(b[:n], []byte("200 OK")) || bytes.Contains(b[:n], []byte("hostname")) {
			t.Errorf("a plain call was answered: %q", b[:n])
		}
	})
}

func TestStockGRPCClient(t *testing.T) {
	h := sharedHost(t)
	conf, err := client.TLSConfig(h.clientOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(fmt.Sprintf("127.0.0.1:%d", h.Port), grpc.WithTransportCredentials(credentials.NewTLS(conf)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var got v1.Host
	if err := conn.Invoke(within(t, time.Minute), "/ashlar.v1.HostService/GetHost", &v1.GetHostRequest{}, &got); err != nil {
		t.Fatal(err)
	}
	if got.Hostname != "lab" {
		t.Errorf("GetHost says %q, want lab", got.Hostname)
	}
}

func TestImages(t *testing.T) {
	h := sharedHost(t)
	content := bytes.Repeat([]byte("ashlar"), 300000)
	sum := sha256.Sum256(content)
	t.Run("damaged on the way", func(t *testing.T) {
		ctx := within(t, time.Minute)
		if _, err := h.Images.CreateImage(ctx, connect.NewRequest(&v1.CreateImageRequest{
			ImageId: "damaged", Image: &v1.Image{SizeBytes: int64(len(content)), Sha256: hex.EncodeToString(sum[:])},
		})); err != nil {
			t.Fatal(err)
		}
		bad := bytes.Clone(content)
		bad[len(bad)/2] ^= 1
		_, err := h.send(ctx, "images/damaged", bad, 0)
		if connect.CodeOf(err) != connect.CodeDataLoss {
			t.Fatalf("upload of a damaged image ended with %v, want DATA_LOSS", err)
		}
		if _, err := h.Images.GetImage(ctx, connect.NewRequest(&v1.GetImageRequest{Name: "images/damaged"})); connect.CodeOf(err) != connect.CodeNotFound {
			t.Errorf("get after it: %v, want NOT_FOUND", err)
		}
	})
	t.Run("ashlarctl", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "content")
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second finds it there
			h.mustCtl(t, "image", "upload", path, "--name", "by-hand")
		}
		if out := h.mustCtl(t, "image", "list"); !strings.Contains(out, "by-hand") {
			t.Errorf("image list does not show by-hand:\n%s", out)
		}
		h.mustCtl(t, "image", "delete", "by-hand")
		if out, err := h.ctl("image", "delete", "by-hand"); err == nil || !strings.Contains(out, "by-hand") {
			t.Errorf("a second delete says %q (%v), want an error that names by-hand", out, err)
		}
	})
}

func TestCreateNamesEveryFault(t *testing.T) {
	h := sharedHost(t)
	_, err := h.VirtualMachines.CreateVirtualMachine(within(t, time.Minute), connect.NewRequest(&v1.CreateVirtualMachineRequest{
		VirtualMachineId: "Not A Name",
		VirtualMachine: &v1.VirtualMachine{
			Cpus: 129, MemoryBytes: 4097, Boot: &v1.Boot{Kernel: "images/missing", Cmdline: strings.Repeat("x", 5000)},
			Disks:             []*v1.Disk{{SizeBytes: 5}},
			NetworkInterfaces: []*v1.NetworkInterface{{Network: "nowhere"}},
			Processor:         &v1.Processor{Model: "486"},
		},
	}))
	var ce *connect.Error
	if !errors.As(err, &ce) || ce.Code() != connect.CodeInvalidArgument {
		t.Fatalf("got %v, want INVALID_ARGUMENT", err)
	}
	named := map[string]bool{}
	for _, d := range ce.Details() {
		m, err := d.Value()
		if err != nil {
			t.Fatal(err)
		}
		if b, ok := m.(*errdetails.BadRequest); ok {
			for _, v := range b.FieldViolations {
				named[v.Field] = true
			}
		}
	}
	for _, want := range []string{"virtual_machine_id", "virtual_machine.cpus", "virtual_machine.memory_bytes", "virtual_machine.boot.kernel",
		"virtual_machine.boot.cmdline", "virtual_machine.disks[0].size_bytes", "virtual_machine.network_interfaces[0].network",
		"virtual_machine.processor.model"} {
		if !named[want] {
			t.Errorf("no violation names %s: %v", want, named)
		}
	}
}

func TestWatchShowsAGuestsLife(t *testing.T) {
	h := sharedHost(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := h.Watch.Watch(ctx, connect.NewRequest(&v1.WatchRequest{Collections: []string{"virtualMachines"}}))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	synced := false
	for !synced && s.Receive() {
		synced = s.Msg().Synced
	}
	h.create(t, "watched", testVM(""))
	h.boot(t, "watched")
	h.remove(t, "watched")
	seen := map[string]bool{}
	for !seen["deleted"] && s.Receive() {
		m := s.Msg()
		if vm := m.GetVirtualMachine(); vm != nil && vm.Name == "virtualMachines/watched" {
			seen[vm.State.String()] = true
			if m.Kind == v1.WatchResponse_KIND_DELETED {
				seen["deleted"] = true
			}
		}
	}
	if !seen["STATE_STOPPED"] || !seen["STATE_RUNNING"] || !seen["deleted"] {
		t.Errorf("watch showed %v (%v), want stopped, running, deleted", seen, s.Err())
	}
}
