package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/image-build/config"
	"github.com/ashlar-hv/ashlar/initramfs/console"
	"github.com/ashlar-hv/ashlar/initramfs/layout"
	"github.com/ashlar-hv/ashlar/initramfs/step"
)

func TestThrowawayLetsNobodyIn(t *testing.T) {
	id, err := throwaway("host", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair([]byte(id.certificate), []byte(id.key))
	if err != nil {
		t.Fatal(err)
	}
	cas := x509.NewCertPool()
	if !cas.AppendCertsFromPEM([]byte(id.clientCA)) {
		t.Fatal("the client CA is no certificate")
	}
	server := &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: cas, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13}
	// Not even with the host's own certificate.
	for name, own := range map[string][]tls.Certificate{"none": nil, "the host's": {pair}} {
		if err := handshake(t, server, own); err == nil {
			t.Errorf("a client with certificate %s is let in", name)
		}
	}
	if der, _ := pem.Decode([]byte(id.certificate)); fingerprint(der.Bytes) != id.fingerprint || len(id.fingerprint) != 95 {
		t.Errorf("fingerprint %q", id.fingerprint)
	}
}

// handshake returns what the server says to a client with certificates own.
func handshake(t *testing.T, config *tls.Config, own []tls.Certificate) error {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	go io.Copy(io.Discard, tls.Client(a, &tls.Config{InsecureSkipVerify: true, Certificates: own}))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := tls.Server(b, config).HandshakeContext(ctx)
	if ctx.Err() != nil {
		t.Errorf("the handshake hangs: %v", err)
	}
	return err
}

