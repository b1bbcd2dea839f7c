package coretest

import (
	"net"
	"os"
	"slices"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// Open makes serve answer connections to a serial port of all guests that have one of that
// name, one at a time. It closes what it gets.
func (c *Core) Open(port string, serve func(*net.UnixConn)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.serials == nil {
		c.serials = map[string]func(*net.UnixConn){}
	}
	c.serials[port] = serve
}

// connectSerial makes a connection to a serial port of a guest that runs. mu is held.
func (c *Core) connectSerial(g *guest, port string) (*os.File, error) {
	serve := c.serials[port]
	switch {
	case !slices.Contains(g.spec.SerialPorts, port):
		return nil, &hostcall.Error{Code: hostcall.FailedPrecondition, Field: "serialPort", Message: "no such port"}
	case g.serial[port]:
		return nil, &hostcall.Error{Code: hostcall.FailedPrecondition, Field: "busy", Message: "The port has a connection already."}
	case serve == nil:
		return nil, &hostcall.Error{Code: hostcall.FailedPrecondition, Field: "port", Message: "No program has the port open."}
	}
	if g.serial == nil {
		g.serial = map[string]bool{}
	}
	g.serial[port] = true
	return c.pair(func(conn *net.UnixConn) {
		serve(conn)
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(g.serial, port)
	})
}
