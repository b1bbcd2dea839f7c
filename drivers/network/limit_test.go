//go:build roottest

package network

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A port is a tap and a packet socket at the far end of its wire: on the host.
type port struct {
	t    *testing.T
	tap  *os.File
	host int
	name string
}

// newPort makes a tap without a bridge.
func newPort(t *testing.T) *port {
	t.Helper()
	ownNamespace(t)
	if err := EnsureBridge("br0", netip.MustParsePrefix("10.80.0.1/24"), 1500); err != nil {
		t.Fatal(err)
	}
	files, err := OpenTap("tap0", "br0", 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { files[0].Close() })
	link, err := netlink.LinkByName("tap0")
	if err != nil {
		t.Fatal(err)
	}
	host, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(host) })
	if err := unix.SetsockoptInt(host, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20); err != nil {
		t.Fatal(err) // frames that wait count
	}
	if err := unix.Bind(host, &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index, Protocol: 0}); err != nil {
		t.Fatal(err)
	}
	return &port{t: t, tap: files[0], host: host, name: "tap0"}
}

// etherType marks the test's frames.
const etherType = 0x88b5

func frame(n int) []byte {
	b := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1}
	return append(binary.BigEndian.AppendUint16(b, etherType), make([]byte, n-14)...)
}

// toGuest sends n frames of 1000 bytes to the tap and returns how many are at its end at once.
func (p *port) toGuest(n int) (got int) {
	p.t.Helper()
	for range n {
		if _, err := unix.Write(p.host, frame(1000)); err != nil && err != unix.ENOBUFS {
			p.t.Fatal(err)
		}
	}
	for b := make([]byte, 2000); ; {
		k, err := unix.Read(int(p.tap.Fd()), b)
		if err == unix.EAGAIN {
			return got
		}
		if err != nil {
			p.t.Fatal(err)
		}
		if k > 24 && bytes.Equal(b[10+12:10+14], frame(14)[12:]) {
			got++
		}
	}
}

// fromGuest has the guest send n frames of 1000 bytes.
func (p *port) fromGuest(n int) {
	p.t.Helper()
	for range n {
		if _, err := unix.Write(int(p.tap.Fd()), append(make([]byte, 10), frame(1000)...)); err != nil {
			p.t.Fatal(err)
		}
	}
}

func (p *port) limit(toGuest, fromGuest Rate) {
	p.t.Helper()
	if err := SetLimits(p.name, toGuest, fromGuest); err != nil {
		p.t.Fatalf("SetLimits: %v", err)
	}
}

func (p *port) throttled() (toGuest, fromGuest Throttle) {
	p.t.Helper()
	toGuest, fromGuest, err := Throttled(p.name)
	if err != nil {
		p.t.Fatalf("Throttled: %v", err)
	}
	return toGuest, fromGuest
}

// Limits hold in both directions, for bytes and packets, change, and go away.
func TestSetLimits(t *testing.T) {
	p := newPort(t)
	start := time.Now()
	passes := func(burst, rate int) int { return burst + int(time.Since(start).Seconds()+1)*rate }

	if got := p.toGuest(300); got != 300 {
		t.Fatalf("without limits %d of 300 frames came", got)
	}
	p.limit(Rate{Bytes: 64 << 10, BurstBytes: 128 << 10}, Rate{})
	if got := p.toGuest(300); got < 128 || got > passes(132, 66) {
		t.Errorf("%d of 300 frames came at once with a burst for 131", got)
	}
	if to, from := p.throttled(); to.Waited == 0 || to.Dropped != 0 || from != (Throttle{}) {
		t.Errorf("throttled: %+v, %+v; want some that waited for the guest", to, from)
	}
	p.limit(Rate{Packets: 100, BurstPackets: 40}, Rate{Bytes: 64 << 10, BurstBytes: 128 << 10})
	start = time.Now()
	for deadline := time.Now().Add(10 * time.Second); p.toGuest(0) > 0 && time.Now().Before(deadline); { // what had waited
	}
	got := p.toGuest(500)
	if most := passes(40, 100); got > most {
		t.Errorf("%d of 500 frames came with a burst of 40 and 100 a second, want at most %d", got, most)
	}
	if to, _ := p.throttled(); to.Dropped != uint64(500-got) || to.Waited != 0 {
		t.Errorf("throttled: %+v; want %d dropped", to, 500-got)
	}
	p.fromGuest(300)
	if _, from := p.throttled(); from.Dropped > 300-128 || int(from.Dropped) < 300-passes(134, 67) {
		t.Errorf("throttled: %+v; want about %d of 300 dropped", from, 300-132)
	}
	p.limit(Rate{}, Rate{Packets: 100, BurstPackets: 40, Bytes: 1 << 36, BurstBytes: 1 << 35})
	start = time.Now()
	p.fromGuest(500)
	if _, from := p.throttled(); int(from.Dropped) < 500-passes(40, 100) || from.Dropped > 500 {
		t.Errorf("throttled: %+v; want about %d of 500 dropped", from, 500-40)
	}
	for range 2 {
		p.limit(Rate{}, Rate{})
		p.fromGuest(300)
		if got := p.toGuest(300); got != 300 {
			t.Errorf("without limits again %d of 300 frames came", got)
		}
		if to, from := p.throttled(); to != (Throttle{}) || from != (Throttle{}) {
			t.Errorf("throttled: %+v, %+v by no limits", to, from)
		}
	}
	if err := SetLimits("none", Rate{}, Rate{}); err == nil {
		t.Error("SetLimits of a tap that is not there: no error")
	}
	if _, _, err := Throttled("none"); err == nil {
		t.Error("Throttled of a tap that is not there: no error")
	}
}

// Nothing passes a link that is down; limits are there when it is up again.
func TestSetLink(t *testing.T) {
	p := newPort(t)
	p.limit(Rate{Bytes: 1 << 30, BurstBytes: 1 << 20}, Rate{Bytes: 1 << 30, BurstBytes: 1 << 20})
	for range 2 {
		if err := SetLink(p.name, false); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Write(p.host, frame(1000)); err == nil {
			t.Error("the host can send to a link that is down")
		}
		if _, err := unix.Write(int(p.tap.Fd()), append(make([]byte, 10), frame(1000)...)); err == nil {
			t.Error("the guest can send on a link that is down")
		}
	}
	for range 2 {
		if err := SetLink(p.name, true); err != nil {
			t.Fatal(err)
		}
	}
	link, err := netlink.LinkByName(p.name)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"tbf", "clsact"} {
		if q, err := ours(link, kind); q == nil || err != nil {
			t.Errorf("%s: %v, %v after the link was down", kind, q, err)
		}
	}
	p.fromGuest(1)
	if got := p.toGuest(3); got != 3 {
		t.Errorf("%d of 3 frames came", got)
	}
	if err := SetLink("none", true); err == nil {
		t.Error("SetLink of a tap that is not there: no error")
	}
}
