package netd

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/vmm/seqpacket"
	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"
)

const mac = "02:00:00:00:00:07"

func newTestTable(tb testing.TB) *table {
	tb.Helper()
	n, err := parseNetwork(Network{Subnet: "10.80.0.0/24", Gateway: "10.80.0.1", DNS: []string{"10.0.2.3"}, MTU: 9000})
	if err != nil {
		tb.Fatal(err)
	}
	t := newTable(n)
	if err := t.add(Host{MAC: mac, Address: "10.80.0.7"}); err != nil {
		tb.Fatal(err)
	}
	return t
}

// ask builds a packet of a client's.
func ask(tb testing.TB, hw string, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	tb.Helper()
	a, err := net.ParseMAC(hw)
	if err != nil {
		tb.Fatal(err)
	}
	p, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(a)}, mods...)...)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func requested(address string) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.ParseIP(address)))
}

func server(address string) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.ParseIP(address)))
}

func TestRespond(t *testing.T) {
	discover, request := dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest)
	tests := []struct {
		name    string
		ask     *dhcpv4.DHCPv4
		want    dhcpv4.MessageType // 0 for no answer
		address string
		to      string
		lease   bool
	}{
		{"discover", ask(t, mac, discover), dhcpv4.MessageTypeOffer, "10.80.0.7", "255.255.255.255:68", false},
		{"discover of a stranger", ask(t, "02:00:00:00:00:08", discover), 0, "", "", false},
		{"request", ask(t, mac, request, requested("10.80.0.7"), server("10.80.0.1")), dhcpv4.MessageTypeAck, "10.80.0.7", "255.255.255.255:68", true},
		{"request to another server", ask(t, mac, request, requested("10.80.0.7"), server("10.80.0.2")), 0, "", "", false},
		{"request of another's address", ask(t, mac, request, requested("10.80.0.8")), dhcpv4.MessageTypeNak, "0.0.0.0", "255.255.255.255:68", false},
		{"request of nothing", ask(t, mac, request), dhcpv4.MessageTypeNak, "0.0.0.0", "255.255.255.255:68", false},
		{"renewal", ask(t, mac, request, dhcpv4.WithClientIP(net.IPv4(10, 80, 0, 7))), dhcpv4.MessageTypeAck, "10.80.0.7", "10.80.0.7:68", true},
		{"renewal of the host's address", ask(t, mac, request, dhcpv4.WithClientIP(net.IPv4(10, 80, 0, 1))), dhcpv4.MessageTypeNak, "0.0.0.0", "255.255.255.255:68", false},
		{"inform", ask(t, mac, dhcpv4.WithMessageType(dhcpv4.MessageTypeInform), dhcpv4.WithClientIP(net.IPv4(10, 80, 0, 7))), dhcpv4.MessageTypeAck, "0.0.0.0", "10.80.0.7:68", false},
		{"inform from elsewhere", ask(t, mac, dhcpv4.WithMessageType(dhcpv4.MessageTypeInform), dhcpv4.WithClientIP(net.IPv4(8, 8, 8, 8))), dhcpv4.MessageTypeAck, "0.0.0.0", "255.255.255.255:68", false},
		{"release", ask(t, mac, dhcpv4.WithMessageType(dhcpv4.MessageTypeRelease)), 0, "", "", false},
		{"decline", ask(t, mac, dhcpv4.WithMessageType(dhcpv4.MessageTypeDecline)), 0, "", "", false},
		{"relayed", ask(t, mac, discover, dhcpv4.WithGatewayIP(net.IPv4(1, 2, 3, 4))), 0, "", "", false},
		{"an answer", ask(t, mac, discover, func(d *dhcpv4.DHCPv4) { d.OpCode = dhcpv4.OpcodeBootReply }), 0, "", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, err := newTestTable(t).respond(tt.ask.ToBytes())
			if tt.want == 0 {
				if !errors.Is(err, errIgnored) {
					t.Errorf("respond = %+v, %v; want none", a, err)
				}
				return
			}
			if err != nil {
				t.Fatalf("respond: %v", err)
			}
			got, err := dhcpv4.FromBytes(a.packet)
			if err != nil {
				t.Fatal(err)
			}
			if got.MessageType() != tt.want || got.YourIPAddr.String() != tt.address || a.to.String() != tt.to || (a.lease != nil) != tt.lease {
				t.Errorf("respond = %s to %s, lease %v", got.Summary(), a.to, a.lease)
			}
			if got.TransactionID != tt.ask.TransactionID || got.ServerIdentifier().String() != "10.80.0.1" {
				t.Errorf("not an answer to the question: %s", got.Summary())
			}
			if tt.want == dhcpv4.MessageTypeAck && tt.lease {
				if got.IPAddressLeaseTime(0) != LeaseSeconds*time.Second || got.Router()[0].String() != "10.80.0.1" ||
					got.DNS()[0].String() != "10.0.2.3" || net.IP(got.SubnetMask()).String() != "255.255.255.0" {
					t.Errorf("options: %s", got.Summary())
				}
				if d := cmp.Diff([]byte{0x23, 0x28}, got.Options.Get(dhcpv4.OptionInterfaceMTU)); d != "" {
					t.Errorf("MTU (-want +got):\n%s", d)
				}
				if d := cmp.Diff(&Lease{MAC: mac, Address: "10.80.0.7"}, a.lease); d != "" {
					t.Errorf("lease (-want +got):\n%s", d)
				}
			}
		})
	}
}

