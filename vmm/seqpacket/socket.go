package seqpacket

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Dial connects to the socket at path.
func Dial(path string) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket for %s: %w", path, err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, errors.Join(fmt.Errorf("connect to %s: %w", path, err), unix.Close(fd))
	}
	return New(os.NewFile(uintptr(fd), path)), nil
}

// FromFile wraps the connected socket f, which is closed.
func FromFile(f *os.File) (*Conn, error) {
	own, err := waitable(f)
	if err != nil {
		return nil, err
	}
	return New(own), nil
}

// waitable is another descriptor of the SOCK_SEQPACKET socket f, which is closed: one that
// does not block, so that the runtime waits for it, whatever f was.
func waitable(f *os.File) (own *os.File, err error) {
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("wrap %s: %w", f.Name(), err)
	}
	fd := -1
	if cerr := raw.Control(func(old uintptr) {
		var kind int
		if kind, err = unix.GetsockoptInt(int(old), unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
			return
		}
		if kind != unix.SOCK_SEQPACKET {
			err = fmt.Errorf("a socket of type %d: %w", kind, unix.EPROTOTYPE)
			return
		}
		fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
	}); cerr != nil {
		err = cerr
	}
	if err != nil {
		return nil, fmt.Errorf("wrap %s: not a socket for packets: %w", f.Name(), err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(fmt.Errorf("wrap %s: %w", f.Name(), err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// A Listener is a SOCK_SEQPACKET socket that listens.
type Listener struct{ f *os.File }

// Listen wraps the listening socket f, which is closed.
func Listen(f *os.File) (*Listener, error) {
	own, err := waitable(f)
	if err != nil {
		return nil, err
	}
	return &Listener{own}, nil
}

// Accept waits for a connection.
func (l *Listener) Accept() (*Conn, error) {
	var (
		fd  int
		err error
	)
	if werr := until(l.f, syscall.RawConn.Read, func(listening int) error {
		fd, _, err = unix.Accept4(listening, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		return err
	}); werr != nil {
		return nil, fmt.Errorf("accept: %w", werr)
	}
	return New(os.NewFile(uintptr(fd), l.f.Name())), nil
}

// Close closes the socket; an Accept under way returns an error that wraps os.ErrClosed.
func (l *Listener) Close() error { return l.f.Close() }

// until calls do as often as it has to be called again, and waits for the socket between:
// wait is RawConn's Read or Write.
func until(s Socket, wait func(syscall.RawConn, func(fd uintptr) bool) error, do func(fd int) error) error {
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	if werr := wait(raw, func(fd uintptr) bool {
		for {
			if err = do(int(fd)); !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ECONNABORTED) {
				return !errors.Is(err, unix.EAGAIN)
			}
		}
	}); werr != nil {
		return os.ErrClosed // nothing else ends a wait, as no deadline is set
	}
	return err
}

// sendmsg sends one packet.
func sendmsg(s Socket, b, oob []byte) error {
	return until(s, syscall.RawConn.Write, func(fd int) error { return unix.Sendmsg(fd, b, oob, nil, 0) })
}

// recvmsg waits for one packet.
func recvmsg(s Socket, b, oob []byte) (n, oobn, flags int, err error) {
	err = until(s, syscall.RawConn.Read, func(fd int) (err error) {
		n, oobn, flags, _, err = unix.Recvmsg(fd, b, oob, unix.MSG_CMSG_CLOEXEC)
		return err
	})
	return n, oobn, flags, err
}
