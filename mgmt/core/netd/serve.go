package netd

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"

	"github.com/ashlar-hv/ashlar/vmm/jail"
	"github.com/ashlar-hv/ashlar/vmm/seqpacket"
	"golang.org/x/sys/unix"
)

// maxNetworks bounds the networks of an Order.
const maxNetworks = 32

// Rules are the system calls that Serve needs besides those of the Go runtime.
func Rules() []jail.Rule {
	return append(append(jail.Messages(), jail.NoPaths()...),
		jail.Allow(unix.SYS_RECVFROM, "requests of guests"),
		jail.Allow(unix.SYS_SENDTO, "answers to guests"))
}

// Serve takes the networks from conn, calls enter, and then answers guests
// until core ends the connection. Nothing of a guest's is read before enter.
func Serve(conn *seqpacket.Conn, enter func() error, log *slog.Logger) error {
	var first Order
	files, err := conn.Recv(&first)
	if err != nil {
		return fmt.Errorf("receive networks: %w", err)
	}
	tables, sockets, err := open(first, files)
	if err != nil {
		return fmt.Errorf("receive networks: %w", err)
	}
	var readers sync.WaitGroup
	defer readers.Wait()
	defer func() {
		for _, s := range sockets {
			_ = s.Close()
		}
	}()
	if err := enter(); err != nil {
		return err
	}
	for i := range sockets {
		readers.Go(func() {
			// One network without an answerer is no netd: core starts another.
			defer conn.Close()
			answerAll(i, tables[i], sockets[i], conn, log)
		})
	}
	for {
		var o Order
		files, err := conn.Recv(&o)
		seqpacket.CloseAll(files)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = apply(tables, o)
		}
		if err != nil {
			return fmt.Errorf("receive order: %w", err)
		}
	}
}

// open checks the first Order and makes its sockets usable. It closes files.
func open(o Order, files []*os.File) ([]*table, []net.PacketConn, error) {
	defer seqpacket.CloseAll(files)
	if len(o.Networks) == 0 || len(o.Networks) > maxNetworks || len(files) != len(o.Networks) {
		return nil, nil, fmt.Errorf("%d networks with %d sockets", len(o.Networks), len(files))
	}
	var (
		tables  []*table
		sockets []net.PacketConn
	)
	for i, n := range o.Networks {
		checked, err := parseNetwork(n)
		if err != nil {
			return nil, nil, fmt.Errorf("network %d: %w", i, err)
		}
		s, err := net.FilePacketConn(files[i])
		if err != nil {
			return nil, nil, fmt.Errorf("network %d: %w", i, err)
		}
		tables, sockets = append(tables, newTable(checked)), append(sockets, s)
	}
	return tables, sockets, nil
}

// answerAll answers the packets of one network, one after the other, until
// its socket is closed.
func answerAll(index int, t *table, socket net.PacketConn, conn *seqpacket.Conn, log *slog.Logger) {
	buf := make([]byte, maxPacket)
	for {
		n, _, err := socket.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			log.Warn("cannot read from network", "network", index, "error", err)
			return
		}
		a, err := t.respond(buf[:n])
		if err != nil {
			continue // a guest may send what it likes: not worth a line each
		}
		if _, err := socket.WriteTo(a.packet, a.to); err != nil {
			log.Warn("cannot answer guest", "network", index, "to", a.to, "error", err)
			continue
		}
		if a.lease != nil && t.tell(a.lease) {
			a.lease.Network = index
			if err := conn.Send(a.lease); err != nil {
				return // core is gone; Serve ends too
			}
		}
	}
}