func TestApply(t *testing.T) {
	tables := []*table{newTestTable(t)}
	for _, o := range []Order{
		{Add: &Host{Network: 1, MAC: mac, Address: "10.80.0.7"}},
		{Add: &Host{Network: -1, MAC: mac, Address: "10.80.0.7"}},
		{Add: &Host{MAC: "x", Address: "10.80.0.7"}},
		{Add: &Host{MAC: mac, Address: "10.81.0.7"}},
		{Add: &Host{MAC: mac, Address: "10.80.0.1"}},
		{Remove: &Host{Network: 5, MAC: mac}},
		{Networks: []Network{{}}},
	} {
		if err := apply(tables, o); err == nil {
			t.Errorf("apply(%+v): no error", o)
		}
	}
	if err := apply(tables, Order{Remove: &Host{MAC: mac}}); err != nil {
		t.Fatal(err)
	}
	if a, ok := tables[0].address(macAddress{2, 0, 0, 0, 0, 7}); ok {
		t.Errorf("removed host has %s", a)
	}
}

// serve runs a netd without a jail on a socket for its one network.
func serve(t *testing.T, socket *os.File) (core *seqpacket.Conn, ended <-chan error) {
	t.Helper()
	ours, theirs, err := seqpacket.Pair()
	if err != nil {
		t.Fatal(err)
	}
	core, err = seqpacket.FromFile(ours)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { core.Close() })
	conn, err := seqpacket.FromFile(theirs)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		defer conn.Close()
		done <- Serve(conn, func() error { return nil }, slog.New(slog.NewTextHandler(io.Discard, nil)))
	}()
	if err := core.Send(Order{Networks: []Network{{Subnet: "127.0.0.0/8", Gateway: "127.0.0.1"}}}, socket); err != nil {
		t.Fatal(err)
	}
	return core, done
}

// TestServeTellsOnce lets a guest renew its lease again and again.
func TestServeTellsOnce(t *testing.T) {
	l, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	socket, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	core, ended := serve(t, socket)
	guest, err := net.Dial("udp4", l.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer guest.Close()
	host := Host{MAC: mac, Address: "127.0.0.7"}
	renew := ask(t, mac, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithClientIP(net.IPv4(127, 0, 0, 7))).ToBytes()
	leases := make(chan Lease, 100)
	go func() {
		defer close(leases)
		for {
			var l Lease
			if _, err := core.Recv(&l); err != nil {
				return
			}
			leases <- l
		}
	}()
	for range 2 { // the second time as if the guest had been started again
		if err := core.Send(Order{Add: &host}); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); len(leases) == 0; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("no word of the lease")
			}
			guest.Write(renew)
		}
		for range 20 {
			guest.Write(renew)
		}
		time.Sleep(100 * time.Millisecond)
		if got := <-leases; got != (Lease{MAC: mac, Address: "127.0.0.7"}) || len(leases) != 0 {
			t.Errorf("lease %+v, and %d more", got, len(leases))
		}
	}
	core.Close()
	if err := <-ended; err != nil {
		t.Errorf("Serve = %v at core's end", err)
	}
}

