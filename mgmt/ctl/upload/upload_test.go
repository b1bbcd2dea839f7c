package upload_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/client"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/hosttest"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/upload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dial connects to h.
func dial(t *testing.T, h *hosttest.Host) *client.Host {
	t.Helper()
	f, err := h.Dir.Load()
	if err != nil {
		t.Fatal(err)
	}
	c, err := f.Lookup("test")
	if err != nil {
		t.Fatal(err)
	}
	host, err := client.New(client.Options{
		Address: c.Address, ServerName: c.ServerName, CA: []byte(c.CA), Certificate: []byte(c.Certificate), Key: []byte(c.Key),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(host.Close)
	return host
}

// A recorder is a Progress for tests.
type recorder struct {
	hashed, sent int64
	broken       []string
	onBreak      func()
}

func (r *recorder) Hashed(n int64) { r.hashed = n }
func (r *recorder) Sent(n int64)   { r.sent = n }
func (r *recorder) Interrupted(err error) {
	r.broken = append(r.broken, err.Error())
	if r.onBreak != nil {
		r.onBreak()
	}
}

// pattern is data without zero blocks.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i>>8) ^ byte(i) | 1
	}
	return b
}

// source opens a file with that content.
func source(t *testing.T, content []byte) *upload.Source {
	t.Helper()
	s, err := upload.Open(hosttest.TempFile(t, "disk.img", content))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestUpload(t *testing.T) {
	const mib = 1 << 20
	for name, content := range map[string][]byte{
		"one byte":        {7},
		"one zero":        {0},
		"data":            pattern(3*mib + 17),
		"all zero":        make([]byte, 5*mib+1),
		"data, zero":      append(pattern(mib+5), make([]byte, 2*mib)...),
		"zero, data":      append(make([]byte, 2*mib+9), pattern(mib)...),
		"zero block":      append(append(pattern(64<<10), make([]byte, 64<<10)...), pattern(64<<10)...),
		"data, zero tail": append(pattern(mib), 0, 0, 0),
	} {
		t.Run(name, func(t *testing.T) {
			h := hosttest.Start(t)
			r := &recorder{}
			u := &upload.Upload{Images: dial(t, h).Images, ID: "disk", Source: source(t, content), Progress: r}
			img, existed, err := u.Run(t.Context())
			if err != nil || existed || img.GetState() != ashlarv1.Image_STATE_READY {
				t.Fatalf("Run() = %v, %v, %v", img, existed, err)
			}
			if !bytes.Equal(h.Content("disk"), content) {
				t.Error("the host has another content")
			}
			if r.hashed != int64(len(content)) || r.sent != int64(len(content)) || len(r.broken) != 0 {
				t.Errorf("progress = %+v, want all of %d bytes", r, len(content))
			}
			if _, existed, err := u.Run(t.Context()); err != nil || !existed {
				t.Errorf("second Run() = existed %v, %v, want true", existed, err)
			}
		})
	}
}

func TestUploadSendsNoHoles(t *testing.T) {
	const size, block = 40 << 20, 64 << 10
	h := hosttest.Start(t)
	name := hosttest.TempFile(t, "sparse.img", pattern(100))
	if err := os.Truncate(name, size); err != nil {
		t.Fatal(err)
	}
	s, err := upload.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	u := &upload.Upload{Images: dial(t, h).Images, ID: "sparse", Source: s, Progress: &recorder{}}
	if _, _, err := u.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if data, zeroes := h.Received(); data > block || data+zeroes != size {
		t.Errorf("sent %d bytes and %d zeroes, want at most %d bytes of %d", data, zeroes, block, size)
	}
}

func TestUploadGoesOnAfterBreak(t *testing.T) {
	h := hosttest.Start(t)
	content := pattern(6 << 20)
	h.BreakUpload(2 << 20)
	r := &recorder{}
	u := &upload.Upload{Images: dial(t, h).Images, ID: "disk", Source: source(t, content), Retry: 10 * time.Second, Progress: r}
	if _, _, err := u.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(r.broken) != 1 {
		t.Errorf("interruptions = %q, want one", r.broken)
	}
	if data, _ := h.Received(); data != int64(len(content)) {
		t.Errorf("the host received %d bytes, want %d: nothing twice", data, len(content))
	}
	if !bytes.Equal(h.Content("disk"), content) {
		t.Error("the host has another content")
	}
}

func TestUploadOutlivesRestart(t *testing.T) {
	h := hosttest.Start(t)
	content := pattern(6 << 20)
	h.BreakUpload(2 << 20)
	r := &recorder{onBreak: func() {
		h.Stop()
		time.AfterFunc(500*time.Millisecond, h.Restart)
	}}
	u := &upload.Upload{Images: dial(t, h).Images, ID: "disk", Source: source(t, content), Retry: 20 * time.Second, Progress: r}
	if _, _, err := u.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(h.Content("disk"), content) {
		t.Error("the host has another content")
	}
}

func TestUploadGivesUpAndResumes(t *testing.T) {
	h := hosttest.Start(t)
	content := pattern(6 << 20)
	h.BreakUpload(2 << 20)
	r := &recorder{onBreak: h.Stop}
	host := dial(t, h)
	u := &upload.Upload{Images: host.Images, ID: "disk", Source: source(t, content), Retry: 200 * time.Millisecond, Progress: r}
	if _, _, err := u.Run(t.Context()); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Fatalf("Run() = %v, want UNAVAILABLE", err)
	}
	h.Restart()
	if _, existed, err := u.Run(t.Context()); err != nil || existed {
		t.Fatalf("next Run() = existed %v, %v", existed, err)
	}
	if data, _ := h.Received(); data != int64(len(content)) {
		t.Errorf("the host received %d bytes, want %d: the second call went on", data, len(content))
	}
}

