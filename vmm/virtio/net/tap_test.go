//go:build roottest

package net

import (
	"fmt"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// newTap makes a tap that is up, without addresses.
func newTap(t testing.TB) *wire {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("open /dev/net/tun: %v (this test needs root and CONFIG_TUN)", err)
	}
	tap := os.NewFile(uintptr(fd), "tap")
	ifr, err := unix.NewIfreq(fmt.Sprintf("vt%d", os.Getpid()%1e6))
	must(t, err)
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	must(t, unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr))
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
	must(t, err)
	t.Cleanup(func() { unix.Close(s) })
	ifr.SetUint16(unix.IFF_UP | unix.IFF_NOARP)
	must(t, unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr))
	ifi, err := net.InterfaceByName(ifr.Name())
	must(t, err)
	must(t, unix.Bind(s, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: ifi.Index}))
	must(t, unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20}))
	return &wire{tap: tap, host: s, isTap: true}
}

func TestTap(t *testing.T) { testPackets(t, newTap) }

func TestVhost(t *testing.T) { testPackets(t, newVhost) }

// newVhost is newTap with vhost-net.
func newVhost(t testing.TB) *wire {
	w := newTap(t)
	var err error
	if w.vhost, err = os.OpenFile("/dev/vhost-net", os.O_RDWR, 0); err != nil {
		t.Fatalf("%v: this test needs CONFIG_VHOST_NET: run it by qemu-tests/roottest", err)
	}
	return w
}

func TestTapConforms(t *testing.T) { testConform(t, newTap) }

func TestVhostConforms(t *testing.T) { testConform(t, newVhost) }
