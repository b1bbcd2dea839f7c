package guest

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/seqpacket"
	"golang.org/x/sys/unix"
)

// hostileVMM listens where a client looks, and treats each connection as
// behave says, which closes it.
func hostileVMM(tb testing.TB, behave func(*net.UnixConn)) *client {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "s")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		tb.Fatal(err)
	}
	c := newClient(path)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			u, err := l.AcceptUnix()
			if err != nil {
				return
			}
			behave(u)
		}
	}()
	tb.Cleanup(func() { c.close(); l.Close(); <-done })
	return c
}

// answering sends n responses to each request.
func answering(n int, respond func(protocol.Request) (protocol.Response, []*os.File)) func(*net.UnixConn) {
	return func(u *net.UnixConn) {
		conn := seqpacket.New(u)
		defer conn.Close()
		for {
			var r protocol.Request
			if _, err := conn.Recv(&r); err != nil {
				return
			}
			for range n {
				resp, files := respond(r)
				conn.Send(resp, files...)
			}
		}
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

// TestClientFiles gets descriptors that were not asked for.
func TestClientFiles(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { null.Close() }) // after the VMM's end
	c := hostileVMM(t, answering(1, func(r protocol.Request) (protocol.Response, []*os.File) {
		return protocol.Response{ID: r.ID}, []*os.File{null, null, null}
	}))
	if _, _, err := c.call(t.Context(), protocol.Query, nil, nil); err != nil {
		t.Fatal(err)
	}
	before := openFiles(t)
	for _, m := range []protocol.Method{protocol.Query, protocol.PowerButton, protocol.Stop} {
		if _, files, err := c.call(t.Context(), m, nil, nil); err != nil || files != nil {
			t.Errorf("%s = %v, %v", m, files, err)
		}
	}
	if f, err := c.console(t.Context()); err == nil {
		t.Errorf("console = %s", f.Name())
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d descriptors are open, %d before", after, before)
	}
}

// TestClientUnasked gets more answers than it has asked for: the connection ends,
// and the next call makes another.
func TestClientUnasked(t *testing.T) {
	ended := make(chan struct{}, 8)
	twice := answering(2, func(r protocol.Request) (protocol.Response, []*os.File) { return protocol.Response{ID: r.ID}, nil })
	c := hostileVMM(t, func(u *net.UnixConn) { twice(u); ended <- struct{}{} })
	for range 3 {
		if _, _, err := c.call(t.Context(), protocol.Query, nil, nil); err != nil {
			t.Errorf("call: %v", err)
		}
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Fatal("the connection goes on")
		}
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			c.mu.Lock()
			gone := c.conn == nil
			c.mu.Unlock()
			if gone {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("the client keeps the connection")
			}
		}
	}
}

// TestClientLate gets an answer when nobody waits for it any more, which is no
// offence: other calls of the connection go on.
func TestClientLate(t *testing.T) {
	var early protocol.Request
	var connections atomic.Int32
	c := hostileVMM(t, func(u *net.UnixConn) {
		connections.Add(1)
		conn := seqpacket.New(u)
		defer conn.Close()
		for {
			var r protocol.Request
			if _, err := conn.Recv(&r); err != nil {
				return
			}
			if early.ID == 0 {
				early = r
				continue
			}
			conn.Send(protocol.Response{ID: early.ID})
			conn.Send(protocol.Response{ID: r.ID})
			early = protocol.Request{}
		}
	})
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if _, _, err := c.call(ctx, protocol.PowerButton, nil, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("call without an answer: %v", err)
		}
		cancel()
		if _, _, err := c.call(t.Context(), protocol.Query, nil, nil); err != nil {
			t.Errorf("call with an answer: %v", err)
		}
	}
	if len(c.pending) != 0 || connections.Load() != 1 {
		t.Errorf("%d calls are left, %d connections", len(c.pending), connections.Load())
	}
}

// TestClientNoAnswers leaves calls without an answer: what the client keeps of
// them is bounded.
func TestClientNoAnswers(t *testing.T) {
	c := hostileVMM(t, answering(0, nil))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 4 * maxPending {
		if _, _, err := c.call(ctx, protocol.PowerButton, nil, nil); err == nil {
			t.Fatal("an answer that was not given")
		}
		c.mu.Lock()
		n := len(c.pending)
		c.mu.Unlock()
		if n > maxPending {
			t.Fatalf("%d calls are kept", n)
		}
	}
}

// FuzzResponse gives a client what a hostile VMM may send.
func FuzzResponse(f *testing.F) {
	f.Add([]byte(`{"id":1,"status":{"state":"running"}}`), false)
	f.Add([]byte(`{"id":1}`), true)
	f.Add([]byte(`{"id":1,"error":{"code":"invalid-argument","field":"boot.kernel","message":"\u001b[2J"}}`), true)
	f.Add([]byte(`{"id":18446744073709551615}`), false)
	f.Add([]byte(`null`), true)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, packet []byte, stream bool) {
		c := hostileVMM(t, func(u *net.UnixConn) {
			defer u.Close()
			if _, err := u.Read(make([]byte, 1024)); err != nil {
				return
			}
			var oob []byte
			if fds, err := pair(); stream && err == nil {
				oob = unix.UnixRights(fds[0])
				defer unix.Close(fds[0])
				defer unix.Close(fds[1])
			}
			u.WriteMsgUnix(packet, oob, nil)
			u.CloseWrite()
			io.Copy(io.Discard, u)
		})
		file, err := c.console(t.Context())
		if (file == nil) == (err == nil) {
			t.Fatalf("console = %v, %v", file, err)
		}
		if err == nil {
			file.Close()
			return
		}
		var e *hostcall.Error
		if !errors.As(refusal(err), &e) || len(e.Message) > maxMessage || len(e.Field) > maxMessage ||
			strings.ContainsFunc(e.Message+e.Field, func(c rune) bool { return c < ' ' || c > '~' }) {
			t.Errorf("refusal(%v) = %+v", err, e)
		}
	})
}
