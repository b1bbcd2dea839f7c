//go:build roottest

package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/initramfs/layout"
	"github.com/ashlar-hv/ashlar/mgmt/core/folder"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A world is a network namespace with a thread of its own.
type world struct {
	ns   int
	work chan func()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{work: make(chan func())}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			w.ns, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		made <- err
		for f := range w.work {
			f()
		}
		unix.Close(w.ns)
	}()
	if err := <-made; err != nil {
		t.Fatalf("make network namespace: %v", err)
	}
	t.Cleanup(func() { close(w.work) })
	w.do(t, func() error { return linkUp("lo") })
	return w
}

// do runs f inside and fails the test with its error.
func (w *world) do(t *testing.T, f func() error) {
	t.Helper()
	if err := w.try(f); err != nil {
		t.Fatal(err)
	}
}

func (w *world) try(f func() error) error {
	done := make(chan error)
	w.work <- func() { done <- f() }
	return <-done
}

func linkUp(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}

// wire joins w and other by a veth pair; the end in w is a port of bridge, or
// has address.
func (w *world) wire(t *testing.T, name string, other *world, bridge, address string, mac net.HardwareAddr) {
	t.Helper()
	w.do(t, func() error {
		v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(other.ns), PeerHardwareAddr: mac}
		if err := netlink.LinkAdd(v); err != nil {
			return fmt.Errorf("add veth (CONFIG_VETH): %w", err)
		}
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if bridge != "" {
			b, err := netlink.LinkByName(bridge)
			if err != nil {
				return err
			}
			if err := netlink.LinkSetMaster(l, b); err != nil {
				return err
			}
		} else if err := addAddress(l, address); err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	})
	other.do(t, func() error { return linkUp("eth0") })
}

func addAddress(l netlink.Link, address string) error {
	a, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	return netlink.AddrAdd(l, a)
}

// configure gives eth0 an address, and a gateway where it is not "".
func (w *world) configure(t *testing.T, address, gateway string) {
	t.Helper()
	w.do(t, func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if err := addAddress(l, address); err != nil || gateway == "" {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.ParseIP(gateway)})
	})
}

// ping sends an ICMP echo request (RFC 792).
func ping(address string) error {
	c, err := net.Dial("ip4:icmp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	m := []byte{8, 0, 0, 0, 0xa5, 0x5a, 0, 1}
	binary.BigEndian.PutUint16(m[2:], ^uint16((0x0800+0xa55a+1)%0xffff))
	if _, err := c.Write(m); err != nil {
		return err
	}
	c.SetReadDeadline(time.Now().Add(2 * time.Second))
	_, err = c.Read(make([]byte, 1500))
	return err
}

// listen serves TCP on address until the test ends.
func (w *world) listen(t *testing.T, address string) {
	t.Helper()
	w.do(t, func() error {
		l, err := net.Listen("tcp4", address)
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprint(c, c.RemoteAddr().(*net.TCPAddr).IP)
				c.Close()
			}
		}()
		return nil
	})
}

