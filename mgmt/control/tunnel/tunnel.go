// Package tunnel joins clients with ports of guests (ConnectVirtualMachine). Each
// connection is a socket that core has connected (hostcall.GuestConnect). What one side
// does not take, the other side keeps: here is one message of each direction at most.
package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/machine"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

const (
	// MaxData is the most data in one message, in bytes.
	MaxData = 64 << 10
	// maxTunnels bounds the connections of one machine, maxDialing those of them that the
	// guest has not answered yet: more wait for their turn.
	maxTunnels = 32
	maxDialing = 2
	// callTimeout bounds a call of core, and the wait before it.
	callTimeout = 30 * time.Second
	chunk       = 32 << 10
)

// Core is what tunnels need of core (link.Link).
type Core interface {
	File(context.Context, hostcall.Call) (*os.File, error)
}

// A Stream is one call of VirtualMachineService.ConnectVirtualMachine.
type Stream interface {
	Receive() (*ashlarv1.ConnectVirtualMachineRequest, error)
	Send(*ashlarv1.ConnectVirtualMachineResponse) error
	// CloseRead makes a Receive under way return, and all later ones.
	CloseRead()
}

// A Server serves the tunnels of all machines.
type Server struct {
	core     Core
	machines *machine.Manager

	mu   sync.Mutex
	uses map[string]*use // by UID
}

// A use is what is open of one machine.
type use struct {
	open    int
	dialing chan struct{}
}

// New makes a Server.
func New(core Core, machines *machine.Manager) *Server {
	return &Server{core: core, machines: machines, uses: map[string]*use{}}
}

// Serve serves one client to the end.
func (s *Server) Serve(ctx context.Context, stream Stream) error {
	first, err := stream.Receive()
	if errors.Is(err, io.EOF) {
		return refuse.Field("name", "is missing: the first message names the virtual machine and the port")
	}
	if err != nil {
		return err
	}
	m, err := s.machines.Find(first.Name)
	if err != nil {
		return err
	}
	to, err := targetOf(first)
	if err != nil {
		return err
	}
	if err := checkData(first); err != nil {
		return err
	}
	u, err := s.enter(m.UID(), first.Name)
	if err != nil {
		return err
	}
	defer s.leave(m.UID())
	f, err := s.dial(ctx, m, u, to)
	if err != nil {
		return err
	}
	defer f.Close()
	t := &tunnel{f: f, stream: stream, first: first}
	return t.serve(ctx)
}

func (s *Server) enter(uid, name string) (*use, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.uses[uid]
	if u == nil {
		u = &use{dialing: make(chan struct{}, maxDialing)}
		s.uses[uid] = u
	}
	if u.open >= maxTunnels {
		return nil, refuse.New(connect.CodeResourceExhausted, refuse.LimitReached,
			fmt.Sprintf("%s has %d connections, the most there may be: close one first", name, maxTunnels))
	}
	u.open++
	return u, nil
}

func (s *Server) leave(uid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.uses[uid]
	if u.open--; u.open == 0 {
		delete(s.uses, uid)
	}
}

func checkData(r *ashlarv1.ConnectVirtualMachineRequest) error {
	if len(r.Data) > MaxData {
		return refuse.Field("data", "has %d bytes: at most %d in one message", len(r.Data), MaxData)
	}
	return nil
}

// dial has core connect, once it is the turn.
func (s *Server) dial(ctx context.Context, m *machine.Machine, u *use, to target) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	select {
	case u.dialing <- struct{}{}:
		defer func() { <-u.dialing }()
	case <-ctx.Done():
		return nil, refuse.Core(ctx.Err(), m.Name(), nil)
	}
	if err := to.connectable(m); err != nil {
		return nil, err
	}
	f, err := s.core.File(ctx, hostcall.Call{Method: hostcall.GuestConnect, ID: m.UID(), Port: to.port, SerialPort: to.serial})
	if err != nil {
		return nil, refusal(err, m.Name())
	}
	defer f.Close()
	// The descriptor's flags may have changed on its way.
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, refuse.Internal(fmt.Errorf("take the connection: %w", err))
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, refuse.Internal(errors.Join(fmt.Errorf("take the connection: %w", err), unix.Close(fd)))
	}
	return os.NewFile(uintptr(fd), fmt.Sprintf("%s of %s", to, m.Name())), nil
}

