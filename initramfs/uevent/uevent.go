// Package uevent hears of devices as they appear: the kernel's messages on the
// NETLINK_KOBJECT_UEVENT socket (lib/kobject_uevent.c).
package uevent

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// maxMessage is the kernel's UEVENT_BUFFER_SIZE and room for the header.
const maxMessage = 2048 + 1024

// kernelGroup is the multicast group that the kernel itself sends to.
const kernelGroup = 1

// An Event is one message.
type Event struct {
	// Action is "add", "remove", "change" and the like.
	Action string
	// Path is the device's folder below /sys.
	Path string
	// Subsystem is "block", "input", "net" and the like.
	Subsystem string
	// Error is, of a PCI device, how it stands with an error that the kernel has been told of
	// (ERROR_EVENT): "BEGIN_RECOVERY", "SUCCESSFUL_RECOVERY" or "FAILED_RECOVERY".
	Error string
}

// ErrNotKernel is what Parse returns for a message of another form than the
// kernel's: programs can send, too.
var ErrNotKernel = errors.New("not a uevent of the kernel")

// Parse reads a message: "action@path", then KEY=VALUE, each ended by a zero
// byte.
func Parse(b []byte) (Event, error) {
	fields := bytes.Split(bytes.TrimSuffix(b, []byte{0}), []byte{0})
	action, path, ok := bytes.Cut(fields[0], []byte("@"))
	if !ok || len(action) == 0 || len(path) == 0 || path[0] != '/' {
		return Event{}, ErrNotKernel
	}
	e := Event{Action: string(action), Path: string(path)}
	for _, f := range fields[1:] {
		if value, ok := bytes.CutPrefix(f, []byte("SUBSYSTEM=")); ok {
			e.Subsystem = string(value)
		}
		if value, ok := bytes.CutPrefix(f, []byte("ERROR_EVENT=")); ok {
			e.Error = string(value)
		}
	}
	return e, nil
}

// A Conn is a socket on which events arrive.
type Conn struct{ fd int }

// Listen opens one.
func Listen() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("open uevent socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernelGroup}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("bind uevent socket: %w", err)
	}
	// Losing events is not fatal: whoever listens looks at /sys for the truth.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<20)
	return &Conn{fd}, nil
}

// Read waits for the next event of the kernel. An overflow of the socket reads
// as an Event without a path: look at everything again.
func (c *Conn) Read() (Event, error) {
	b := make([]byte, maxMessage)
	for {
		n, from, err := unix.Recvfrom(c.fd, b, 0)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.ENOBUFS:
			return Event{Action: "change"}, nil
		case err != nil:
			return Event{}, fmt.Errorf("read uevent: %w", err)
		}
		if sender, ok := from.(*unix.SockaddrNetlink); !ok || sender.Pid != 0 {
			continue
		}
		if e, err := Parse(b[:n]); err == nil {
			return e, nil
		}
	}
}

// Close closes the socket.
func (c *Conn) Close() error { return unix.Close(c.fd) }