// connect connects and returns what the server says: whom it sees.
func (w *world) connect(address string) (seen string, err error) {
	err = w.try(func() error {
		c, err := net.DialTimeout("tcp4", address, time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		b := make([]byte, 100)
		n, err := c.Read(b)
		seen = string(b[:n])
		return err
	})
	return seen, err
}

var mac = net.HardwareAddr{2, 0, 0, 0, 0, 1}

// TestNetworks runs two guest networks on a host with an uplink, and looks who
// can reach whom.
func TestNetworks(t *testing.T) {
	host, outside, a, b, c := newWorld(t), newWorld(t), newWorld(t), newWorld(t), newWorld(t)
	host.wire(t, "up0", outside, "", "192.0.2.1/24", nil)
	outside.configure(t, "192.0.2.2/24", "")
	info := layout.HostInfo{Interface: "up0", Networks: []layout.Network{
		{Name: "one", Subnet: "10.80.0.0/24"}, {Name: "two", Subnet: "10.81.0.0/24"}}}
	early := info
	early.Interface = ""
	for _, first := range []layout.HostInfo{info, info, early} { // the second time is core's restart
		host.do(t, func() error {
			set, problems := New(first, nil, slog.Default())
			if len(problems) > 0 {
				return fmt.Errorf("problems: %v", problems)
			}
			return set.Update(info) // the third time, a cable is plugged in late
		})
	}
	host.wire(t, "a0", a, "ashlar0", "", mac)
	host.wire(t, "b0", b, "ashlar0", "", nil)
	host.wire(t, "c0", c, "ashlar1", "", nil)
	a.configure(t, "10.80.0.2/24", "10.80.0.1")
	b.configure(t, "10.80.0.3/24", "10.80.0.1")
	c.configure(t, "10.81.0.2/24", "10.81.0.1")
	for _, w := range []struct {
		w       *world
		address string
	}{{host, "0.0.0.0:99"}, {outside, "192.0.2.2:99"}, {b, "10.80.0.3:99"}, {c, "10.81.0.2:99"}} {
		w.w.listen(t, w.address)
	}

	if err := a.try(func() error { return ping("10.80.0.1") }); err != nil {
		t.Errorf("guest pings its gateway: %v", err)
	}
	if seen, err := a.connect("192.0.2.2:99"); err != nil || seen != "192.0.2.1" {
		t.Errorf("guest to the outside: seen as %q, %v; want the host's address", seen, err)
	}
	if seen, err := a.connect("10.80.0.3:99"); err != nil || seen != "10.80.0.2" {
		t.Errorf("guest to a guest of its network: seen as %q, %v", seen, err)
	}
	for what, address := range map[string]string{
		"guest to the host at its gateway":     "10.80.0.1:99",
		"guest to the host's outer address":    "192.0.2.1:99",
		"guest to the host on another network": "10.81.0.1:99",
		"guest to a guest of another network":  "10.81.0.2:99",
	} {
		if _, err := a.connect(address); err == nil {
			t.Errorf("%s: connected", what)
		}
	}
	outside.do(t, func() error {
		_, all, _ := net.ParseCIDR("10.80.0.0/16")
		return netlink.RouteAdd(&netlink.Route{Dst: all, Gw: net.IPv4(192, 0, 2, 1)})
	})
	if _, err := outside.connect("10.80.0.3:99"); err == nil {
		t.Error("outside to a guest: connected")
	}
	a.do(t, func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return errors.Join(addAddress(l, "203.0.113.9/32"), netlink.RouteAdd(&netlink.Route{
			Dst: &net.IPNet{IP: net.IPv4(192, 0, 2, 2), Mask: net.CIDRMask(32, 32)}, Gw: net.IPv4(10, 80, 0, 1), Src: net.IPv4(203, 0, 113, 9)}))
	})
	if seen, err := a.connect("192.0.2.2:99"); err == nil {
		t.Errorf("guest under a foreign address: seen as %q", seen)
	}
}

