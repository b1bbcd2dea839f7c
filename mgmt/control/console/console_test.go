package console

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/feed"
	"github.com/ashlar-hv/ashlar/mgmt/control/image"
	"github.com/ashlar-hv/ashlar/mgmt/control/machine"
	"github.com/ashlar-hv/ashlar/mgmt/control/operation"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// logs is a Core whose guests do not run and have left a log.
type logs struct{ path string }

func (c logs) Do(context.Context, hostcall.Call) (hostcall.Message, error) {
	return hostcall.Message{}, nil
}
func (c logs) File(context.Context, hostcall.Call) (*os.File, error) { return os.Open(c.path) }
func (c logs) Sync(context.Context) error                            { return nil }
func (c logs) WaitUp(context.Context) error                          { return nil }

// script is a Stream that sends what it was given.
type script struct {
	messages [][]byte
	sent     []*ashlarv1.ConsoleResponse
}

func (s *script) Receive() (*ashlarv1.ConsoleRequest, error) {
	if len(s.messages) == 0 {
		return nil, io.EOF
	}
	var r ashlarv1.ConsoleRequest
	err := proto.Unmarshal(s.messages[0], &r)
	s.messages = s.messages[1:]
	return &r, err
}

func (s *script) Send(r *ashlarv1.ConsoleResponse) error {
	s.sent = append(s.sent, r)
	return nil
}

func (s *script) CloseRead() {}

// server serves one machine that has run, called demo.
func server(t testing.TB) *Server {
	t.Helper()
	dir := t.TempDir()
	core := logs{filepath.Join(dir, "log")}
	if err := os.WriteFile(core.path, []byte("what it said"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(filepath.Join(dir, "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	rec := store.VM{ID: "demo", UID: strings.Repeat("a", 32)}
	if err := s.Update(func(tx *store.Tx) error { return store.VMs.Put(tx, rec) }); err != nil {
		t.Fatal(err)
	}
	log, f := slog.New(slog.DiscardHandler), feed.New()
	ops, _, err := operation.Load(s, f, log)
	if err != nil {
		t.Fatal(err)
	}
	images, err := image.Load(s, core, f, log)
	if err != nil {
		t.Fatal(err)
	}
	machines, err := machine.Load(s, core, f, images, ops, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	machines.Synced([]hostcall.GuestStatus{{ID: rec.UID, State: hostcall.Stopped, Reason: "halted"}})
	return New(core, machines)
}

func message(r *ashlarv1.ConsoleRequest) []byte {
	b, _ := proto.Marshal(r)
	return b
}

// FuzzFirst opens a console with anything: it is refused, or ends with the machine.
func FuzzFirst(f *testing.F) {
	f.Add(message(&ashlarv1.ConsoleRequest{Name: "virtualMachines/demo"}), []byte{})
	f.Add(message(&ashlarv1.ConsoleRequest{Name: "virtualMachines/demo", NoReplay: true, Follow: true}), message(&ashlarv1.ConsoleRequest{Input: []byte("x")}))
	f.Add(message(&ashlarv1.ConsoleRequest{Name: "virtualMachines/demo"}), message(&ashlarv1.ConsoleRequest{Name: "virtualMachines/other"}))
	f.Add(message(&ashlarv1.ConsoleRequest{Name: "virtualMachines/"}), []byte{1})
	f.Add([]byte{0xff}, []byte{0xff})
	srv := server(f)
	f.Fuzz(func(t *testing.T, first, second []byte) {
		s := &script{messages: [][]byte{first, second}}
		err := srv.Serve(t.Context(), s)
		var out strings.Builder
		ended := false
		for _, r := range s.sent {
			if ended {
				t.Error("something after the end")
			}
			out.Write(r.Output)
			ended = r.Ended != nil
		}
		if err == nil && !ended {
			t.Error("ended without the machine")
		}
		if got := out.String(); got != "" && got != "what it said" {
			t.Errorf("output %q", got)
		}
		if len(srv.viewers) != 0 {
			t.Errorf("viewers left: %v", srv.viewers)
		}
	})
}

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	text := strings.Repeat("0123456789", 10_000)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, max := range []int{0, 1, 70_000, len(text), 1 << 20} {
		var out strings.Builder
		err := Tail(f, int64(max), func(b []byte) error { out.Write(b); return nil })
		if want := text[len(text)-min(max, len(text)):]; err != nil || out.String() != want {
			t.Errorf("Tail(%d) = %d bytes, %v, want %d", max, out.Len(), err, len(want))
		}
	}
	stop := errors.New("stop")
	if err := Tail(f, 10, func([]byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("error of the receiver: %v", err)
	}
}

// A guest that prints without pause does not keep drain from ending.
func TestDrain(t *testing.T) {
	mine, theirs := net.Pipe()
	go func() {
		for {
			if _, err := theirs.Write(make([]byte, 1000)); err != nil {
				return
			}
		}
	}()
	began := time.Now()
	if !drain(mine) || time.Since(began) > 10*time.Second {
		t.Errorf("drain took %v", time.Since(began))
	}
	mine.Close()
	theirs.Close()
	if drain(mine) {
		t.Error("drain of a closed console")
	}
}

// A typist is a connection that lets somebody else type just before its first write.
type typist struct {
	net.Conn
	before func()
	typed  []string
}

func (c *typist) SetWriteDeadline(time.Time) error {
	if f := c.before; f != nil {
		c.before = nil
		f()
	}
	return nil
}

func (c *typist) Write(b []byte) (int, error) {
	c.typed = append(c.typed, string(b))
	return len(b), nil
}

func TestTypedInOrder(t *testing.T) {
	in := input{pending: []byte("first")}
	written := make(chan struct{})
	conn := &typist{before: func() {
		go func() {
			in.write([]byte("second"))
			close(written)
		}()
		select {
		case <-written:
		case <-time.After(50 * time.Millisecond):
		}
	}}
	in.attach(conn)
	<-written
	if got := strings.Join(conn.typed, " "); got != "first second" {
		t.Errorf("typed %q", got)
	}
}
