package guest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"golang.org/x/sys/unix"
)

// connectTimeout is how long a guest may leave a connection without an answer.
const connectTimeout = 10 * time.Second

// chooseCID finds a CID for the guest id that is none of those taken: always the same
// one, unless another guest has it.
func chooseCID(id string, taken map[uint32]bool) uint32 {
	const count = protocol.MaxCID - protocol.MinCID + 1
	sum := sha256.Sum256([]byte("vsock " + id))
	for at := binary.LittleEndian.Uint64(sum[:]) % count; ; at = (at + 1) % count {
		if cid := uint32(protocol.MinCID + at); !taken[cid] {
			return cid
		}
	}
}

// cid is chooseCID among the guests that run. The caller holds m.mu.
func (m *Manager) cid(id string) uint32 {
	taken := make(map[uint32]bool)
	for _, r := range m.running {
		taken[r.rec.CID] = true
	}
	return chooseCID(id, taken)
}

func (m *Manager) gatherVsock(r *run, _ *hostcall.Guest, spec *protocol.Spec, l *fileList) error {
	if r.rec.CID == 0 {
		return nil
	}
	f, err := openDevice("/dev/vhost-vsock", unix.O_RDWR)
	if err != nil {
		return &hostcall.Error{Code: hostcall.Unavailable, Field: "guest.vsock",
			Message: fmt.Sprintf("The host cannot serve a socket device: %v.", err)}
	}
	spec.Vsock = &protocol.Vsock{Vhost: l.add(f), CID: r.rec.CID}
	return nil
}

// Connect connects to a port of a guest (hostcall.GuestConnect). What comes out of it is
// not looked at here.
func (m *Manager) Connect(ctx context.Context, id string, port uint32) (*os.File, error) {
	if port == 0 || port == math.MaxUint32 {
		return nil, &hostcall.Error{Code: hostcall.InvalidArgument, Field: "port",
			Message: fmt.Sprintf("A port is 1 to %d, not %d.", uint32(math.MaxUint32-1), port)}
	}
	r, err := m.find(id)
	if err != nil {
		return nil, err
	}
	if err := m.notPaused(r); err != nil {
		return nil, err
	}
	if r.rec.CID == 0 {
		return nil, &hostcall.Error{Code: hostcall.FailedPrecondition, Field: "vsock", Message: "The guest has no socket device."}
	}
	f, err := dialVsock(ctx, r.rec.CID, port, connectTimeout)
	switch {
	case err == nil:
		return f, nil
	// The guest's answer to a port where nobody listens is a reset.
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.ECONNREFUSED):
		return nil, &hostcall.Error{Code: hostcall.FailedPrecondition, Field: "port",
			Message: fmt.Sprintf("Nobody listens on port %d in the guest.", port)}
	case errors.Is(err, unix.ETIMEDOUT), errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &hostcall.Error{Code: hostcall.DeadlineExceeded,
			Message: fmt.Sprintf("The guest has not answered within %v: it has no driver for its socket device yet, or does not run well.", connectTimeout)}
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH):
		return nil, &hostcall.Error{Code: hostcall.FailedPrecondition, Message: "The guest has stopped."}
	}
	return nil, err
}

// dialVsock connects a stream socket that does not block.
func dialVsock(ctx context.Context, cid, port uint32, timeout time.Duration) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("make vsock socket: %w", err)
	}
	limit := unix.NsecToTimeval(timeout.Nanoseconds())
	err = unix.SetsockoptTimeval(fd, unix.AF_VSOCK, unix.SO_VM_SOCKETS_CONNECT_TIMEOUT, &limit)
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrVM{CID: cid, Port: port})
	}
	f := os.NewFile(uintptr(fd), fmt.Sprintf("vsock %d:%d", cid, port))
	if errors.Is(err, unix.EINPROGRESS) {
		err = connected(ctx, f, timeout)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("connect to %s: %w", f.Name(), err)
	}
	return f, nil
}

// connected waits for the end of a connect that is under way.
func connected(ctx context.Context, f *os.File, timeout time.Duration) error {
	// The kernel's own limit comes first.
	if err := f.SetWriteDeadline(time.Now().Add(timeout + time.Second)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Write(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(p, 0)
		if n == 0 || errors.Is(err, unix.EINTR) {
			return false
		}
		var code int
		if err == nil {
			code, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		}
		if failed = err; err == nil && code != 0 {
			failed = unix.Errno(code)
		}
		return true
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(err, failed)
}
