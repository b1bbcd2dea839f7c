package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/drivers/nic/dhcp"
	"github.com/ashlar-hv/ashlar/initramfs/layout"
	"github.com/ashlar-hv/ashlar/initramfs/process"
)

// runDHCP keeps a client running and does what it reports.
func (n *network) runDHCP(name string) {
	backoff := process.Backoff{First: firstRetry, Limit: lastRetry, Reset: goodRun}
	for {
		started := time.Now()
		err := n.followClient(name)
		delay := backoff.Next(time.Since(started))
		if n.m.goingDown() {
			return
		}
		n.m.log.Printf("network", "DHCP client: %v; starting it again in %v", err, delay)
		time.Sleep(delay)
	}
}

// followClient starts a client and applies its events until it ends.
func (n *network) followClient(name string) error {
	p, out, err := n.m.startHelper(layout.DHCPClientUID, []uintptr{unix.CAP_NET_RAW},
		"dhcp-client", name, n.m.host().Hostname)
	if err != nil {
		return err
	}
	defer out.Close()
	events := make(chan dhcp.Event)
	failed := make(chan error, 1)
	n.m.spawn("network", func() {
		err := errors.New("its events cannot be read") // what stands after a panic
		defer func() { failed <- err }()
		for r := dhcp.NewReader(out); ; {
			var e dhcp.Event
			if e, err = r.Read(); err != nil {
				return
			}
			events <- e
		}
	})
	for {
		select {
		case e := <-events:
			if e.Lease == nil {
				n.expiry = nil
				n.lost(name, e.Lost)
				continue
			}
			n.lease(name, *e.Lease)
			n.expiry = time.After(e.Lease.Lifetime)
		case <-n.expiry:
			n.expiry = nil
			n.lost(name, "the lease has expired")
		case err := <-failed:
			if errors.Is(err, io.EOF) {
				err = errors.New(endOf(p))
			}
			_ = p.Signal(syscall.SIGKILL)
			return err
		}
	}
}

// endOf says how a process ended that has closed its output, and ends one that
// goes on without.
func endOf(p *process.Process) string {
	select {
	case <-p.Done():
	case <-time.After(time.Second):
		_ = p.Signal(syscall.SIGKILL)
	}
	return p.End()
}

// startHelper starts this program as an unprivileged helper; out is its
// standard output. Its standard error goes to the kernel's log.
func (m *machine) startHelper(uid uint32, capabilities []uintptr, args ...string) (p *process.Process, out *os.File, err error) {
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	defer null.Close()
	out, outEnd, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer outEnd.Close()
	logEnd, err := m.logPipe("ashlar-" + args[0] + ": ")
	if err != nil {
		out.Close()
		return nil, nil, err
	}
	defer logEnd.Close()
	p, err = m.reaper.Start(ownPath, append([]string{helperName}, args...), &syscall.ProcAttr{
		Dir:   "/",
		Files: []uintptr{null.Fd(), outEnd.Fd(), logEnd.Fd()},
		Sys: &syscall.SysProcAttr{
			Setsid:      true,
			Credential:  &syscall.Credential{Uid: uid, Gid: uid},
			AmbientCaps: capabilities,
		},
	})
	if err != nil {
		out.Close()
		return nil, nil, err
	}
	return p, out, nil
}

// logPipe returns the writing end of a pipe whose lines go to the kernel's log.
func (m *machine) logPipe(prefix string) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	m.spawn("log", func() {
		defer r.Close()
		m.log.Relay(prefix, r)
	})
	return w, nil
}

// dhcpClient is the helper. It has CAP_NET_RAW and nothing else.
func dhcpClient(name, hostname string) error {
	c := dhcp.Client{Interface: name, Hostname: hostname, Events: os.Stdout, Log: os.Stderr}
	conn, err := c.Open()
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := shutIn(); err != nil {
		return err
	}
	return c.Run(context.Background(), conn)
}

// shutIn takes every file and every TCP port from this process, for good.
func shutIn() error {
	if err := landlock.V5.BestEffort().Restrict(); err != nil {
		return fmt.Errorf("give up files: %w", err)
	}
	return nil
}