// TestServe asks the real netd for an address, kills it, and asks again.
func TestServe(t *testing.T) {
	host, guest := newWorld(t), newWorld(t)
	leases := make(chan string, 16)
	var set *Set
	host.do(t, func() error {
		var problems []string
		set, problems = New(layout.HostInfo{DNS: []string{"9.9.9.9", "::1"}, Networks: []layout.Network{{Name: "one", Subnet: "10.80.0.0/24", MTU: 1400}}},
			func(mac, address string) { leases <- mac + " " + address }, slog.Default())
		if len(problems) > 0 {
			return fmt.Errorf("problems: %v", problems)
		}
		return nil
	})
	host.wire(t, "a0", guest, "ashlar0", "", mac)
	nic := folder.Interface{MAC: mac.String(), Network: "one", Address: "10.80.0.7"}
	if err := set.Activate([]folder.Interface{nic}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan struct{})
	go func() {
		defer close(served)
		host.try(func() error { set.Serve(ctx, netBinary(t)); return nil })
	}()
	defer func() { cancel(); <-served }()
	for range 2 {
		waitServer(t, set)
		guest.do(t, func() error { return lease("10.80.0.7", "9.9.9.9") })
		select {
		case got := <-leases:
			if got != mac.String()+" 10.80.0.7" {
				t.Errorf("leased: %s", got)
			}
		case <-time.After(5 * time.Second):
			t.Error("no word of the lease")
		}
		set.mu.Lock()
		set.server.cmd.Process.Kill()
		set.server = nil
		set.mu.Unlock()
	}
	waitServer(t, set)
	if err := set.Update(layout.HostInfo{DNS: []string{"9.9.9.10"}}); err != nil {
		t.Fatal(err)
	}
	waitServer(t, set)
	guest.do(t, func() error { return lease("10.80.0.7", "9.9.9.10") })
	set.Deactivate([]folder.Interface{nic})
	if err := guest.try(func() error { return lease("10.80.0.7", "9.9.9.9") }); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a guest that is gone asks: %v, want no answer", err)
	}
}

// netBinary is the program that is tested: on the host's place in the machine
// that package roottest starts.
func netBinary(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat(layout.NetBinary); err != nil {
		t.Fatalf("%v: package roottest puts it there", err)
	}
	return layout.NetBinary
}

func waitServer(t *testing.T, set *Set) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		set.mu.Lock()
		up := set.server != nil
		set.mu.Unlock()
		if up {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("netd does not run")
		}
	}
}

// lease asks for an address (RFC 2131), as a client without one.
func lease(want, dns string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1), unix.BindToDevice(fd, "eth0"),
		unix.Bind(fd, &unix.SockaddrInet4{Port: 68}))
	f := os.NewFile(uintptr(fd), "dhcp")
	defer f.Close()
	if err != nil {
		return err
	}
	c, err := net.FilePacketConn(f)
	if err != nil {
		return err
	}
	defer c.Close()
	ask, err := dhcpv4.NewDiscovery(mac)
	if err != nil {
		return err
	}
	offer, err := exchange(c, ask, dhcpv4.MessageTypeOffer)
	if err != nil {
		return err
	}
	if ask, err = dhcpv4.NewRequestFromOffer(offer); err != nil {
		return err
	}
	ack, err := exchange(c, ask, dhcpv4.MessageTypeAck)
	if err != nil {
		return err
	}
	if mtu := ack.Options.Get(dhcpv4.OptionInterfaceMTU); string(mtu) != "\x05\x78" {
		return fmt.Errorf("told the MTU %v, want 1400", mtu)
	}
	if ack.YourIPAddr.String() != want || len(ack.DNS()) != 1 || ack.DNS()[0].String() != dns {
		return fmt.Errorf("got %s, want %s", ack.Summary(), want)
	}
	return nil
}

// exchange asks until it has an answer of the kind that is wanted.
func exchange(c net.PacketConn, ask *dhcpv4.DHCPv4, want dhcpv4.MessageType) (*dhcpv4.DHCPv4, error) {
	b := make([]byte, 1500)
	for try := 0; ; try++ {
		if _, err := c.WriteTo(ask.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: 67}); err != nil {
			return nil, fmt.Errorf("ask: %w", err)
		}
		c.SetReadDeadline(time.Now().Add(time.Second))
		n, _, err := c.ReadFrom(b)
		if try == 5 && err != nil {
			return nil, fmt.Errorf("no answer: %w", err)
		}
		if err != nil {
			continue
		}
		got, err := dhcpv4.FromBytes(b[:n])
		if err != nil {
			return nil, err
		}
		if got.TransactionID == ask.TransactionID && got.MessageType() == want {
			return got, nil
		}
	}
}
