package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/qemu-tests/bench/wire"
)

// The network between this process and the guest.
const (
	hostAddress   = "10.99.0.1/24"
	guestAddress  = "10.99.0.2/24"
	serverAddress = "10.99.0.1:7"
	guestMAC      = "52:54:00:be:0c:01"
	tapName       = "bench0"
)

// A nic is the host's end of a guest's network card, a tap that stays.
type nic struct{ link netlink.Link }

func newNIC() (*nic, error) {
	f, err := openTap(unix.IFF_TUN_EXCL)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := unix.IoctlSetInt(int(f.Fd()), unix.TUNSETPERSIST, 1); err != nil {
		return nil, fmt.Errorf("keep tap: %w", err)
	}
	link, err := netlink.LinkByName(tapName)
	if err != nil {
		return nil, err
	}
	n := &nic{link}
	addr, err := netlink.ParseAddr(hostAddress)
	if err == nil {
		err = errors.Join(netlink.AddrAdd(link, addr), netlink.LinkSetUp(link))
	}
	if err != nil {
		n.close()
		return nil, fmt.Errorf("set up %s: %w", tapName, err)
	}
	return n, nil
}

func (n *nic) close() { _ = netlink.LinkDel(n.link) }

// attach opens the tap for a guest.
func (n *nic) attach() (*os.File, error) { return openTap(0) }

// forQEMU opens the tap and vhost-net.
func (n *nic) forQEMU() ([]*os.File, error) {
	tap, err := n.attach()
	if err != nil {
		return nil, err
	}
	vhost, err := os.OpenFile("/dev/vhost-net", os.O_RDWR, 0)
	if err != nil {
		tap.Close()
		return nil, err
	}
	return []*os.File{tap, vhost}, nil
}

func openTap(flags uint16) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	ifr, err := unix.NewIfreq(tapName)
	if err == nil {
		ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | flags)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open tap %s: %w", tapName, err)
	}
	return os.NewFile(uintptr(fd), tapName), nil
}

// serve answers guests until the function it returns is called.
func serve() (func(), error) {
	l, err := net.Listen("tcp", serverAddress)
	if err != nil {
		return nil, err
	}
	u, err := net.ListenPacket("udp", serverAddress)
	if err != nil {
		l.Close()
		return nil, err
	}
	var datagrams atomic.Int64
	go func() {
		for b := make([]byte, 2*wire.Datagram); ; datagrams.Add(1) {
			if _, _, err := u.ReadFrom(b); err != nil {
				return
			}
		}
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				// The guest goes away when it has what it wants.
				_ = answer(c, &datagrams)
			}()
		}
	}()
	return func() { l.Close(); u.Close() }, nil
}

// answer does what a connection asks for.
func answer(c net.Conn, datagrams *atomic.Int64) error {
	b := make([]byte, wire.Chunk)
	if _, err := io.ReadFull(c, b[:1]); err != nil {
		return err
	}
	switch wire.Service(b[0]) {
	case wire.Sink:
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, b)
		return errors.Join(err, number(c, n))
	case wire.Source:
		for {
			if _, err := c.Write(b); err != nil {
				return err
			}
		}
	case wire.Echo:
		for {
			n, err := c.Read(b)
			if err != nil {
				return err
			}
			if _, err := c.Write(b[:n]); err != nil {
				return err
			}
		}
	case wire.Count:
		return number(c, datagrams.Load())
	}
	return fmt.Errorf("unknown service %d", b[0])
}

func number(w io.Writer, n int64) error {
	_, err := w.Write(binary.LittleEndian.AppendUint64(nil, uint64(n)))
	return err
}
