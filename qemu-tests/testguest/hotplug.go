package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// none is the answer where something is not there.
const none = "none"

// disk finds the block device with a serial number.
func disk(serial string) (string, error) {
	names, err := filepath.Glob("/sys/block/*")
	if err != nil {
		return "", err
	}
	for _, name := range names {
		for _, f := range []string{"serial", "device/serial"} { // of virtio, of NVMe
			if b, err := os.ReadFile(filepath.Join(name, f)); err == nil && strings.TrimSpace(string(b)) == serial {
				return filepath.Base(name), nil
			}
		}
	}
	return none, nil
}

// nic finds the network device with an address.
func nic(mac string) (string, error) {
	all, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	for _, n := range all {
		if n.HardwareAddr.String() == mac {
			return n.Name, nil
		}
	}
	return none, nil
}

// load writes to a device over and over until it is gone, and says so then.
func load(device string) error {
	d, err := os.OpenFile(device, os.O_RDWR|unix.O_SYNC, 0)
	if err != nil {
		return err
	}
	b := make([]byte, 64<<10)
	if _, err := d.WriteAt(b, 0); err != nil {
		return err
	}
	go func() {
		defer d.Close()
		for n := int64(1); ; n++ {
			if _, err := d.WriteAt(b, n%64*int64(len(b))); err != nil {
				fmt.Println("LOAD ends:", err)
				return
			}
		}
	}()
	return nil
}

// reread reads from a device over and over until it is gone, and says so then. The device writes
// to memory all the while: nothing of it is cached.
func reread(device string) error {
	const size, pieces = 64 << 10, 64
	d, err := os.OpenFile(device, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err == nil {
		_, err = d.ReadAt(b, 0)
	}
	if err != nil {
		d.Close()
		return err
	}
	go func() {
		defer d.Close()
		for n := int64(1); ; n++ {
			if _, err := d.ReadAt(b, n%pieces*size); err != nil {
				fmt.Println("REREAD ends:", err)
				return
			}
		}
	}()
	return nil
}

var flooding *net.UDPConn

// flood sends datagrams to an address by one network device, over and over until that is
// gone, or there is another of them, and says so then.
func flood(device, address string) error {
	to, err := net.ResolveUDPAddr("udp4", address)
	if err != nil {
		return err
	}
	c, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return err
	}
	if err := bind(c, device); err != nil {
		c.Close()
		return err
	}
	if flooding != nil {
		flooding.Close()
	}
	flooding = c
	go func() {
		defer c.Close()
		for b := make([]byte, 1400); ; {
			_, err := c.WriteTo(b, to)
			if err != nil && !errors.Is(err, unix.ENOBUFS) {
				fmt.Println("FLOOD ends:", err)
				return
			}
		}
	}()
	return nil
}

// bind makes all that c sends and receives go by one network device.
func bind(c syscall.Conn, device string) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	err2 := raw.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), device) })
	if err2 != nil {
		return err2
	}
	return err
}
