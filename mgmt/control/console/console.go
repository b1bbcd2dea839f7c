// Package console joins viewers with the serial console of a guest. Every viewer has a
// connection of its own to the VMM (hostcall.GuestConsole), which brings the last
// output first; a viewer that is too slow loses output and holds up nobody.
package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/link"
	"github.com/ashlar-hv/ashlar/mgmt/control/machine"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

const (
	// MaxInput is the most input in one message, in bytes.
	MaxInput = 64 << 10
	// maxViewers bounds the viewers of one machine.
	maxViewers = 16
	// callTimeout bounds a call of core.
	callTimeout = 30 * time.Second
	// lingering is how long core may take to say that the guest has stopped after
	// its console has closed, and the other way round.
	lingering = 10 * time.Second
	// quiet is how long nothing may come before a replay counts as over.
	quiet = 100 * time.Millisecond
	// maxAttach bounds how often a console that closes under a running guest is
	// opened anew.
	maxAttach = 3
	chunk     = 32 << 10
)

// Core is what consoles need of core (link.Link).
type Core interface {
	File(context.Context, hostcall.Call) (*os.File, error)
	WaitUp(context.Context) error
}

// A Stream is one call of VirtualMachineService.Console.
type Stream interface {
	Receive() (*ashlarv1.ConsoleRequest, error)
	Send(*ashlarv1.ConsoleResponse) error
	// CloseRead makes a Receive under way return, and all later ones.
	CloseRead()
}

// A Server serves the consoles of all machines.
type Server struct {
	core     Core
	machines *machine.Manager

	mu      sync.Mutex
	viewers map[string]int // by UID
}

// New makes a Server.
func New(core Core, machines *machine.Manager) *Server {
	return &Server{core: core, machines: machines, viewers: map[string]int{}}
}

// Serve serves one viewer to the end.
func (s *Server) Serve(ctx context.Context, stream Stream) error {
	first, err := stream.Receive()
	if errors.Is(err, io.EOF) {
		return refuse.Field("name", "is missing: the first message names the virtual machine")
	}
	if err != nil {
		return err
	}
	m, err := s.machines.Find(first.Name)
	if err != nil {
		return err
	}
	if err := checkInput(first); err != nil {
		return err
	}
	if err := s.enter(m.UID(), first.Name); err != nil {
		return err
	}
	defer s.leave(m.UID())
	ctx, cancel := context.WithCancelCause(ctx)
	v := &viewer{core: s.core, m: m, stream: stream, first: first, input: input{pending: first.Input}}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := v.typing(); err != nil {
			cancel(err)
		}
	})
	err = v.show(ctx)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	cancel(nil)
	v.input.attach(nil)
	stream.CloseRead()
	wg.Wait()
	if errors.Is(err, context.Canceled) {
		return refuse.New(connect.CodeCanceled, refuse.Cancelled, "the viewer has gone")
	}
	return err
}

func (s *Server) enter(uid, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.viewers[uid] >= maxViewers {
		return refuse.New(connect.CodeResourceExhausted, refuse.LimitReached, fmt.Sprintf("%s has %d viewers, the most there may be: close one first", name, maxViewers))
	}
	s.viewers[uid]++
	return nil
}

func (s *Server) leave(uid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.viewers[uid]--; s.viewers[uid] == 0 {
		delete(s.viewers, uid)
	}
}

func checkInput(r *ashlarv1.ConsoleRequest) error {
	if len(r.Input) > MaxInput {
		return refuse.Field("input", "has %d bytes: at most %d in one message", len(r.Input), MaxInput)
	}
	return nil
}

// A viewer is one call.
type viewer struct {
	core   Core
	m      *machine.Machine
	stream Stream
	first  *ashlarv1.ConsoleRequest
	input  input
}

// typing carries input to the guest until the client has closed its side.
func (v *viewer) typing() error {
	for {
		r, err := v.stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := checkInput(r); err != nil {
			return err
		}
		if r.Name != "" && r.Name != v.first.Name {
			return refuse.Field("name", "is %q, the first message said %s: open another stream", r.Name, v.first.Name)
		}
		v.input.write(r.Input)
	}
}

