package coretest

import (
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// change notes a new status and tells it. mu is held.
func (c *Core) change(g *guest, st hostcall.GuestStatus) {
	g.status = st
	for k := range c.conns {
		if k.subscribed {
			_ = k.c.Send(hostcall.Message{Event: &hostcall.Event{Guest: &st}})
		}
	}
}

// turn pauses, resumes, resets a guest that runs, or sends it an NMI. mu is held.
func (c *Core) turn(g *guest, method hostcall.Method) error {
	st := g.status
	switch method {
	case hostcall.GuestPause:
		st.State = hostcall.Paused
	case hostcall.GuestResume:
		st.State = hostcall.Running
	case hostcall.GuestReset:
		c.exit(g, string(protocol.Reset), "")
		return nil
	case hostcall.GuestNMI:
		if st.State == hostcall.Paused {
			return refusal(hostcall.FailedPrecondition, "is paused")
		}
		g.nmis++
	}
	c.change(g, st)
	return nil
}

// exit ends a guest's run. mu is held.
func (c *Core) exit(g *guest, reason, message string) {
	st := hostcall.GuestStatus{ID: g.status.ID, State: hostcall.Stopped, Reason: reason, Message: message}
	g.end(st)
	c.returnDevices(st.ID, nil)
	c.change(g, st)
}

func (g *guest) end(st hostcall.GuestStatus) {
	g.status = st
	for _, v := range g.viewers {
		v.Close()
	}
	g.viewers = nil
	if g.stopped != nil {
		close(g.stopped)
		g.stopped = nil
	}
}

// Exit ends the run of the guest with that ID.
func (c *Core) Exit(id, reason, message string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g := c.guests[id]; g != nil && g.stopped != nil {
		c.exit(g, reason, message)
	}
}

// Tell says that a guest is so, whatever it has done.
func (c *Core) Tell(st hostcall.GuestStatus) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g := c.guests[st.ID]; g != nil {
		c.change(g, st)
	}
}

// Address says what DHCP gave to the first NIC.
func (c *Core) Address(id, address string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g := c.guests[id]; g != nil {
		st := g.status
		st.Addresses = []string{address}
		c.change(g, st)
	}
}

// Give says how much memory the guest has given back, and what it says of the rest.
func (c *Core) Give(id string, actual uint64, statistics map[string]uint64, when time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g := c.guests[id]; g != nil {
		g.balloon.ActualBytes, g.balloon.Statistics, g.balloon.StatisticsTime = actual, statistics, when
	}
}

// MemoryLeft is the most in bytes that a guest gets plugged in.
const MemoryLeft = 768 << 20

// Plug says how much memory the guest has plugged in.
func (c *Core) Plug(id string, bytes uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g := c.guests[id]; g != nil {
		g.memory.PluggedBytes = bytes
	}
}

// Print prints on the console of the guest.
func (c *Core) Print(id, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.guests[id]
	if g == nil {
		return
	}
	g.output = append(g.output, text...)
	for _, v := range g.viewers {
		_, _ = v.Write([]byte(text))
	}
}

// Typed is what was typed at the console of this run.
func (c *Core) Typed(id string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g := c.guests[id]; g != nil {
		return string(g.typed)
	}
	return ""
}

// Viewers is how many consoles are open.
func (c *Core) Viewers(id string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g := c.guests[id]; g != nil {
		return len(g.viewers)
	}
	return 0
}

// view makes a console connection, replay first. mu is held.
func (c *Core) view(g *guest) (*os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	mine, theirs := os.NewFile(uintptr(fds[0]), "console"), os.NewFile(uintptr(fds[1]), "viewer")
	if _, err := mine.Write(g.output); err != nil {
		mine.Close()
		theirs.Close()
		return nil, err
	}
	reader, err := net.FileConn(mine)
	if err != nil {
		mine.Close()
		theirs.Close()
		return nil, err
	}
	g.viewers = append(g.viewers, mine)
	stopped := g.stopped
	c.viewing.Go(func() {
		<-stopped
		reader.Close()
	})
	c.viewing.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, err := reader.Read(buf)
			if err != nil {
				return
			}
			c.mu.Lock()
			g.typed = append(g.typed, buf[:n]...)
			c.mu.Unlock()
		}
	})
	return theirs, nil
}

// log writes the console log to a file and opens it. mu is held.
func (c *Core) log(id string, g *guest) (*os.File, error) {
	path := filepath.Join(c.Dir, "log-"+id)
	if err := os.WriteFile(path, g.output, 0o600); err != nil {
		return nil, err
	}
	return os.Open(path)
}
