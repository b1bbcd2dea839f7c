package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// peerRoot is where the peer's disk is mounted, in this mount namespace.
const peerRoot = "/run/bench-peer"

// peerSerial is the serial number of that disk.
const peerSerial = "bench-peer"

// prepare mounts the peer and makes the folder for disks. The function it returns
// removes what was made.
func (b *bench) prepare() (func(), error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("make mounts private: %w", err)
	}
	if _, err := os.Stat("/dev/kvm"); err != nil {
		return nil, fmt.Errorf("the host has no KVM: %w", err)
	}
	if err := os.MkdirAll(b.scratch, 0o755); err != nil {
		return nil, err
	}
	clean := func() { os.RemoveAll(b.scratch) }
	if err := b.mountPeer(); err != nil {
		clean()
		return nil, err
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		clean()
		return nil, fmt.Errorf("set up lo: %w", err)
	}
	return clean, nil
}

// mountPeer mounts the peer's root, and in it what QEMU uses of the host's.
func (b *bench) mountPeer() error {
	device, err := bySerial(peerSerial)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(peerRoot, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(device, peerRoot, "xfs", unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mount %s: %w", device, err)
	}
	for _, m := range [][2]string{{"/dev", "dev"}, {"/proc", "proc"}, {b.payload, "payload"}, {b.scratch, "scratch"}} {
		if err := unix.Mount(m[0], filepath.Join(peerRoot, m[1]), "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s for the peer: %w", m[0], err)
		}
	}
	return nil
}

// bySerial finds an NVMe disk.
func bySerial(serial string) (string, error) {
	disks, err := filepath.Glob("/sys/block/nvme*")
	if err != nil {
		return "", err
	}
	for _, d := range disks {
		b, err := os.ReadFile(filepath.Join(d, "device/serial"))
		if err == nil && string(bytes.TrimSpace(b)) == serial {
			return filepath.Join("/dev", filepath.Base(d)), nil
		}
	}
	return "", errors.New("no disk has the serial number " + serial)
}
