package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

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

// bind makes all that c sends and receives go by one network device.
func bind(c *net.IPConn, device string) error {
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