func TestReadDocument(t *testing.T) {
	example, err := os.ReadFile("../../image-build/config/testdata/example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		content []byte
		want    string
	}{
		"good":     {example, ""},
		"missing":  {nil, "has no file ashlar.yaml"},
		"mistakes": {append([]byte("colour: red\nversion: 2\n"), example[strings.Index(string(example), "hostname"):]...), "ashlar.yaml: line 1, column 1: colour"},
		"too long": {[]byte("# " + strings.Repeat("x", 2*config.MaxSize)), "want 65536 at most"},
	} {
		dir := t.TempDir()
		if test.content != nil {
			if err := os.WriteFile(filepath.Join(dir, config.FileName), test.content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		doc, err := readDocument(dir)
		if test.want == "" {
			if err != nil || doc.Hostname != "rack3-unit7.example.com" || identityOf(doc).fingerprint == "" {
				t.Errorf("%s: %v, %v", name, doc, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

func TestParseOffset(t *testing.T) {
	now := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	for line, want := range map[string]time.Duration{"0": 0, "1500000000": 1500 * time.Millisecond, "-7": -7} {
		if got, err := parseOffset(line, now); err != nil || got != want {
			t.Errorf("parseOffset(%q) = %v, %v, want %v", line, got, err, want)
		}
	}
	for _, line := range []string{"", "x", "1.5", "9223372036854775807", "-9223372036854775808", "99999999999999999999"} {
		if got, err := parseOffset(line, now); err == nil {
			t.Errorf("parseOffset(%q) = %v, want an error", line, got)
		}
	}
}

func FuzzParseOffset(f *testing.F) {
	f.Add("0", int64(1800000000))
	f.Add("-1", int64(0))
	f.Fuzz(func(t *testing.T, line string, unix int64) {
		now := time.Unix(unix%4e9, 0)
		if d, err := parseOffset(line, now); err == nil && !sane(now.Add(d)) {
			t.Errorf("parseOffset(%q) leads to %v", line, now.Add(d))
		}
	})
}

func TestSealedFile(t *testing.T) {
	f, err := sealedFile("test", []byte("settings"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := io.ReadAll(f); err != nil || string(b) != "settings" {
		t.Errorf("it holds %q, %v", b, err)
	}
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		t.Error("it can be written")
	}
	if err := f.Truncate(0); err == nil {
		t.Error("it can be cut off")
	}
	seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	if want := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE; err != nil || seals&want != want {
		t.Errorf("seals %#x, %v, want %#x", seals, err, want)
	}
}

func TestListenIsInherited(t *testing.T) {
	f, err := listen(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close() // as control does when it ends
	// The connection waits in the queue of the socket that is still open here.
	c, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", address[strings.LastIndex(address, ":")+1:]), time.Second)
	if err != nil {
		t.Fatalf("clients are refused while control restarts: %v", err)
	}
	c.Close()
}

func TestHostFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ashlar", "host.json")
	info := layout.HostInfo{Hostname: "h", APIPort: 8443, Problems: []string{"A problem."}, Networks: []layout.Network{}}
	for range 2 {
		if err := writeHostFile(file, info); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got layout.HostInfo
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(info, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestEndpoint(t *testing.T) {
	for want, addresses := range map[string][]string{
		"192.0.2.10:8443":     {"192.0.2.10/24", "x"},
		"[2001:db8::10]:8443": {"2001:db8::10/64"},
		"(no address):8443":   nil,
	} {
		if got := endpoint(layout.HostInfo{APIPort: 8443, Addresses: addresses}); got != want {
			t.Errorf("endpoint = %q, want %q", got, want)
		}
	}
}

func TestHelperRefusesOtherNames(t *testing.T) {
	for _, args := range [][]string{{"sh"}, {"dhcp-client"}, {"probe-api", "a", "b"}, {""}} {
		if err := helper(args[0], args[1:]); err == nil {
			t.Errorf("helper %q = nil error", args)
		}
	}
}

// quietMachine is one whose messages are in what it returns, and whose host
// file is in a folder of the test.
func quietMachine(t *testing.T) (*machine, *strings.Builder) {
	t.Helper()
	var said strings.Builder
	m := newMachine()
	m.log = console.New(&said)
	m.hostFile = filepath.Join(t.TempDir(), "host.json")
	return m, &said
}

func TestNetworkThatComesUpLate(t *testing.T) {
	address := netip.MustParsePrefix("192.0.2.7/24")
	for name, late := range map[string]bool{"in time": false, "late": true} {
		m, said := quietMachine(t)
		n := &network{m: m, up: make(chan struct{}), gaveUp: make(chan struct{})}
		m.problem("Another problem.")
		if late {
			close(n.gaveUp)
			m.report(step.Report{Step: "network", Err: errors.New("no interface")})
		}
		m.update(func(h *layout.HostInfo) { h.Addresses = []string{address.String()} })
		n.announce("eth0", address, nil)
		if !closed(n.up) {
			t.Errorf("%s: it is not up", name)
		}
		if got := strings.Contains(said.String(), "eth0 now has 192.0.2.7/24: the API is at 192.0.2.7:8443"); got != late {
			t.Errorf("%s: the address is told: %v, want %v: %s", name, got, late, said)
		}
		if diff := cmp.Diff([]string{"Another problem."}, m.host().Problems); diff != "" {
			t.Errorf("%s: problems (-want +got):\n%s", name, diff)
		}
		said.Reset()
		n.announce("eth0", address, []string{address.String()}) // renewed
		if said.Len() > 0 {
			t.Errorf("%s: a renewal is told: %s", name, said)
		}
		n.announce("eth0", address, []string{"192.0.2.9/24"})
		if !strings.Contains(said.String(), "now has") {
			t.Errorf("%s: another address is not told: %s", name, said)
		}
	}
}

func TestConfigurationInTime(t *testing.T) {
	stuck := make(chan struct{})
	defer close(stuck)
	want := config.Default()
	for name, test := range map[string]struct {
		read func() (*config.Document, error)
		want string
	}{
		"good":   {func() (*config.Document, error) { return want, nil }, ""},
		"error":  {func() (*config.Document, error) { return nil, errors.New("broken") }, "broken"},
		"panic":  {func() (*config.Document, error) { panic("ouch") }, "program error: ouch"},
		"silent": {func() (*config.Document, error) { <-stuck; return want, nil }, "the stick has not answered for 50ms"},
	} {
		doc, err := inTime(t.Context(), 50*time.Millisecond, test.read)
		if test.want == "" {
			if doc != want || err != nil {
				t.Errorf("%s: %v, %v", name, doc, err)
			}
		} else if doc != nil || err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, %v, want %q", name, doc, err, test.want)
		}
	}
	for _, s := range newMachine().steps() {
		if s.Name == "configuration" && s.Deadline <= readLimit {
			t.Errorf("the step ends after %v, before it gives up the stick", s.Deadline)
		}
	}
}

func TestRescueCommandsAreRemoved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bbin")
	if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bb", "sub/gosh"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m, said := quietMachine(t)
	m.rescueOrNot(dir)
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the commands are still there: %v", err)
	}
	if !strings.Contains(said.String(), "rescue: not asked for") {
		t.Errorf("said %q", said)
	}
}
