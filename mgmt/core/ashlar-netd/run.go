package main

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/ashlar-hv/ashlar/initramfs/layout"
	"github.com/ashlar-hv/ashlar/mgmt/core/netd"
	"github.com/ashlar-hv/ashlar/vmm/jail"
	"github.com/ashlar-hv/ashlar/vmm/seqpacket"
)

const manual = `ashlar-netd answers guests that ask for their network address (DHCP).

It takes no arguments: ashlar-core starts it with descriptor 3 connected to
itself, as root in namespaces of its own. It becomes an unprivileged user in an
empty room before it reads a packet, and ends when core does.
`

func run(args []string) error {
	if len(args) > 0 {
		fmt.Print(manual)
		if args[0] == "--help" {
			return nil
		}
		return fmt.Errorf("unknown argument %q", args[0])
	}
	conn, err := seqpacket.FromFile(os.NewFile(netd.ConnFD, "core"))
	if err != nil {
		return fmt.Errorf("connect to core: %w: ashlar-netd is started by ashlar-core only", err)
	}
	defer func() { _ = conn.Close() }()
	enter := func() error {
		return jail.Enter(jail.Config{UID: layout.NetUID, GID: layout.NetUID, Files: 64, Threads: 64,
			Filter: jail.Filter{Rules: netd.Rules()}})
	}
	return netd.Serve(conn, enter, slog.New(slog.NewTextHandler(os.Stderr, nil)))
}
