package serve

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ashlar-hv/ashlar/mgmt/control/audit"
	"github.com/ashlar-hv/ashlar/mgmt/control/pkitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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

// door serves handler and returns its address and log.
func door(t *testing.T, ca *pkitest.CA, handler http.Handler) (string, *logBuffer) {
	t.Helper()
	cert, key := ca.Issue(t, "localhost", x509.ExtKeyUsageServerAuth, time.Now().Add(time.Hour))
	config, err := Identity{ClientCA: ca.PEM, Certificate: cert, Key: key}.TLS()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := &logBuffer{}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- Serve(ctx, l, config, handler, slog.New(slog.NewTextHandler(log, nil))) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String(), log
}

func whoami(w http.ResponseWriter, r *http.Request) {
	c := audit.From(r.Context())
	io.WriteString(w, c.Name+" over "+r.Proto)
}

// ask makes one request.
func ask(t *testing.T, address string, config *tls.Config, change func(*http.Request)) (string, int, error) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(r)
	}
	res, err := transport.RoundTrip(r)
	if err != nil {
		return "", 0, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return string(b), res.StatusCode, err
}

// alert says how a connection on which the client speaks first ends: with TLS 1.3 the
// client believes that the handshake went well until it reads.
func alert(address string, config *tls.Config) error {
	c, err := tls.Dial("tcp", address, config)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 1))
	return err
}

func TestWhoComesIn(t *testing.T) {
	ca, other := pkitest.NewCA(t, "operator"), pkitest.NewCA(t, "operator")
	address, log := door(t, ca, http.HandlerFunc(whoami))
	with := func(usage x509.ExtKeyUsage, until time.Duration) *tls.Config {
		cert, key := ca.Issue(t, "admin", usage, time.Now().Add(until))
		pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
		if err != nil {
			t.Fatal(err)
		}
		return &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{pair}}
	}
	old := ca.Client(t, ca)
	old.MaxVersion = tls.VersionTLS12
	for name, config := range map[string]*tls.Config{
		"no certificate":                ca.Client(t, nil),
		"a certificate of another CA":   ca.Client(t, other),
		"TLS 1.2":                       old,
		"an expired certificate":        with(x509.ExtKeyUsageClientAuth, -time.Hour),
		"a certificate of a server":     with(x509.ExtKeyUsageServerAuth, time.Hour),
		"a certificate for code signed": with(x509.ExtKeyUsageCodeSigning, time.Hour),
	} {
		if got, _, err := ask(t, address, config, nil); err == nil {
			t.Errorf("%s: came in: %q", name, got)
		}
		if err := alert(address, config); err == nil || !strings.Contains(err.Error(), "tls:") {
			t.Errorf("%s: failed with %v, want a TLS alert that says why", name, err)
		}
	}
	if got, _, err := ask(t, address, ca.Client(t, ca), nil); err != nil || got != "admin over HTTP/2.0" {
		t.Errorf("the operator: %q, %v", got, err)
	}
	if !strings.Contains(log.String(), "connection refused") {
		t.Error("nothing in the log")
	}
}

func TestPlainTCP(t *testing.T) {
	ca := pkitest.NewCA(t, "operator")
	reached := false
	address, _ := door(t, ca, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	for _, hello := range []string{"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", strings.Repeat("\x00", 100)} {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		io.WriteString(c, hello)
		b, err := io.ReadAll(c)
		if errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%q: left waiting", hello)
		}
		if strings.Contains(string(b), "200 OK") {
			t.Errorf("%q: answered %q", hello, b)
		}
		c.Close()
	}
	if reached {
		t.Error("a handler was reached")
	}
}

func TestHeaderLimit(t *testing.T) {
	ca := pkitest.NewCA(t, "operator")
	address, _ := door(t, ca, http.HandlerFunc(whoami))
	_, code, err := ask(t, address, ca.Client(t, ca), func(r *http.Request) {
		r.Header.Set("X-Large", strings.Repeat("x", 64<<10))
	})
	if err == nil && code != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("64 KiB of header: status %d", code)
	}
}

func TestIdentity(t *testing.T) {
	ca := pkitest.NewCA(t, "operator")
	cert, key := ca.Issue(t, "localhost", x509.ExtKeyUsageServerAuth, time.Now().Add(time.Hour))
	for name, id := range map[string]Identity{
		"none":    {Certificate: cert, Key: key},
		"garbage": {ClientCA: "garbage", Certificate: cert, Key: key},
	} {
		if _, err := id.TLS(); !errors.Is(err, ErrNoCA) {
			t.Errorf("%s: %v, want ErrNoCA", name, err)
		}
	}
	if _, err := (Identity{ClientCA: ca.PEM, Certificate: cert}).TLS(); err == nil || errors.Is(err, ErrNoCA) {
		t.Errorf("no key: %v", err)
	}
}

func TestBounded(t *testing.T) {
	b := newBounded(nil, 3, 2)
	for _, c := range []struct {
		peer string
		want bool
	}{{"a", true}, {"a", true}, {"a", false}, {"b", true}, {"c", false}} {
		if got := b.enter(c.peer); got != c.want {
			t.Errorf("enter(%s) = %v, want %v", c.peer, got, c.want)
		}
	}
	b.leave("a")
	if !b.enter("c") {
		t.Error("no place after one was left")
	}
}

// Whoever waits for the connections waits for those that nobody has closed yet, too.
func TestBoundedWait(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	b := newBounded(inner, 1, 1)
	peer, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	conn, err := b.Accept()
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		b.open.Wait()
		close(gone)
	}()
	select {
	case <-gone:
		t.Error("an open connection was not waited for")
	case <-time.After(100 * time.Millisecond):
	}
	conn.Close()
	peer.Close()
	select {
	case <-gone:
	case <-time.After(30 * time.Second):
		t.Error("a closed connection is waited for still")
	}
}

func TestThrottle(t *testing.T) {
	var out logBuffer
	th := newThrottle(slog.New(slog.NewTextHandler(&out, nil)))
	now := time.Now()
	th.now = func() time.Time { return now }
	for range 1000 {
		th.Write([]byte("http: TLS handshake error from 192.0.2.1:1: " + strings.Repeat("x", 1000) + "\n"))
	}
	if n := strings.Count(out.String(), "\n"); n != throttleBurst {
		t.Errorf("%d lines, want %d", n, throttleBurst)
	}
	now = now.Add(throttleEvery)
	th.Write([]byte("again\n"))
	if !strings.Contains(out.String(), "more_not_shown=995") {
		t.Errorf("what was dropped is not told: %s", out.String())
	}
	for line := range strings.Lines(out.String()) {
		if len(line) > 400 {
			t.Errorf("line of %d bytes", len(line))
		}
	}
}
