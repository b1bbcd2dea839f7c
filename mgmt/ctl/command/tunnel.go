package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/ashlar-hv/ashlar/mgmt/ctl/client"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/console"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/fault"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/tunnel"
)

// connectFields are what `vm connect` and `vm forward` call the fields they set.
var connectFields = fieldTable{"name": "NAME", "port": "PORT", "serialPort": "--serial"}

const connectLong = `Connect standard input and output to a port of a virtual machine, as nc does, by
its socket device (vsock; ` + "`ashlarctl vm create --vsock`" + `): it needs no network, and
no address. A program in the guest has to listen there: socat VSOCK-LISTEN:7000,
or, with systemd 256 and later, sshd on port 22.

The end of the input ends that direction only; the command ends when the guest has
closed the connection, or both directions have ended. Nothing but the guest's own
bytes goes to standard output, so that ssh can use it:

  ssh -o ProxyCommand='ashlarctl vm connect demo 22' root@demo

With --serial it connects to a serial port (` + "`ashlarctl vm create --serial-port`" + `) that a
program in the guest has open, such as the QEMU guest agent, and that has no other
connection. Such a port cannot tell the guest of the end of the input: the command
ends when the program closes the port, or is interrupted. To ask the guest agent:

  echo '{"execute":"guest-info"}' |
    timeout 5 ashlarctl vm connect demo --serial org.qemu.guest_agent.0`

func (a *app) vmConnect() *cobra.Command {
	var serial string
	cmd := &cobra.Command{
		Use: "connect NAME {PORT|--serial PORTNAME}", Short: "Connect to a port of a virtual machine",
		Long: connectLong,
		Example: `  ashlarctl vm connect demo 7000
  ashlarctl vm connect demo 7000 <request >answer
  ashlarctl vm connect demo --serial org.qemu.guest_agent.0`,
		Args: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("serial") {
				return cobra.ExactArgs(1)(cmd, args)
			}
			return cobra.ExactArgs(2)(cmd, args)
		},
		ValidArgsFunction: a.firstArg(a.completeMachines()),
	}
	cmd.RunE = a.withHost(func(ctx context.Context, h *client.Host, args []string) error {
		t, err := a.connectTarget(h, args, serial)
		if err != nil {
			return err
		}
		err = t.Run(ctx, func(ctx context.Context, send func([]byte) error) error {
			return console.Pump(ctx, a.In, send)
		}, standardOutput{a.Out}, func() {})
		if err != nil {
			return fmt.Errorf("connect to %s of %s: %w", t, args[0], err)
		}
		return nil
	})
	cmd.Flags().StringVar(&serial, "serial", "", "connect to the serial port of this name")
	a.must(cmd.RegisterFlagCompletionFunc("serial", a.completeSerialPorts))
	return cmd
}

// standardOutput is an Output that others may still need.
type standardOutput struct{ io.Writer }

// CloseWrite does nothing.
func (standardOutput) CloseWrite() error { return nil }

// target is a port of a guest as the command line says it.
func (a *app) target(h *client.Host, name, port string) (tunnel.Target, error) {
	a.field = connectFields.name
	n, err := parsePort(port, math.MaxUint32-1)
	if err != nil {
		return tunnel.Target{}, fault.With(fault.Usage, err)
	}
	return tunnel.Target{Client: h.VirtualMachines, Name: resource(machines, name), Port: n}, nil
}

// parsePort reads a port from 1 to most.
func parsePort(s string, most uint64) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 0 || n > most {
		return 0, fmt.Errorf("port %q: want a number from 1 to %d", s, most)
	}
	return uint32(n), nil
}

const forwardLong = `Listen on ports of this machine, on 127.0.0.1 alone, and carry each connection to a
port of a virtual machine, by its socket device (vsock), as ` + "`ashlarctl vm connect`" + ` does.
LOCALPORT 0 is one that is free. It goes on, also over resets of the guest, until
it is interrupted.`

func (a *app) vmForward() *cobra.Command {
	cmd := &cobra.Command{
		Use: "forward NAME LOCALPORT:PORT...", Short: "Forward local ports to a virtual machine",
		Long:              forwardLong,
		Example:           "  ashlarctl vm forward demo 8080:80\n  ashlarctl vm forward demo 2222:22 0:7000",
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: a.firstArg(a.completeMachines()),
	}
	cmd.RunE = a.withHost(func(ctx context.Context, h *client.Host, args []string) error {
		return a.forward(ctx, h, args[0], args[1:])
	})
	return cmd
}

// forward listens on all ports, or on none.
func (a *app) forward(ctx context.Context, h *client.Host, name string, pairs []string) error {
	var targets []tunnel.Target
	var locals []string
	for _, p := range pairs {
		local, port, ok := strings.Cut(p, ":")
		if !ok {
			return fault.With(fault.Usage, fmt.Errorf("%q: want LOCALPORT:PORT", p))
		}
		if local != "0" {
			if _, err := parsePort(local, math.MaxUint16); err != nil {
				return fault.With(fault.Usage, err)
			}
		}
		t, err := a.target(h, name, port)
		if err != nil {
			return err
		}
		targets, locals = append(targets, t), append(locals, local)
	}
	if _, err := getMachine(ctx, h, name); err != nil {
		return err
	}
	var listeners []net.Listener
	for _, local := range locals {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", local))
		if err != nil {
			for _, l := range listeners {
				l.Close()
			}
			return err
		}
		listeners = append(listeners, l)
	}
	return a.forwardAll(ctx, targets, listeners)
}

// forwardAll forwards until ctx ends, or a listener.
func (a *app) forwardAll(ctx context.Context, targets []tunnel.Target, listeners []net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex // of notes
	var all sync.WaitGroup
	errs := make([]error, len(targets))
	for i, t := range targets {
		id := bareID(machines, t.Name)
		mu.Lock()
		a.note("Forwarding %s to port %d of %s; Ctrl-C ends it.", listeners[i].Addr(), t.Port, id)
		mu.Unlock()
		all.Go(func() {
			defer cancel()
			errs[i] = t.Forward(ctx, listeners[i], func(err error) {
				mu.Lock()
				defer mu.Unlock()
				a.note("ashlarctl: port %d of %s: %s", t.Port, id, fault.Sentence(err))
			})
		})
	}
	all.Wait()
	return errors.Join(errs...)
}