func TestUploadOfChangedFile(t *testing.T) {
	h := hosttest.Start(t)
	name := hosttest.TempFile(t, "disk.img", pattern(2<<20))
	s, err := upload.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	changed := false
	r := &hook{func(n int64) {
		if n == s.Size() && !changed {
			changed = true
			f, err := os.OpenFile(name, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			f.WriteAt([]byte("changed"), 100)
			f.Close()
		}
	}}
	u := &upload.Upload{Images: dial(t, h).Images, ID: "disk", Source: s, Progress: r}
	if _, _, err := u.Run(t.Context()); connect.CodeOf(err) != connect.CodeDataLoss {
		t.Errorf("Run() = %v, want DATA_LOSS", err)
	}
	changed = false
	r.hashed = func(n int64) {
		if err := os.Truncate(name, 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	u.ID = "short"
	if _, _, err := u.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "shorter") {
		t.Errorf("Run() of a shortened file = %v", err)
	}
}

// hook does something while the digest is taken.
type hook struct{ hashed func(int64) }

func (h *hook) Hashed(n int64)    { h.hashed(n) }
func (*hook) Sent(int64)          {}
func (*hook) Interrupted(_ error) {}

func TestUploadCancelled(t *testing.T) {
	h := hosttest.Start(t)
	ctx, cancel := context.WithCancel(t.Context())
	r := &hook{func(int64) { cancel() }}
	u := &upload.Upload{Images: dial(t, h).Images, ID: "disk", Source: source(t, pattern(4<<20)), Progress: r}
	if _, _, err := u.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Run() = %v, want context.Canceled", err)
	}
}

func TestReporters(t *testing.T) {
	for name, make := range map[string]func(*bytes.Buffer) upload.Reporter{
		"bars":   func(b *bytes.Buffer) upload.Reporter { return upload.NewBars(b, "disk", 100) },
		"lines":  func(b *bytes.Buffer) upload.Reporter { return upload.NewLines(b, "disk", 100) },
		"silent": func(*bytes.Buffer) upload.Reporter { return upload.Silent{} },
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			r := make(&b)
			r.Hashed(50)
			r.Hashed(100)
			r.Sent(10)
			r.Interrupted(errors.New("connection reset"))
			if err := r.Close(); err != nil {
				t.Errorf("Close() = %v", err)
			}
			if want := name != "silent"; strings.Contains(b.String(), "connection reset") != want {
				t.Errorf("output = %q, want the interruption told: %v", b.String(), want)
			}
		})
	}
}
