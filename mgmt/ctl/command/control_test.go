package command

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/image-build/config"
	"github.com/ashlar-hv/ashlar/image-build/configure"
	"github.com/ashlar-hv/ashlar/image-build/disk"
	"github.com/ashlar-hv/ashlar/mgmt/control"
	"github.com/ashlar-hv/ashlar/mgmt/control/coretest"
	"github.com/ashlar-hv/ashlar/mgmt/control/serve"
)

// A domain is the real control domain, on a core of tests, with a configuration
// document for an identity.
type domain struct {
	*run
	t     *testing.T
	doc   *config.Document
	core  *coretest.Core
	store string
	addr  string
	stop  func()
}

// newDomain makes an installation with `config init` and serves it.
func newDomain(t *testing.T) *domain {
	t.Helper()
	tmp := t.TempDir()
	d := &domain{t: t, core: coretest.New(t.TempDir()), store: filepath.Join(tmp, "control.db")}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { null.Close() })
	d.run = &run{tmp: tmp, in: null, env: map[string]string{"ASHLAR_CONFIG_DIR": filepath.Join(tmp, "config")}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.addr = l.Addr().String()
	l.Close()
	d.ok("config", "init", "--host-name", "lab", "--address", d.addr, "--out", filepath.Join(tmp, "ashlar.yaml"))
	b, err := os.ReadFile(filepath.Join(tmp, "ashlar.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if d.doc, err = config.Parse(b); err != nil {
		t.Fatal(err)
	}
	if err := d.core.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.core.Close)
	d.start()
	t.Cleanup(func() { d.stop() })
	return d
}

// start serves with the store of the control domain before.
func (d *domain) start() {
	d.t.Helper()
	log := slog.New(slog.DiscardHandler)
	c, err := control.Open(d.store, d.core.Socket(), log)
	if err != nil {
		d.t.Fatal(err)
	}
	conf, err := serve.Identity{ClientCA: d.doc.API.CA, Certificate: d.doc.API.Certificate, Key: d.doc.API.Key}.TLS()
	if err != nil {
		d.t.Fatal(err)
	}
	l, err := net.Listen("tcp", d.addr)
	if err != nil {
		d.t.Fatal(err)
	}
	d.stop = d.serve(c, l, conf, log)
}

func (d *domain) serve(c *control.Control, l net.Listener, conf *tls.Config, log *slog.Logger) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { c.Run(ctx) })
	c.WaitReady(ctx)
	wg.Go(func() {
		if err := serve.Serve(ctx, l, conf, c.Handler(), log); err != nil {
			d.t.Error(err)
		}
	})
	return sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		if err := c.Close(); err != nil {
			d.t.Error(err)
		}
	})
}

// code runs a command and returns the exit code and all output.
func (d *domain) code(args ...string) (int, string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
	defer cancel()
	code, out, errs := d.do(ctx, args...)
	return code, out + errs
}

