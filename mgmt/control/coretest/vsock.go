package coretest

import (
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// CID is that of all guests with a socket device.
const CID = 4711

// Listen makes serve answer connections to a port of all guests. It closes what it gets.
func (c *Core) Listen(port uint32, serve func(*net.UnixConn)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ports == nil {
		c.ports = map[uint32]func(*net.UnixConn){}
	}
	c.ports[port] = serve
}

// connect makes a connection to a port of a guest that runs. mu is held.
func (c *Core) connect(g *guest, port uint32) (*os.File, error) {
	serve := c.ports[port]
	switch {
	case !g.spec.Vsock:
		return nil, &hostcall.Error{Code: hostcall.FailedPrecondition, Field: "vsock", Message: "no socket device"}
	case serve == nil:
		return nil, &hostcall.Error{Code: hostcall.FailedPrecondition, Field: "port", Message: "Nobody listens."}
	}
	return c.pair(serve)
}

// pair has serve answer a new connection. mu is held.
func (c *Core) pair(serve func(*net.UnixConn)) (*os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	mine, theirs := os.NewFile(uintptr(fds[0]), "guest"), os.NewFile(uintptr(fds[1]), "client")
	defer mine.Close()
	conn, err := net.FileConn(mine)
	if err != nil {
		theirs.Close()
		return nil, err
	}
	c.viewing.Go(func() { serve(conn.(*net.UnixConn)) })
	return theirs, nil
}
