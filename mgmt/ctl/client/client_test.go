package client_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/client"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/fault"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/hosttest"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/pki"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// options reach h.
func options(t *testing.T, h *hosttest.Host) client.Options {
	t.Helper()
	f, err := h.Dir.Load()
	if err != nil {
		t.Fatal(err)
	}
	c, err := f.Lookup("test")
	if err != nil {
		t.Fatal(err)
	}
	return client.Options{
		Address: c.Address, ServerName: c.ServerName, CA: []byte(c.CA), Certificate: []byte(c.Certificate), Key: []byte(c.Key), UserAgent: "test",
	}
}

// get calls GetHost.
func get(t *testing.T, o client.Options) error {
	t.Helper()
	h, err := client.New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err = h.Hosts.GetHost(ctx, connect.NewRequest(&ashlarv1.GetHostRequest{}))
	return err
}

func TestMutualTLS(t *testing.T) {
	h := hosttest.Start(t)
	good := options(t, h)
	other, err := pki.NewAuthority("other", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := other.Client("admin", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(*client.Options)
		exit   int
		text   string
	}{
		{"good", func(*client.Options) {}, fault.OK, ""},
		{"another CA's host", func(o *client.Options) { o.CA = other.Certificate }, fault.Denied, "not issued by this context's CA"},
		{"another CA's client", func(o *client.Options) { o.Certificate, o.Key = stranger.Certificate, stranger.Key }, fault.Denied, "did not accept this context's certificate"},
		{"another name", func(o *client.Options) { o.ServerName = "other.test" }, fault.Denied, "for another name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := good
			o.Retry = time.Minute // what is denied is not tried again
			c.change(&o)
			err := get(t, o)
			if got := fault.ExitCode(err); got != c.exit {
				t.Errorf("ExitCode(%v) = %d, want %d", err, got, c.exit)
			}
			if err != nil && !strings.Contains(fault.Sentence(err), c.text) {
				t.Errorf("Sentence(%v) = %q, want it to have %q", err, fault.Sentence(err), c.text)
			}
		})
	}
}

func TestNoTLS(t *testing.T) {
	h := hosttest.Start(t)
	o := options(t, h)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			c.Close()
		}
	}()
	o.Address = l.Addr().String()
	err = get(t, o)
	l.Close()
	<-done
	if fault.ExitCode(err) != fault.Denied || !strings.Contains(fault.Sentence(err), "does not speak TLS") {
		t.Errorf("error = %v: exit code %d, sentence %q", err, fault.ExitCode(err), fault.Sentence(err))
	}
}

func TestRetryUntilUp(t *testing.T) {
	h := hosttest.Start(t)
	o := options(t, h)
	h.Stop()
	if err := get(t, o); fault.ExitCode(err) != fault.Unreachable {
		t.Errorf("error = %v, want exit code %d", err, fault.Unreachable)
	}
	o.Retry = 20 * time.Second
	restart := time.AfterFunc(300*time.Millisecond, h.Restart)
	defer restart.Stop()
	if err := get(t, o); err != nil {
		t.Errorf("error with retries = %v", err)
	}
}

func TestRetryEnds(t *testing.T) {
	h := hosttest.Start(t)
	o := options(t, h)
	h.Stop()
	defer h.Restart()
	o.Retry = 300 * time.Millisecond
	start := time.Now()
	if err := get(t, o); fault.ExitCode(err) != fault.Unreachable {
		t.Errorf("error = %v, want exit code %d", err, fault.Unreachable)
	}
	if d := time.Since(start); d < o.Retry {
		t.Errorf("gave up after %v, want at least %v", d, o.Retry)
	}
}

func TestBackoffEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var b client.Backoff
	if err := b.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait() = %v, want context.Canceled", err)
	}
}

func TestNewRefuses(t *testing.T) {
	h := hosttest.Start(t)
	for name, change := range map[string]func(*client.Options){
		"address without port": func(o *client.Options) { o.Address = "host" },
		"no CA":                func(o *client.Options) { o.CA = nil },
		"no key":               func(o *client.Options) { o.Key = nil },
	} {
		o := options(t, h)
		change(&o)
		if _, err := client.New(o); err == nil {
			t.Errorf("%s: New() succeeds", name)
		}
	}
}
