//go:build roottest

package dhcp

import (
	"context"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// cable makes a network namespace with the two ends of a cable in it, "client"
// and "server". The thread ends with the test.
func cable(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("unshare: %v: needs root and CONFIG_NET_NS", err)
	}
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "client"}, PeerName: "server"}); err != nil {
		t.Fatalf("veth: %v: needs CONFIG_VETH", err)
	}
	for _, name := range []string{"lo", "client", "server"} {
		l, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetUp(l); err != nil {
			t.Fatal(err)
		}
		if name == "server" {
			a, _ := netlink.ParseAddr("192.0.2.2/24")
			if err := netlink.AddrAdd(l, a); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// serve answers requests with what answer returns for each.
func serve(t *testing.T, answer func(*dhcpv4.DHCPv4) []*dhcpv4.DHCPv4) {
	t.Helper()
	s, err := server4.NewServer("server", &net.UDPAddr{Port: 67}, func(conn net.PacketConn, _ net.Addr, m *dhcpv4.DHCPv4) {
		for _, a := range answer(m) {
			if _, err := conn.WriteTo(a.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: 68}); err != nil {
				t.Errorf("answer: %v", err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve()
	t.Cleanup(func() { s.Close() })
}

func answer(m *dhcpv4.DHCPv4, kind dhcpv4.MessageType, ip string, change ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	a, err := dhcpv4.NewReplyFromRequest(m, append([]dhcpv4.Modifier{
		dhcpv4.WithMessageType(kind),
		dhcpv4.WithYourIP(net.ParseIP(ip)),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(192, 0, 2, 2))),
		dhcpv4.WithNetmask(net.CIDRMask(24, 32)),
		dhcpv4.WithLeaseTime(60),
	}, change...)...)
	if err != nil {
		panic(err)
	}
	return a
}

// start runs a client; its events can be read.
func start(t *testing.T) *Reader {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := &Client{Interface: "client", Hostname: "host", Events: w, Log: testLog{t}, renewal: 50 * time.Millisecond}
	conn, err := c.Open()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { c.Run(ctx, conn); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended; conn.Close(); w.Close(); r.Close() })
	r.SetReadDeadline(time.Now().Add(30 * time.Second))
	return NewReader(r)
}

type testLog struct{ t *testing.T }

func (l testLog) Write(b []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func address(t *testing.T, r *Reader) string {
	t.Helper()
	e, err := r.Read()
	if err != nil {
		t.Fatal(err)
	}
	if e.Lease == nil {
		return "lost: " + e.Lost
	}
	return e.Lease.Address.String()
}

// TestClientPassesOverBadOffers: of several offers the first good one is taken.
func TestClientPassesOverBadOffers(t *testing.T) {
	cable(t)
	serve(t, func(m *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
		if m.MessageType() == dhcpv4.MessageTypeDiscover {
			return []*dhcpv4.DHCPv4{
				answer(m, dhcpv4.MessageTypeOffer, "127.0.0.1"),
				answer(m, dhcpv4.MessageTypeOffer, "192.0.2.9", dhcpv4.WithRouter(net.IPv4(8, 8, 8, 8))),
				answer(m, dhcpv4.MessageTypeOffer, "192.0.2.10"),
				answer(m, dhcpv4.MessageTypeOffer, "192.0.2.11"),
			}
		}
		return []*dhcpv4.DHCPv4{answer(m, dhcpv4.MessageTypeAck, m.RequestedIPAddress().String())}
	})
	if got := address(t, start(t)); got != "192.0.2.10/24" {
		t.Errorf("the client takes %s, want 192.0.2.10/24", got)
	}
}

// TestClientAfterNAK: a request that is refused leads to a new discovery.
func TestClientAfterNAK(t *testing.T) {
	cable(t)
	requests := 0
	serve(t, func(m *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
		if m.MessageType() == dhcpv4.MessageTypeDiscover {
			return []*dhcpv4.DHCPv4{answer(m, dhcpv4.MessageTypeOffer, "192.0.2.10")}
		}
		if requests++; requests == 1 {
			return []*dhcpv4.DHCPv4{answer(m, dhcpv4.MessageTypeNak, "0.0.0.0")}
		}
		return []*dhcpv4.DHCPv4{answer(m, dhcpv4.MessageTypeAck, "192.0.2.10")}
	})
	if got := address(t, start(t)); got != "192.0.2.10/24" {
		t.Errorf("the client takes %s, want 192.0.2.10/24", got)
	}
	if requests != 2 {
		t.Errorf("%d requests, want 2", requests)
	}
}

// TestKeep renews a short lease, is refused, and says so.
func TestKeep(t *testing.T) {
	cable(t)
	renewals := 0
	serve(t, func(m *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
		if renewals++; renewals == 1 {
			return []*dhcpv4.DHCPv4{answer(m, dhcpv4.MessageTypeNak, "0.0.0.0")}
		}
		return nil
	})
	c := &Client{Interface: "client", Events: testLog{t}, Log: testLog{t}, renewal: 50 * time.Millisecond}
	conn, err := c.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ack := reply(t, dhcpv4.WithHwAddr(conn.InterfaceAddr()))
	l := goodLease()
	l.Lifetime = 200 * time.Millisecond
	if lost, err := c.keep(context.Background(), conn, l, ack); err != nil || lost != "the server took the lease back" {
		t.Errorf("keep = %q, %v after a NAK", lost, err)
	}
	if lost, err := c.keep(context.Background(), conn, l, ack); err != nil || lost != "the lease has expired" {
		t.Errorf("keep = %q, %v without an answer", lost, err)
	}
}
