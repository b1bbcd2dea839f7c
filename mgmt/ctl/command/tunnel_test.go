package command

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// A notes is standard error that is looked into while the command runs.
type notes struct{ said chan string }

func (n notes) Write(p []byte) (int, error) {
	n.said <- string(p)
	return len(p), nil
}

// TestConnect connects to ports of a guest by the real control domain.
func TestConnect(t *testing.T) {
	d := newDomain(t)
	d.core.Listen(7, func(c *net.UnixConn) {
		defer c.Close()
		_, _ = io.Copy(c, c)
	})
	d.core.Listen(8, func(c *net.UnixConn) {
		_, _ = c.Write([]byte("bye"))
		c.Close()
	})
	d.ok("image", "upload", d.file("kernel", []byte("kernel")))
	d.ok("vm", "create", "demo", "--kernel", "kernel", "--vsock", "--start")
	d.ok("vm", "create", "plain", "--kernel", "kernel", "--start")
	if out := d.ok("vm", "get", "demo"); !regexp.MustCompile(`Vsock: +CID 4711\n`).MatchString(out) {
		t.Errorf("vm get:\n%s", out)
	}
	if out := d.ok("vm", "get", "plain"); strings.Contains(out, "Vsock") {
		t.Errorf("vm get:\n%s", out)
	}
	d.fails(6, "connect to port 9 of demo: Nobody listens", "vm", "connect", "demo", "9")
	d.fails(6, "plain has no socket device", "vm", "connect", "plain", "7")
	d.fails(4, "does not exist", "vm", "connect", "nosuch", "7")
	d.fails(4, "does not exist", "vm", "forward", "nosuch", "0:7")
	for _, port := range []string{"0", "4294967295", "-1", "ssh", ""} {
		d.fails(2, "want a number from 1 to 4294967294", "vm", "connect", "demo", "--", port)
	}
	for _, pair := range []string{"7", "65536:7", "a:7", "0:0", ":"} {
		d.fails(2, "want", "vm", "forward", "demo", pair)
	}

	want := bytes.Repeat([]byte("there and back"), 100_000)
	in, err := os.Open(d.file("request", want))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	null := d.in
	d.in = in
	if out := d.ok("vm", "connect", "demo", "7"); out != string(want) {
		t.Errorf("%d bytes came back, want %d", len(out), len(want))
	}
	// The guest's end is the command's, also where there may be more to say.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	d.in = r
	if out := d.ok("vm", "connect", "demo", "8"); out != "bye" {
		t.Errorf("vm connect: %q", out)
	}
	d.in = null
}

func TestForward(t *testing.T) {
	d := newDomain(t)
	d.core.Listen(7, func(c *net.UnixConn) {
		defer c.Close()
		_, _ = io.Copy(c, c)
	})
	d.ok("image", "upload", d.file("kernel", []byte("kernel")))
	d.ok("vm", "create", "demo", "--kernel", "kernel", "--vsock", "--start")
	ctx, cancel := context.WithCancelCause(t.Context())
	said, ended := make(chan string, 10), make(chan int, 1)
	go func() {
		ended <- Run(ctx, []string{"vm", "forward", "demo", "0:7", "0:9"}, IO{
			In: d.in, Out: io.Discard, Err: notes{said}, Getenv: func(k string) string { return d.env[k] }, Version: "1.0-test",
		})
	}()
	var ports []string
	for _, port := range []string{"7", "9"} {
		m := regexp.MustCompile(`^Forwarding (127\.0\.0\.1:\d+) to port ` + port + ` of demo;`).FindStringSubmatch(<-said)
		if m == nil {
			t.Fatalf("not said where port %s is", port)
		}
		ports = append(ports, m[1])
	}
	var conns []*net.TCPConn
	for range 3 {
		c, err := net.Dial("tcp", ports[0])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c.(*net.TCPConn))
	}
	want := bytes.Repeat([]byte("x and y"), 50_000)
	for _, c := range conns {
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		go func() {
			_, _ = c.Write(want)
			_ = c.CloseWrite()
		}()
		if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes came back, %v, want %d", len(got), err, len(want))
		}
	}
	c, err := net.Dial("tcp", ports[1])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := io.ReadAll(c); len(got) > 0 {
		t.Errorf("from a port where nobody listens came %q, %v", got, err)
	}
	if s := <-said; !strings.Contains(s, "port 9 of demo: Nobody listens") {
		t.Errorf("said %q", s)
	}
	cancel(os.ErrClosed)
	if code := <-ended; code != 130 {
		t.Errorf("interrupted with exit code %d, want 130", code)
	}
}

// TestConnectInterrupted ends a connection that is open in both directions.
func TestConnectInterrupted(t *testing.T) {
	r := newRun(t)
	r.host.AddImage("kernel", 1)
	if code, _, errs := r.do(t.Context(), "vm", "create", "demo", "--kernel", "kernel", "--vsock", "--start"); code != 0 {
		t.Fatal(errs)
	}
	in, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer w.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	said, ended := make(chan string, 10), make(chan int, 1)
	go func() {
		ended <- Run(ctx, []string{"vm", "connect", "demo", "7"}, IO{
			In: in, Out: notes{said}, Err: io.Discard, Getenv: func(k string) string { return r.env[k] }, Version: "1.0-test",
		})
	}()
	if _, err := w.Write([]byte("echo")); err != nil {
		t.Fatal(err)
	}
	for got := ""; got != "echo"; got += <-said {
	}
	cancel(os.ErrClosed)
	if code := <-ended; code != 130 {
		t.Errorf("interrupted with exit code %d, want 130", code)
	}
}