// ok runs a command that must succeed.
func (d *domain) ok(args ...string) string {
	d.t.Helper()
	code, out := d.code(args...)
	if code != 0 {
		d.t.Fatalf("ashlarctl %s = %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// fails runs a command that must end with that code and say this.
func (d *domain) fails(want int, text string, args ...string) {
	d.t.Helper()
	if code, out := d.code(args...); code != want || !regexp.MustCompile(text).MatchString(out) {
		d.t.Errorf("ashlarctl %s = %d, want %d and %q\n%s", strings.Join(args, " "), code, want, text, out)
	}
}

// file writes a file to upload.
func (d *domain) file(name string, content []byte) string {
	d.t.Helper()
	p := filepath.Join(d.tmp, name)
	if err := os.WriteFile(p, content, 0o600); err != nil {
		d.t.Fatal(err)
	}
	return p
}

// uid is that of a guest.
func (d *domain) uid(name string) string {
	d.t.Helper()
	var vm struct{ UID string }
	if err := json.Unmarshal([]byte(d.ok("vm", "get", name, "-o", "json")), &vm); err != nil {
		d.t.Fatal(err)
	}
	return vm.UID
}

// TestAgainstControl is the life of a guest, as an operator orders it from the
// real control domain.
func TestAgainstControl(t *testing.T) {
	d := newDomain(t)
	d.ok("image", "upload", d.file("kernel", bytes.Repeat([]byte("kernel"), 500_000)))
	d.ok("image", "upload", d.file("debian.img", append(make([]byte, 4<<20), make([]byte, 512)...)))
	if out := d.ok("image", "upload", filepath.Join(d.tmp, "kernel")); !strings.Contains(out, "already") {
		t.Errorf("second upload: %s", out)
	}
	d.fails(6, "another content", "image", "upload", d.file("other", []byte("x")), "--name", "kernel")
	d.fails(2, `--name \(image_id\)`, "image", "upload", d.file("other", []byte("x")), "--name", "Kernel")
	if out := d.ok("image", "list"); !strings.Contains(out, "debian  ready") {
		t.Errorf("image list:\n%s", out)
	}
	d.fails(2, `--name \(image_id\)`, "image", "upload", d.file("other", []byte("x")), "--name", "a/other")
	d.ok("host", "get")

	create := []string{"vm", "create", "demo", "--cpus", "2", "--kernel", "kernel", "--disk", "debian,size=8MiB", "--network", "default"}
	d.ok(append(create, "--validate-only")...)
	d.fails(4, "does not exist", "vm", "get", "demo")
	d.ok(append(create, "--start")...)
	d.fails(6, "exists already", create...)
	d.fails(2, `--balloon \(virtual_machine.balloon_bytes\)`, "vm", "create", "x", "--kernel", "kernel", "--memory", "64MiB", "--balloon", "40MiB")
	d.fails(2, `NAME \(virtual_machine_id\)`, "vm", "create", "a/b", "--kernel", "kernel")
	d.fails(2, "", "vm", "console", "a/demo", "--timeout", "5s")
	d.fails(2, `(?s)--disk no. 2 \(virtual_machine.disks\[1\].image\).*--network no. 1`, "vm", "create", "x", "--kernel", "kernel", "--disk", "debian", "--disk", "nosuch", "--network", "nosuch")
	d.fails(6, "demo", "image", "delete", "kernel")
	d.ok("vm", "wait", "demo", "--for", "running", "--timeout", "20s")

	uid := d.uid("demo")
	d.core.Print(uid, "Debian GNU/Linux 12 demo ttyS0\r\n\r\ndemo login: ")
	d.ok("vm", "console", "demo", "--until", "login: $", "--timeout", "20s")
	d.fails(7, "not appeared", "vm", "console", "demo", "--until", "nosuch", "--timeout", "300ms")
	if out := d.ok("vm", "logs", "demo"); !strings.Contains(out, "demo login: ") {
		t.Errorf("vm logs:\n%s", out)
	}
	d.fails(6, "", "vm", "delete", "demo")
	d.fails(2, `--memory \(virtual_machine.max_memory_bytes\)`, "vm", "create", "x", "--kernel", "kernel", "--memory", "64MiB,max=100MiB")
	d.fails(6, "fixed", "vm", "set-memory", "demo", "1GiB")
	d.fails(2, "SIZE", "vm", "set-memory", "demo", "much")
	d.ok("vm", "create", "grows", "--kernel", "kernel", "--memory", "128MiB,max=1GiB,hotplug=128MiB", "--start")
	d.fails(2, `SIZE \(memory_bytes\)`, "vm", "set-memory", "grows", "2GiB")
	if out := d.ok("vm", "set-memory", "grows", "512MiB"); out != "grows is to have 512MiB\n" {
		t.Errorf("vm set-memory: %q", out)
	}
	d.core.Plug(d.uid("grows"), 256<<20)
	if out := d.ok("vm", "set-memory", "grows"); !regexp.MustCompile(`(?s)Asked for: +512MiB\nHas: +384MiB\nMaximum: +1GiB\n`).MatchString(out) {
		t.Errorf("vm set-memory:\n%s", out)
	}
	if out := d.ok("vm", "get", "grows"); !strings.Contains(out, "128MiB, 384MiB plugged in, at most 1GiB") {
		t.Errorf("vm get:\n%s", out)
	}
	d.ok("vm", "stop", "grows", "--force")
	d.ok("vm", "delete", "grows")
	d.fails(2, `SIZE \(balloon_bytes\)`, "vm", "balloon", "demo", "1GiB")
	d.fails(2, "SIZE", "vm", "balloon", "demo", "much")
	if out := d.ok("vm", "balloon", "demo", "64MiB"); out != "demo is to give back 64MiB\n" {
		t.Errorf("vm balloon: %q", out)
	}
	d.core.Give(uid, 32<<20, map[string]uint64{"free_bytes": 16 << 20, "major_faults": 7}, time.Now())
	if out := d.ok("vm", "balloon", "demo"); !regexp.MustCompile(`(?s)Asked for: +64MiB\nGiven back: +32MiB\n.*free_bytes: +16MiB\n +major_faults: +7\n`).MatchString(out) {
		t.Errorf("vm balloon:\n%s", out)
	}
	if out := d.ok("vm", "balloon", "demo", "-o", "json"); !strings.Contains(out, `"33554432"`) {
		t.Errorf("vm balloon -o json:\n%s", out)
	}
	d.ok("vm", "nmi", "demo")
	d.ok("vm", "pause", "demo")
	d.ok("vm", "wait", "demo", "--for", "paused", "--timeout", "20s")
	d.fails(6, "is paused: nothing to pause", "vm", "pause", "demo")
	d.fails(6, "is paused: resume it", "vm", "nmi", "demo")
	if out := d.ok("vm", "stats", "demo"); !regexp.MustCompile(`(?s)cpu.nmi_injections +1\n.*disk0.reads +7\n`).MatchString(out) {
		t.Errorf("vm stats:\n%s", out)
	}
	d.ok("vm", "resume", "demo")
	d.ok("vm", "reset", "demo")
	d.core.Print(uid, "demo login: ")
	done := make(chan int, 1)
	go func() {
		code, _ := d.code("vm", "console", "demo")
		done <- code
	}()
	eventually(t, "a viewer", func() bool { return d.core.Viewers(uid) > 0 })
	d.core.Exit(uid, "powered-off", "")
	if code := <-done; code != 0 {
		t.Errorf("vm console of a guest that powers off = %d, want 0", code)
	}
	d.ok("vm", "wait", "demo", "--timeout", "20s")
	d.ok("vm", "start", "demo")
	d.ok("vm", "stop", "demo", "--force")
	d.ok("vm", "delete", "demo")
	d.ok("image", "delete", "kernel", "debian")
	if out := d.ok("vm", "list", "-o", "json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("vm list at the end: %s", out)
	}
	if out := d.ok("operation", "list"); !strings.Contains(out, "delete") {
		t.Errorf("operation list:\n%s", out)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

// TestControlRestarts ends control while a console is watched: the viewer goes
// on where it was.
func TestControlRestarts(t *testing.T) {
	d := newDomain(t)
	d.ok("image", "upload", d.file("kernel", []byte("kernel")))
	d.ok("vm", "create", "demo", "--kernel", "kernel", "--start")
	uid := d.uid("demo")
	d.core.Print(uid, "one ")
	type result struct {
		code int
		out  string
	}
	done := make(chan result, 1)
	go func() {
		code, out, _ := d.do(t.Context(), "vm", "console", "demo")
		done <- result{code, out}
	}()
	eventually(t, "a viewer", func() bool { return d.core.Viewers(uid) > 0 })
	time.Sleep(100 * time.Millisecond) // for the replay to be shown
	d.stop()
	d.core.Print(uid, "two ")
	d.start()
	eventually(t, "the viewer again", func() bool { return d.core.Viewers(uid) > 0 })
	d.core.Print(uid, "three")
	time.Sleep(100 * time.Millisecond)
	d.core.Exit(uid, "powered-off", "")
	if got := <-done; got.code != 0 || got.out != "one two three" {
		t.Errorf("vm console = %d, %q, want 0 and everything once", got.code, got.out)
	}
}

// TestWatch follows a guest.
func TestWatch(t *testing.T) {
	d := newDomain(t)
	d.ok("image", "upload", d.file("kernel", []byte("kernel")))
	d.ok("vm", "create", "demo", "--kernel", "kernel")
	ctx, cancel := context.WithCancel(t.Context())
	var out, errs screen
	done := make(chan int, 1)
	go func() {
		done <- Run(ctx, []string{"watch", "virtualMachines", "-o", "json"}, IO{In: d.in, Out: &out, Err: &errs, Getenv: func(k string) string { return d.env[k] }})
	}()
	eventually(t, "the present state", func() bool { return strings.Contains(out.String(), `"synced":true`) })
	d.stop()
	d.start()
	d.ok("vm", "start", "demo")
	eventually(t, "a change", func() bool { return strings.Contains(out.String(), "STATE_RUNNING") })
	cancel()
	if code := <-done; code != 130 {
		t.Errorf("interrupted watch = %d (%s), want 130", code, errs.String())
	}
	for line := range strings.Lines(out.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %q", line)
		}
	}
}

// A screen is an output that can be looked at while it is written.
type screen struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestImageConfigure(t *testing.T) {
	d := newDomain(t)
	b, err := disk.Build(bytes.Repeat([]byte("EFI"), 1000))
	if err != nil {
		t.Fatal(err)
	}
	img, doc := d.file("ashlar.img", b), filepath.Join(d.tmp, "ashlar.yaml")
	d.fails(2, "required flag", "image", "configure", img)
	d.fails(1, `bad.yaml: line 2, column 11: hostname`, "image", "configure", img, "--config", d.file("bad.yaml", []byte("version: 1\nhostname: a_b\n")))
	if _, err := configure.Read(img); err == nil {
		t.Error("a bad document was written")
	}
	d.ok("image", "configure", img, "--config", doc)
	got, err := configure.Read(img)
	want, _ := os.ReadFile(doc)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("the image has %d bytes of configuration, %v, want those of the file", len(got), err)
	}
	d.fails(1, "ashlar.yaml", "image", "configure", doc, "--config", doc)
	d.fails(1, "no such file", "image", "configure", filepath.Join(d.tmp, "nosuch"), "--config", doc)
}