// refusal turns core's error into the client's.
func refusal(err error, name string) error {
	var he *hostcall.Error
	if errors.As(err, &he) && he.Code == hostcall.FailedPrecondition {
		switch he.Field {
		case "port":
			return refuse.Precondition(refuse.ConnectionRefused, name, he.Message)
		case "vsock":
			return refuse.Precondition(refuse.NoVsock, name, he.Message)
		case "serialPort":
			return refuse.Precondition(refuse.NoSerialPort, name, he.Message)
		case "busy":
			return refuse.Precondition(refuse.PortInUse, name, he.Message)
		}
		return refuse.Precondition(refuse.WrongState, name, he.Message)
	}
	return refuse.Core(err, name, nil)
}

// A tunnel is one connection.
type tunnel struct {
	f      *os.File
	stream Stream
	first  *ashlarv1.ConnectVirtualMachineRequest
}

// serve carries data until both directions have ended, or the connection has.
func (t *tunnel) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(ctx, func() { _ = t.f.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	err := t.stream.Send(&ashlarv1.ConnectVirtualMachineResponse{})
	if err == nil {
		var up sync.WaitGroup
		up.Go(func() {
			if err := t.up(); err != nil {
				cancel(err)
			}
		})
		err = t.down(&up)
		cause := context.Cause(ctx)
		cancel(nil)
		t.stream.CloseRead()
		up.Wait()
		if cause != nil {
			err = cause
		}
	}
	cancel(nil)
	switch {
	case errors.Is(err, context.Canceled):
		return refuse.New(connect.CodeCanceled, refuse.Cancelled, "the client has gone")
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.ENOTCONN):
		return refuse.New(connect.CodeAborted, refuse.ConnectionLost,
			fmt.Sprintf("the connection to %s has broken: the guest was reset, has stopped, or cut it off", t.f.Name()))
	}
	return err
}

// up carries what the client sends, until it has closed its side, or the guest takes no
// more: down sees why.
func (t *tunnel) up() error {
	for r := t.first; ; {
		if _, err := t.f.Write(r.Data); errors.Is(err, syscall.EPIPE) {
			return nil
		} else if err != nil {
			return err
		}
		var err error
		if r, err = t.stream.Receive(); errors.Is(err, io.EOF) {
			return t.control(func(fd int) error { return unix.Shutdown(fd, unix.SHUT_WR) })
		}
		if err != nil {
			return err
		}
		if err := checkData(r); err != nil {
			return err
		}
		if r.Name != "" && r.Name != t.first.Name || elsewhere(r, t.first) {
			return refuse.Field("name", "and port are those of the first message, or left out: open another stream")
		}
	}
}

// down carries what the guest sends, and returns when it neither sends nor takes
// anything any more, or up has ended.
func (t *tunnel) down(up *sync.WaitGroup) error {
	buf := make([]byte, chunk)
	for {
		n, err := t.f.Read(buf)
		if n > 0 {
			if err := t.stream.Send(&ashlarv1.ConnectVirtualMachineResponse{Data: buf[:n]}); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	over, err := t.over()
	if over {
		return err
	}
	if err := t.stream.Send(&ashlarv1.ConnectVirtualMachineResponse{End: true}); err != nil {
		return err
	}
	go func() {
		up.Wait()
		_ = t.f.SetReadDeadline(time.Unix(1, 0)) // fails where it is closed: good
	}()
	conn, err := t.f.SyscallConn()
	if err != nil {
		return err
	}
	var why error
	if err := conn.Read(func(uintptr) bool { over, why = t.over(); return over }); !errors.Is(err, os.ErrDeadlineExceeded) {
		return errors.Join(err, why)
	}
	return nil
}

// over reports whether a guest that sends no more takes nothing either; err is why, if
// that is not by its will. A send of nothing tells.
func (t *tunnel) over() (over bool, err error) {
	err = t.control(func(fd int) error {
		if code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
			return errors.Join(err, unix.Errno(code))
		}
		_, err := unix.SendmsgN(fd, nil, nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		return err
	})
	switch {
	case err == nil, errors.Is(err, syscall.EAGAIN):
		return false, nil
	case errors.Is(err, syscall.EPIPE):
		return true, nil
	}
	return true, err
}

// control calls do with the descriptor.
func (t *tunnel) control(do func(fd int) error) error {
	conn, err := t.f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := conn.Control(func(fd uintptr) { failed = do(int(fd)) }); err != nil {
		return err
	}
	return failed
}
