// Package seqpacket carries small typed messages and file descriptors between
// Ashlar's processes, over a Unix socket of type SOCK_SEQPACKET (unix(7)).
//
// A message is one JSON document of at most MaxMessage bytes in one packet,
// with at most MaxFiles descriptors beside it (SCM_RIGHTS). The kernel keeps
// packet boundaries, so there is no framing to get wrong: a packet that is
// too long, or brings more descriptors than allowed, is refused whole and
// what it brought is closed.
package seqpacket

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// MaxMessage is the largest message in bytes.
	MaxMessage = 64 << 10
	// MaxFiles is the largest number of descriptors beside one message.
	MaxFiles = 64
)

var (
	// ErrTooLarge says that a message is over MaxMessage bytes or brings
	// over MaxFiles descriptors.
	ErrTooLarge = errors.New("message too large")
	// ErrMalformed says that a packet is not the JSON document expected.
	ErrMalformed = errors.New("malformed message")
)

// A Socket is a connected SOCK_SEQPACKET socket that does not block, and that the runtime
// waits for: a *net.UnixConn or an *os.File. The VMM has no package net, which is large.
type Socket interface {
	syscall.Conn
	io.Closer
}

// A Conn is one end of a connection. Send may be called by several goroutines
// at once; Recv by one at a time.
type Conn struct {
	s Socket

	sendMu sync.Mutex // keeps the packets of one Conn in the order of Send

	recvMu sync.Mutex
	buf    []byte // guarded by recvMu
	oob    []byte // guarded by recvMu
}

// New wraps a socket, which the Conn owns from then on.
func New(s Socket) *Conn {
	return &Conn{
		s:   s,
		buf: make([]byte, MaxMessage+1),
		oob: make([]byte, unix.CmsgSpace(MaxFiles*4)),
	}
}

// Pair returns the two ends of a new connection.
func Pair() (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "seqpacket-a"), os.NewFile(uintptr(fds[1]), "seqpacket-b"), nil
}

// Close closes the connection; a Recv under way returns an error that wraps os.ErrClosed.
func (c *Conn) Close() error { return c.s.Close() }

// PeerUID is the user who connected (SO_PEERCRED).
func (c *Conn) PeerUID() (uint32, error) {
	raw, err := c.s.SyscallConn()
	if err != nil {
		return 0, err
	}
	var (
		cred    *unix.Ucred
		credErr error
	)
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, fmt.Errorf("peer credentials: %w", credErr)
	}
	return cred.Uid, nil
}

// Send sends v as JSON, with files beside it. The files stay the caller's.
func (c *Conn) Send(v any, files ...*os.File) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	if len(b) > MaxMessage || len(files) > MaxFiles {
		return fmt.Errorf("send %d bytes and %d descriptors: %w", len(b), len(files), ErrTooLarge)
	}
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		oob = unix.UnixRights(fds...)
	}
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	if err := sendmsg(c.s, b, oob); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// Recv waits for a message, decodes it into v and returns the descriptors
// that came with it, which are the caller's to close. It returns io.EOF when
// the other end has closed, and an error that wraps ErrTooLarge or
// ErrMalformed for a packet that breaks the rules: the connection can go on
// after that, but its peer is not to be trusted.
func (c *Conn) Recv(v any) ([]*os.File, error) {
	c.recvMu.Lock()
	defer c.recvMu.Unlock()
	n, oobn, flags, err := recvmsg(c.s, c.buf, c.oob)
	if err != nil {
		if errors.Is(err, syscall.ECONNRESET) {
			return nil, io.EOF
		}
		return nil, err
	}
	files, err := filesOf(c.oob[:oobn])
	if err == nil && (n > MaxMessage || flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0) {
		err = ErrTooLarge
	}
	if err == nil && n == 0 && len(files) == 0 {
		return nil, io.EOF
	}
	if err == nil {
		err = decode(c.buf[:n], v)
	}
	if err != nil {
		CloseAll(files)
		return nil, fmt.Errorf("receive: %w", err)
	}
	return files, nil
}

// decode reads exactly one JSON document from b.
func decode(b []byte, v any) error {
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}

// filesOf takes the descriptors out of the control messages in oob.
func filesOf(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	var files []*os.File
	for _, m := range msgs {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue // other control messages carry no descriptors
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}

// CloseAll closes every file in files that is not nil.
func CloseAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}
