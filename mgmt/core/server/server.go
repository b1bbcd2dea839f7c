// Package server answers control's calls (mgmt/core/hostcall).
//
// Whoever connects must be control's user or root. Calls of one connection run
// side by side, a bounded number of them; more wait in the socket. What a
// connection does not read in time costs it the connection, and nobody else
// anything.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ashlar-hv/ashlar/initramfs/layout"
	"github.com/ashlar-hv/ashlar/mgmt/core/guest"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/mgmt/core/image"
	"github.com/ashlar-hv/ashlar/mgmt/core/sriov"
	"github.com/ashlar-hv/ashlar/vmm/seqpacket"
)

const (
	maxConns = 8
	maxCalls = 20 // under way, for one connection
	// acceptPause is how long Serve waits after a connection that could not be
	// taken, for want of descriptors or memory.
	acceptPause = 100 * time.Millisecond
)

// A Server is what answers calls.
type Server struct {
	Guests *guest.Manager
	Images *image.Store
	// Functions are the virtual functions of the host's devices.
	Functions *sriov.Manager
	// Host fills the answer to hostcall.Host.
	Host func() hostcall.HostStatus
	// Facts are the newest that init has found out.
	Facts func() layout.HostInfo
	// Check looks for what makes the host weak.
	Check func() hostcall.HostCheckResult
	// UID may connect, besides root.
	UID uint32
	Log *slog.Logger

	imageTurns sync.Mutex // one change to images at a time: each is short

	mu    sync.Mutex
	conns map[*conn]struct{}
}

// Listen makes the socket at path, for user uid alone.
func Listen(path string, uid int) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("listen: %w", err)
	}
	// Under another name until it has its owner: else there would be a
	// moment in which control finds a socket that is not its own.
	temp := path + ".new"
	os.Remove(temp)
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: temp, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	l.SetUnlinkOnClose(false)
	err = errors.Join(os.Chmod(temp, 0o600), os.Chown(temp, uid, uid))
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("listen: %w", err)
	}
	return l, nil
}

// Serve takes connections on l until ctx ends, and returns when the last is closed.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener) error {
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // without the listener, connections end too
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		u, err := l.AcceptUnix()
		if ctx.Err() != nil {
			if err == nil {
				_ = u.Close()
			}
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept connection: %w", err)
		}
		if err != nil {
			s.Log.Error("cannot take a connection", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
			continue
		}
		c := newConn(seqpacket.New(u), s)
		if err := s.admit(c); err != nil {
			s.Log.Warn("connection refused", "error", err)
			c.close()
			continue
		}
		all.Go(func() { c.serve(ctx) })
	}
}

// admit checks who is calling, and that there are not too many.
func (s *Server) admit(c *conn) error {
	uid, err := c.peer.PeerUID()
	if err != nil {
		return err
	}
	if uid != s.UID && uid != 0 {
		return fmt.Errorf("user %d is not control", uid)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) >= maxConns {
		return fmt.Errorf("%d connections are open", maxConns)
	}
	if s.conns == nil {
		s.conns = make(map[*conn]struct{})
	}
	s.conns[c] = struct{}{}
	return nil
}

func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// Notify sends a guest's status to all who have subscribed. It does not wait.
func (s *Server) Notify(g hostcall.GuestStatus) { s.notify(hostcall.Event{Guest: &g}) }

func (s *Server) notify(e hostcall.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if c.subscribed.Load() {
			c.send(hostcall.Message{Event: &e})
		}
	}
}