// TestServeEndsWithSocket breaks the socket of a network: netd ends, for another
// to be started, and does not leave that network without an answer.
func TestServeEndsWithSocket(t *testing.T) {
	closed, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	c, err := net.DialUDP("udp4", nil, closed.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	socket, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	_, ended := serve(t, socket)
	late := time.After(10 * time.Second)
	for {
		c.Write([]byte("x")) // refused, which the next read says
		select {
		case err := <-ended:
			if err == nil {
				t.Error("Serve on a broken socket: no error")
			}
			return
		case <-time.After(100 * time.Millisecond):
		case <-late:
			t.Fatal("netd goes on")
		}
	}
}

// FuzzOrder reads orders: none makes netd panic, and what is in the table after
// it are addresses of guests.
func FuzzOrder(f *testing.F) {
	f.Add([]byte(`{"add":{"network":0,"mac":"02:00:00:00:00:01","address":"10.80.0.9"}}`))
	f.Add([]byte(`{"add":{"network":-1,"mac":"02:00:00:00:00:01","address":"::ffff:10.80.0.9"}}`))
	f.Add([]byte(`{"remove":{"mac":"02:00:00:00:00:07"}}`))
	f.Add([]byte(`{"networks":[{"subnet":"10.0.0.0/8","gateway":"10.0.0.1","dns":["::1"]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var o Order
		if json.Unmarshal(b, &o) != nil {
			return
		}
		for _, n := range o.Networks {
			if got, err := parseNetwork(n); err == nil && !got.subnet.Contains(got.gateway) {
				t.Errorf("parseNetwork(%+v) = %+v", n, got)
			}
		}
		tab := newTestTable(t)
		_ = apply([]*table{tab}, o)
		for mac, a := range tab.hosts {
			if !tab.network.subnet.Contains(a) || a == tab.network.gateway {
				t.Errorf("%s has %s", mac, a)
			}
		}
	})
}

func TestParseNetwork(t *testing.T) {
	for _, n := range []Network{
		{}, {Subnet: "10.0.0.0/24"}, {Subnet: "fe80::/64", Gateway: "fe80::1"}, {Subnet: "10.0.0.0/24", Gateway: "10.0.1.1"},
		{Subnet: "10.0.0.0/24", Gateway: "10.0.0.1", DNS: []string{"x"}},
		{Subnet: "10.0.0.0/24", Gateway: "10.0.0.1", DNS: []string{"::1"}},
	} {
		if got, err := parseNetwork(n); err == nil {
			t.Errorf("parseNetwork(%+v) = %+v", n, got)
		}
	}
}

// FuzzDHCP sends packets: only the one known guest is ever answered, and only
// with its own address.
func FuzzDHCP(f *testing.F) {
	for _, kind := range []dhcpv4.MessageType{dhcpv4.MessageTypeDiscover, dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeInform} {
		f.Add(ask(f, mac, dhcpv4.WithMessageType(kind), requested("10.80.0.7")).ToBytes())
		f.Add(ask(f, mac, dhcpv4.WithMessageType(kind), dhcpv4.WithClientIP(net.IPv4(10, 80, 0, 7))).ToBytes())
	}
	f.Add(make([]byte, 300))
	f.Add([]byte{1, 1, 6})
	tab := newTestTable(f)
	f.Fuzz(func(t *testing.T, packet []byte) {
		a, err := tab.respond(packet)
		if err != nil {
			if a.packet != nil || a.to != nil || a.lease != nil {
				t.Errorf("an error, and an answer %+v", a)
			}
			return
		}
		got, err := dhcpv4.FromBytes(a.packet)
		if err != nil {
			t.Fatalf("the answer is no packet: %v", err)
		}
		if got.ClientHWAddr.String() != mac {
			t.Errorf("answered %s", got.ClientHWAddr)
		}
		to, _ := netip.AddrFromSlice(a.to.IP.To4())
		if to != netip.MustParseAddr("255.255.255.255") && to != netip.MustParseAddr("10.80.0.7") {
			t.Errorf("answered to %s", a.to)
		}
		if ip := got.YourIPAddr.String(); ip != "0.0.0.0" && ip != "10.80.0.7" {
			t.Errorf("gave the address %s", ip)
		}
	})
}