// show sends output until the guest has stopped for good.
func (v *viewer) show(ctx context.Context) error {
	replay := !v.first.NoReplay
	shown := false // output of a run has been sent
	for broken := 0; ; {
		look := v.m.Look()
		switch {
		case look.Gone:
			return v.ended(look)
		case !look.Alive && look.Coming && (v.first.Follow || !shown):
			if err := changed(ctx, look); err != nil {
				return err
			}
			continue
		case !look.Alive:
			if !shown && replay {
				if err := v.showLog(ctx); err != nil {
					return err
				}
			}
			return v.ended(look)
		}
		conn, err := v.open(ctx, look)
		if err != nil {
			return err
		}
		if conn == nil {
			continue // look again
		}
		err = v.attach(ctx, conn, replay)
		if err != nil {
			return err
		}
		shown = true
		stopped, err := v.runEnded(ctx, look)
		switch {
		case err != nil:
			return err
		case stopped && !v.first.Follow:
			return v.ended(v.m.Look())
		case stopped: // all that another run prints is new
			replay, broken = true, 0
		default:
			replay = false
			if broken++; broken == maxAttach {
				return refuse.New(connect.CodeUnavailable, refuse.WrongState, "the console was closed under the running guest: open it again")
			}
		}
	}
}

func (v *viewer) ended(look machine.View) error {
	return v.stream.Send(&ashlarv1.ConsoleResponse{Ended: look.VM})
}

func changed(ctx context.Context, look machine.View) error {
	select {
	case <-look.Changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// open connects to the console; nil where the guest has just stopped.
func (v *viewer) open(ctx context.Context, look machine.View) (net.Conn, error) {
	callCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	f, err := v.core.File(callCtx, hostcall.Call{Method: hostcall.GuestConsole, ID: v.m.UID()})
	var he *hostcall.Error
	switch {
	case err == nil:
		defer f.Close()
		conn, err := net.FileConn(f)
		if err != nil {
			return nil, refuse.Internal(fmt.Errorf("console of %s: %w", v.first.Name, err))
		}
		return conn, nil
	case errors.Is(err, link.ErrDown):
		if v.core.WaitUp(callCtx) == nil {
			return nil, nil
		}
	case errors.As(err, &he) && (he.Code == hostcall.FailedPrecondition || he.Code == hostcall.NotFound):
		// It has stopped, or is not up yet: the news is on its way.
		linger, cancel := context.WithTimeout(ctx, lingering)
		defer cancel()
		if changed(linger, look) == nil {
			return nil, nil
		}
	}
	return nil, refuse.Core(err, v.first.Name, nil)
}

// attach shows one connection to its end. The error is one of the stream.
func (v *viewer) attach(ctx context.Context, conn net.Conn, replay bool) error {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	over := make(chan struct{})
	defer close(over)
	if !replay && !drain(conn) {
		return ctx.Err()
	}
	go v.endAfter(conn, over)
	v.input.attach(conn)
	defer v.input.attach(nil)
	buf := make([]byte, chunk)
	for {
		n, err := conn.Read(buf)
		if n > 0 {
			if serr := v.stream.Send(&ashlarv1.ConsoleResponse{Output: buf[:n]}); serr != nil {
				return serr
			}
		}
		if err != nil {
			return ctx.Err()
		}
	}
}

// endAfter ends the reading of conn some time after the guest has stopped, in case
// somebody else still holds the other end.
func (v *viewer) endAfter(conn net.Conn, over <-chan struct{}) {
	for {
		look := v.m.Look()
		if !look.Alive {
			_ = conn.SetReadDeadline(time.Now().Add(lingering)) // fails where it is closed: good
			return
		}
		select {
		case <-look.Changed:
		case <-over:
			return
		}
	}
}

// drain drops what a console has to replay; false means that it has closed.
func drain(conn net.Conn) bool {
	buf := make([]byte, chunk)
	for total := 0; total < protocol.ConsoleReplay; {
		if conn.SetReadDeadline(time.Now().Add(quiet)) != nil {
			return false
		}
		n, err := conn.Read(buf[:min(len(buf), protocol.ConsoleReplay-total)])
		total += n
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return false
		}
	}
	return conn.SetReadDeadline(time.Time{}) == nil
}

// runEnded waits, now that the console of the run in look has closed, until that run is
// over; false where it goes on.
func (v *viewer) runEnded(ctx context.Context, look machine.View) (bool, error) {
	linger, cancel := context.WithTimeout(ctx, lingering)
	defer cancel()
	for {
		now := v.m.Look()
		if !now.Alive || !now.VM.GetStartTime().AsTime().Equal(look.VM.GetStartTime().AsTime()) {
			return true, nil
		}
		if changed(linger, now) != nil {
			return false, ctx.Err()
		}
	}
}

// showLog sends the end of the log of a guest that does not run.
func (v *viewer) showLog(ctx context.Context) error {
	f, err := OpenLog(ctx, v.core, v.m)
	if f == nil || err != nil {
		return err
	}
	defer f.Close()
	return Tail(f, protocol.ConsoleReplay, func(b []byte) error {
		return v.stream.Send(&ashlarv1.ConsoleResponse{Output: b})
	})
}
