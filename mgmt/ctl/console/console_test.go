package console_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/client"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/console"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/hosttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A screen is an output that can be waited for.
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

// eventually waits for ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

// guest starts a host with a running guest `demo`.
func guest(t *testing.T) (*hosttest.Host, *client.Host) {
	t.Helper()
	h := hosttest.Start(t)
	h.AddImage("kernel", 1)
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
	vm := &ashlarv1.VirtualMachine{Cpus: 1, MemoryBytes: 32 << 20, Boot: &ashlarv1.Boot{Kernel: "images/kernel"}}
	if _, err := host.VirtualMachines.CreateVirtualMachine(t.Context(), connect.NewRequest(&ashlarv1.CreateVirtualMachineRequest{VirtualMachineId: "demo", VirtualMachine: vm})); err != nil {
		t.Fatal(err)
	}
	op, err := host.VirtualMachines.StartVirtualMachine(t.Context(), connect.NewRequest(&ashlarv1.StartVirtualMachineRequest{Name: "virtualMachines/demo", RequestId: "1"}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := host.Operations.WaitOperation(t.Context(), connect.NewRequest(&ashlarv1.WaitOperationRequest{Name: op.Msg.GetName()})); err != nil {
		t.Fatal(err)
	}
	return h, host
}

// view runs a viewer and gives its end.
func view(t *testing.T, v *console.Viewer) <-chan error {
	end := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	go func() {
		defer cancel()
		vm, err := v.Run(ctx)
		if err == nil && vm == nil {
			err = errors.New("neither a guest nor an error")
		}
		end <- err
	}()
	return end
}

func newViewer(host *client.Host, out io.Writer) *console.Viewer {
	return &console.Viewer{
		Client: host.VirtualMachines, Name: "virtualMachines/demo", Output: out,
		Retry: 20 * time.Second, Interrupted: func(error) {},
	}
}

func TestViewUntilEnd(t *testing.T) {
	h, host := guest(t)
	h.Print("demo", "before\n")
	s := &screen{}
	end := view(t, newViewer(host, s))
	eventually(t, "replay", func() bool { return s.String() == "before\n" })
	h.Print("demo", "after\n")
	eventually(t, "output", func() bool { return s.String() == "before\nafter\n" })
	h.End("demo", ashlarv1.VirtualMachine_STOP_REASON_POWERED_OFF, "")
	if err := <-end; err != nil {
		t.Errorf("Run() = %v", err)
	}
}

func TestViewUntilMatch(t *testing.T) {
	h, host := guest(t)
	v := newViewer(host, io.Discard)
	v.Until = regexp.MustCompile("login: $")
	end := view(t, v)
	h.Print("demo", "demo lo")
	h.Print("demo", "gin: ")
	if err := <-end; !errors.Is(err, console.ErrMatched) {
		t.Errorf("Run() = %v, want ErrMatched", err)
	}
}

func TestViewGoesOnAfterRestart(t *testing.T) {
	h, host := guest(t)
	h.Print("demo", "one ")
	s := &screen{}
	v := newViewer(host, s)
	broken := make(chan error, 10)
	v.Interrupted = func(err error) { broken <- err }
	end := view(t, v)
	eventually(t, "replay", func() bool { return s.String() == "one " })
	h.Stop()
	select {
	case <-broken:
	case err := <-end:
		t.Fatalf("Run() = %v", err)
	}
	h.Print("demo", "two ")
	h.Restart()
	eventually(t, "output", func() bool { return s.String() == "one two " })
	h.End("demo", ashlarv1.VirtualMachine_STOP_REASON_POWERED_OFF, "")
	if err := <-end; err != nil {
		t.Errorf("Run() = %v", err)
	}
}

func TestViewGivesUp(t *testing.T) {
	h, host := guest(t)
	h.Print("demo", "one ")
	s := &screen{}
	v := newViewer(host, s)
	v.Retry = 100 * time.Millisecond
	end := view(t, v)
	eventually(t, "replay", func() bool { return s.String() == "one " })
	h.Stop()
	if err := <-end; connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("Run() = %v, want UNAVAILABLE", err)
	}
}

// brokenOutput cannot be written to.
type brokenOutput struct{}

func (brokenOutput) Write([]byte) (int, error) { return 0, os.ErrClosed }

func TestViewBrokenOutput(t *testing.T) {
	h, host := guest(t)
	h.Print("demo", "one ")
	if err := <-view(t, newViewer(host, brokenOutput{})); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Run() = %v, want os.ErrClosed", err)
	}
}

func TestViewInputFromPipe(t *testing.T) {
	h, host := guest(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	h.Print("demo", "login: ")
	s := &screen{}
	v := newViewer(host, s)
	v.Input = r
	end := view(t, v)
	eventually(t, "replay", func() bool { return s.String() == "login: " })
	io.WriteString(w, "root\n\x1dx\n") // without Detach, Ctrl-] is input like any other
	w.Close()
	eventually(t, "input", func() bool { return h.Typed("demo") == "root\n\x1dx\n" })
	h.End("demo", ashlarv1.VirtualMachine_STOP_REASON_POWERED_OFF, "")
	if err := <-end; err != nil {
		t.Errorf("Run() = %v", err)
	}
}

func TestDetach(t *testing.T) {
	h, host := guest(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	h.Print("demo", "login: ")
	s := &screen{}
	v := newViewer(host, s)
	v.Input, v.Detach = r, true
	end := view(t, v)
	eventually(t, "replay", func() bool { return strings.Contains(s.String(), "login") })
	io.WriteString(w, "ab")
	eventually(t, "input", func() bool { return h.Typed("demo") == "ab" })
	io.WriteString(w, "\x1dcd")
	if err := <-end; !errors.Is(err, console.ErrDetached) {
		t.Errorf("Run() = %v, want ErrDetached", err)
	}
	if got := h.Typed("demo"); got != "ab" {
		t.Errorf("typed = %q, want nothing after Ctrl-]", got)
	}
}
