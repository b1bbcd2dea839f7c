package link

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ashlar-hv/ashlar/mgmt/control/coretest"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// notes keeps what a Link has told.
type notes struct {
	mu     sync.Mutex
	synced int
	states map[string]hostcall.GuestState
}

func (n *notes) Synced(guests []hostcall.GuestStatus, _ []hostcall.ImageStatus) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.synced++
	n.states = map[string]hostcall.GuestState{}
	for _, g := range guests {
		n.states[g.ID] = g.State
	}
}

func (n *notes) Changed(g hostcall.GuestStatus) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.states != nil {
		n.states[g.ID] = g.State
	}
}

func (n *notes) PCIChanged() {}

// LinksChanged implements Handler.
func (n *notes) LinksChanged() {}

func (n *notes) state(id string) hostcall.GuestState {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.states[id]
}

// run runs a Link until the test ends.
func run(t testing.TB, path string) (*Link, *notes) {
	l, n := New(path, slog.New(slog.DiscardHandler)), &notes{}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { l.Run(ctx, n) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return l, n
}

const id = "0123456789abcdef0123456789abcdef"

func TestLink(t *testing.T) {
	core := coretest.New(t.TempDir())
	l, n := run(t, core.Socket())
	if _, err := l.Do(t.Context(), hostcall.Call{Method: hostcall.Host}); !errors.Is(err, ErrDown) {
		t.Errorf("before core is there: %v, want ErrDown", err)
	}
	if err := core.Start(); err != nil {
		t.Fatal(err)
	}
	defer core.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := l.WaitUp(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Do(ctx, hostcall.Call{Method: hostcall.GuestCreate, ID: id}); err != nil {
		t.Fatal(err)
	}
	var he *hostcall.Error
	if _, err := l.Do(ctx, hostcall.Call{Method: hostcall.GuestCreate, ID: id}); !errors.As(err, &he) || he.Code != hostcall.AlreadyExists {
		t.Errorf("second creation: %v", err)
	}
	if _, err := l.File(ctx, hostcall.Call{Method: hostcall.Host}); !errors.As(err, &he) || he.Code != hostcall.Internal {
		t.Errorf("no descriptor came: %v", err)
	}
	if _, err := l.Do(ctx, hostcall.Call{Method: hostcall.GuestStart, ID: id, Guest: &hostcall.Guest{Cmdline: string(make([]byte, 1<<17))}}); !errors.As(err, &he) || he.Code != hostcall.InvalidArgument {
		t.Errorf("too large a call: %v", err)
	}
	if _, err := l.Do(ctx, hostcall.Call{Method: hostcall.GuestStart, ID: id, Guest: &hostcall.Guest{}}); err != nil {
		t.Fatal(err)
	}
	if err := l.Sync(ctx); err != nil || n.state(id) != hostcall.Running {
		t.Errorf("after Sync: %v, %v", n.state(id), err)
	}

	release := core.Hold(hostcall.Host)
	short, cancelShort := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancelShort()
	if _, err := l.Do(short, hostcall.Call{Method: hostcall.Host}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no answer: %v", err)
	}
	cut := make(chan error)
	go func() {
		_, err := l.Do(ctx, hostcall.Call{Method: hostcall.Host})
		cut <- err
	}()
	for core.Calls(hostcall.Host) < 3 {
		time.Sleep(time.Millisecond)
	}
	core.Stop()
	release()
	if err := <-cut; !errors.Is(err, ErrDown) {
		t.Errorf("cut off: %v, want ErrDown", err)
	}
	if l.Up() {
		t.Error("up without core")
	}
	core.Exit(id, "halted", "")
	if err := core.Start(); err != nil {
		t.Fatal(err)
	}
	if err := l.WaitUp(ctx); err != nil || n.state(id) != hostcall.Stopped {
		t.Errorf("after core is back: %v, %v", n.state(id), err)
	}
}

// An event that comes while a list is under way is newer than the list.
func TestEventBeatsList(t *testing.T) {
	core := coretest.New(t.TempDir())
	if err := core.Start(); err != nil {
		t.Fatal(err)
	}
	defer core.Close()
	l, n := run(t, core.Socket())
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := l.WaitUp(ctx); err != nil {
		t.Fatal(err)
	}
	for _, c := range []hostcall.Call{{Method: hostcall.GuestCreate, ID: id}, {Method: hostcall.GuestStart, ID: id, Guest: &hostcall.Guest{}}} {
		if _, err := l.Do(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	before := core.Calls(hostcall.GuestList)
	release := core.Hold(hostcall.GuestList) // answered late, with what was so before
	done := make(chan error)
	go func() { done <- l.Sync(ctx) }()
	for core.Calls(hostcall.GuestList) == before {
		time.Sleep(time.Millisecond)
	}
	core.Exit(id, "halted", "")
	for n.state(id) != hostcall.Stopped {
		time.Sleep(time.Millisecond)
	}
	release()
	if err := <-done; err != nil || n.state(id) != hostcall.Stopped {
		t.Errorf("state = %v, %v", n.state(id), err)
	}
}

// FuzzReplies answers calls with anything: the Link has to take it, or drop the
// connection and try again.
func FuzzReplies(f *testing.F) {
	f.Add([]byte(`{"seq":1}`), []byte(`{"seq":2,"guests":[{"id":"x","state":"running"}]}`))
	f.Add([]byte(`{"event":{"guest":{"id":"x"}}}`), []byte(`{"seq":1,"error":{"code":"internal"}}`))
	f.Add([]byte(`{"seq":18446744073709551615}`), []byte(`[]`))
	f.Add([]byte("\x00"), []byte(`{"seq":1,"seq":1,"host":{"uptime":-1}}`))
	dir, err := os.MkdirTemp("", "link")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { os.RemoveAll(dir) })
	f.Fuzz(func(t *testing.T, one, two []byte) {
		path := filepath.Join(dir, "core.sock")
		os.Remove(path)
		srv, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
		if err != nil {
			t.Fatal(err)
		}
		defer srv.Close()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			c, err := srv.AcceptUnix()
			if err != nil {
				return
			}
			defer c.Close()
			if n, err := c.Read(make([]byte, 1<<17)); n == 0 || err != nil {
				return
			}
			for _, answer := range [][]byte{one, two} {
				if len(answer) > 0 {
					c.Write(answer)
				}
			}
		}()
		l := New(path, slog.New(slog.DiscardHandler))
		l.handler = &notes{}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		l.once(ctx)
		if l.Up() {
			t.Error("up without a connection")
		}
		srv.Close()
		<-ended
	})
}

// However many calls take long, core is not so full of them that it reads no others.
func TestRoomForQuickCalls(t *testing.T) {
	core := coretest.New(t.TempDir())
	if err := core.Start(); err != nil {
		t.Fatal(err)
	}
	defer core.Close()
	l, _ := run(t, core.Socket())
	if err := l.WaitUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	release := core.Hold(hostcall.GuestKill)
	defer release()
	const n, most = 40, 4
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() { _, _ = l.Do(t.Context(), hostcall.Call{Method: hostcall.GuestKill, ID: id}) })
	}
	for i := 0; core.Calls(hostcall.GuestKill) < most && i < 500; i++ {
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond)
	if got := core.Calls(hostcall.GuestKill); got != most {
		t.Errorf("%d slow calls under way, want %d", got, most)
	}
	if _, err := l.Do(t.Context(), hostcall.Call{Method: hostcall.Host}); err != nil {
		t.Errorf("quick call: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := l.Do(ctx, hostcall.Call{Method: hostcall.GuestKill, ID: id}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("slow call without room: %v", err)
	}
	release()
	wg.Wait()
	if got := core.Calls(hostcall.GuestKill); got != n {
		t.Errorf("%d slow calls made, want %d", got, n)
	}
}
