package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"time"

	driver "github.com/ashlar-hv/ashlar/drivers/network"
	"github.com/ashlar-hv/ashlar/initramfs/layout"
	"github.com/ashlar-hv/ashlar/mgmt/core/folder"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/mgmt/core/netd"
	"github.com/ashlar-hv/ashlar/vmm/jail"
	"github.com/ashlar-hv/ashlar/vmm/seqpacket"
)

const (
	dhcpPort   = 67
	backoffMin = 200 * time.Millisecond
	backoffMax = 10 * time.Second
	// steady is how long netd must have run for its next start to be at once.
	steady = 30 * time.Second
	// sendTimeout is how long netd may leave a message unread.
	sendTimeout = 5 * time.Second
)

// A server is a running netd.
type server struct {
	conn *seqpacket.Conn
	cmd  *exec.Cmd
}

// Serve runs the program binary as DHCP server until ctx ends, and starts it
// again when it dies.
func (s *Set) Serve(ctx context.Context, binary string) {
	if len(s.networks) == 0 {
		<-ctx.Done()
		return
	}
	wait := backoffMin
	for ctx.Err() == nil {
		begin := time.Now()
		err := s.serveOnce(ctx, binary)
		if ctx.Err() != nil {
			return
		}
		if time.Since(begin) > steady {
			wait = backoffMin
		}
		s.log.Error("the guests' DHCP server has ended and is started again", "error", err, "in", wait)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, backoffMax)
	}
}

// serveOnce runs one netd to its end.
func (s *Set) serveOnce(ctx context.Context, binary string) error {
	v, err := startServer(binary)
	if err != nil {
		return err
	}
	defer v.end()
	stop := context.AfterFunc(ctx, func() { _ = v.conn.Close() })
	defer stop()
	if err := s.introduce(v); err != nil {
		return err
	}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.server = nil
	}()
	for {
		var l netd.Lease
		files, err := v.conn.Recv(&l)
		seqpacket.CloseAll(files)
		if err != nil {
			return fmt.Errorf("DHCP server: %w", err)
		}
		s.take(l)
	}
}

func startServer(binary string) (*server, error) {
	ours, theirs, err := seqpacket.Pair()
	if err != nil {
		return nil, fmt.Errorf("start DHCP server: %w", err)
	}
	defer theirs.Close()
	conn, err := seqpacket.FromFile(ours)
	if err != nil {
		return nil, fmt.Errorf("start DHCP server: %w", err)
	}
	cmd := exec.Command(binary)
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{theirs} // netd.ConnFD
	cmd.SysProcAttr = jail.Attributes(layout.NetUID, layout.NetUID)
	if err := cmd.Start(); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("start DHCP server: %w", err)
	}
	return &server{conn, cmd}, nil
}

// end closes the connection, which ends netd, and sees that it does.
func (v *server) end() {
	_ = v.conn.Close()
	kill := time.AfterFunc(2*time.Second, func() { _ = v.cmd.Process.Kill() })
	defer kill.Stop()
	_ = v.cmd.Wait()
}

// introduce tells a new server everything.
func (s *Set) introduce(v *server) error {
	var (
		first   netd.Order
		sockets []*os.File
	)
	defer func() { seqpacket.CloseAll(sockets) }()
	s.mu.Lock()
	dns := s.dns
	s.mu.Unlock()
	for _, n := range s.networks {
		f, err := driver.ListenUDP(n.Bridge, dhcpPort)
		if err != nil {
			return fmt.Errorf("start DHCP server: %w", err)
		}
		sockets = append(sockets, f)
		first.Networks = append(first.Networks, netd.Network{Subnet: n.Subnet.String(), Gateway: n.Gateway.String(), DNS: dns, MTU: n.MTU})
	}
	if err := v.conn.Send(first, sockets...); err != nil {
		return fmt.Errorf("start DHCP server: %w", err)
	}
	late := time.AfterFunc(sendTimeout, func() { _ = v.conn.Close() })
	defer late.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(dns, s.dns) {
		return errors.New("start DHCP server: the DNS servers have just changed")
	}
	for _, n := range s.active {
		if err := v.conn.Send(netd.Order{Add: s.host(n)}); err != nil {
			return fmt.Errorf("start DHCP server: %w", err)
		}
	}
	s.server = v
	return nil
}

// host is n as netd knows it.
func (s *Set) host(n folder.Interface) *netd.Host {
	i, _ := s.byName(n.Network)
	return &netd.Host{Network: i, MAC: n.MAC, Address: n.Address}
}

// take checks what netd says has been taken, and passes it on.
func (s *Set) take(l netd.Lease) {
	s.mu.Lock()
	n, ok := s.active[l.MAC]
	s.mu.Unlock()
	if !ok || n.Address != l.Address {
		return // the guest has just ended
	}
	s.leased(l.MAC, l.Address)
}

// Activate lets the NICs of a starting guest have their addresses.
func (s *Set) Activate(nics []folder.Interface) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, n := range nics {
		// An adopted guest may have a NIC on what is not there any more.
		if _, ok := s.byName(n.Network); !ok {
			return &hostcall.Error{Code: hostcall.FailedPrecondition, Field: fmt.Sprintf("guest.nics[%d].network", i),
				Message: fmt.Sprintf("Network %s is not available.", n.Network)}
		}
		if _, taken := s.active[n.MAC]; taken {
			return &hostcall.Error{Code: hostcall.AlreadyExists, Field: fmt.Sprintf("guest.nics[%d].mac", i),
				Message: fmt.Sprintf("Another running guest has the address %s: choose another, or stop that guest.", n.MAC)}
		}
	}
	for _, n := range nics {
		s.active[n.MAC] = n
		s.tell(netd.Order{Add: s.host(n)})
	}
	return nil
}

// Deactivate is the opposite of Activate.
func (s *Set) Deactivate(nics []folder.Interface) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range nics {
		if s.active[n.MAC] == n {
			delete(s.active, n.MAC)
			s.tell(netd.Order{Remove: s.host(n)})
		}
	}
}

// tell sends an order to netd. The caller holds s.mu. A server that does not
// take it is ended: the next is told everything.
func (s *Set) tell(o netd.Order) {
	if s.server == nil {
		return
	}
	// A server that does not read is as good as dead.
	conn := s.server.conn
	late := time.AfterFunc(sendTimeout, func() { _ = conn.Close() })
	defer late.Stop()
	if err := s.server.conn.Send(o); err != nil {
		_ = s.server.conn.Close()
		s.server = nil
	}
}
