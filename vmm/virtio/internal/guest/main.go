// Guest is the init of a guest that uses each of its virtio devices as programs
// do, for guesttest. It prints a line `guest: NAME: ok` for each check, or
// `guest: NAME: FAILED: why`, then `guest: passed` or `guest: failed`, and
// powers off.
//
// With `hotplug=WHAT` on its command line it waits for devices that come and go instead, with
// `hotplug=none` for nothing; with `vfio=WHAT` it uses devices of the host's. Else
// it finds on its command line `disk=SERIAL`, the serial number of /dev/vda, and
// `peer=ADDRESS:PORT`, where a host echoes what it is sent by TCP.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A check is one thing that is tried.
type check struct {
	name string
	f    func() error
}

// all is what is checked where the command line says neither `hotplug` nor `vfio`.
var all = []check{
	{"packed queues", packedQueues}, {"disk", disk}, {"disk queues", diskQueues}, {"disk ranges", diskRanges},
	{"disk driver again", diskAgain}, {"read-only disk", readOnlyDisk},
	{"entropy", entropy}, {"console", console}, {"network", network}, {"network driver again", networkAgain},
	{"network queues", networkQueues},
	{"hostile driver", hostile}, {"entropy after that", entropy},
}

func main() {
	for _, m := range []string{"proc", "sysfs /sys", "devtmpfs /dev"} {
		what, where, ok := strings.Cut(m, " ")
		if !ok {
			where = "/" + m
		}
		err := os.MkdirAll(where, 0o755)
		if err == nil {
			err = unix.Mount(what, where, what, 0, "")
		}
		if err != nil && !errors.Is(err, unix.EBUSY) {
			fmt.Printf("guest: mount %s: %v\n", where, err)
		}
	}
	verdict := "passed"
	checks := []check{{"hotplug", hotplug}}
	switch {
	case argument("vfio") != "":
		checks = []check{{"vfio", vfio}}
	case argument("hotplug") == "":
		checks = all
	}
	for _, c := range checks {
		if err := c.f(); err != nil {
			fmt.Printf("guest: %s: FAILED: %v\n", c.name, err)
			verdict = "failed"
			continue
		}
		fmt.Printf("guest: %s: ok\n", c.name)
	}
	fmt.Println("guest:", verdict)
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Println("guest: power off:", err)
	}
	select {}
}

// argument is a value of the kernel's command line.
func argument(name string) string {
	b, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return ""
	}
	for _, f := range strings.Fields(string(b)) {
		if v, ok := strings.CutPrefix(f, name+"="); ok {
			return v
		}
	}
	return ""
}

func attribute(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b))
}

const (
	part  = 2 << 20 // bytes that each writer of disk has for itself
	parts = 4
	chunk = 64 << 10
)

func fill(b []byte, seed byte) {
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // it has no errors
}

// disk writes from several threads past the guest's cache, flushes, and reads.
// packedQueues looks whether the drivers of queues that the VMM serves itself have taken
// packed ones.
func packedQueues() error {
	for _, driver := range []string{"virtio_blk", "virtio_rng", "virtio_console"} {
		files, err := filepath.Glob("/sys/bus/virtio/drivers/" + driver + "/virtio*/features")
		if err != nil {
			return err
		}
		if len(files) == 0 {
			return fmt.Errorf("no device of %s", driver)
		}
		for _, f := range files {
			const packed = 34 // its place in a string of bits
			if bits := attribute(f); len(bits) <= packed || bits[packed] != '1' {
				return fmt.Errorf("%s: %s: not packed", f, bits)
			}
		}
	}
	return nil
}

func disk() error {
	if got, want := attribute("/sys/block/vda/serial"), argument("disk"); got != want {
		return fmt.Errorf("serial %q, want %q", got, want)
	}
	f, err := os.OpenFile("/dev/vda", os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	errs := make([]error, parts)
	var wg sync.WaitGroup
	for p := range parts {
		wg.Go(func() { errs[p] = diskPart(f, p) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if _, err := f.WriteAt(aligned(4096), 1<<40); err == nil {
		return errors.New("a write past the end succeeded")
	}
	return nil
}

func diskPart(f *os.File, p int) error {
	want := aligned(part)
	fill(want, byte(p))
	for off := 0; off < part; off += chunk {
		if _, err := f.WriteAt(want[off:off+chunk], int64(p*part+off)); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	got := aligned(part)
	if _, err := f.ReadAt(got, int64(p*part)); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("part %d: read other bytes than were written", p)
	}
	return nil
}

func diskQueues() error {
	q, err := filepath.Glob("/sys/block/vda/mq/*")
	if err != nil {
		return err
	}
	if len(q) != runtime.NumCPU() {
		return fmt.Errorf("%d queues for %d CPUs", len(q), runtime.NumCPU())
	}
	if c := attribute("/sys/block/vda/queue/write_cache"); c != "write back" {
		return fmt.Errorf("write cache is %q", c)
	}
	return nil
}

// diskRanges discards and zeroes, behind the parts that disk wrote.
func diskRanges() error {
	f, err := os.OpenFile("/dev/vda", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	const at, size = parts * part, 1 << 20
	for name, request := range map[string]uint{"BLKDISCARD": unix.BLKDISCARD, "BLKZEROOUT": unix.BLKZEROOUT} {
		b := bytes.Repeat([]byte{0x5a}, size)
		if _, err := f.WriteAt(b, at); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		if err := rangeIoctl(f, request, at, size); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if _, err := f.ReadAt(b, at); err != nil {
			return err
		}
		if !bytes.Equal(b, make([]byte, size)) {
			return fmt.Errorf("%s: other bytes than zeros", name)
		}
	}
	return nil
}

// rebind takes the driver from the device and gives it back.
func rebind(device, driver string) error {
	link, err := os.Readlink(device)
	if err != nil {
		return err
	}
	for _, to := range []string{"unbind", "bind"} {
		file := filepath.Join("/sys/bus/virtio/drivers", driver, to)
		if err := os.WriteFile(file, []byte(filepath.Base(link)), 0o200); err != nil {
			return err
		}
	}
	return nil
}

// diskAgain resets the device, and finds what was written before.
func diskAgain() error {
	if err := rebind("/sys/block/vda/device", "virtio_blk"); err != nil {
		return err
	}
	if err := comes("/dev/vda"); err != nil {
		return err
	}
	f, err := os.Open("/dev/vda")
	if err != nil {
		return err
	}
	defer f.Close()
	want, got := make([]byte, part), make([]byte, part)
	fill(want, 0)
	if _, err := f.ReadAt(got, 0); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return errors.New("read other bytes than were written")
	}
	return nil
}

func readOnlyDisk() error {
	if ro := attribute("/sys/block/vdb/ro"); ro != "1" {
		return fmt.Errorf("ro = %q", ro)
	}
	f, err := os.Open("/dev/vdb")
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, 9)
	if _, err := io.ReadFull(f, b); err != nil || string(b) != "read-only" {
		return fmt.Errorf("contents %q, %w", b, err)
	}
	return nil
}

func entropy() error {
	if c := attribute("/sys/class/misc/hw_random/rng_current"); !strings.HasPrefix(c, "virtio_rng") {
		return fmt.Errorf("rng_current = %q", c)
	}
	f, err := os.Open("/dev/hwrng")
	if err != nil {
		return err
	}
	defer f.Close()
	var a, b [64]byte
	for _, p := range [][]byte{a[:], b[:]} {
		if _, err := io.ReadFull(f, p); err != nil {
			return err
		}
	}
	if a == b {
		return errors.New("the same bytes twice")
	}
	return nil
}

func console() error {
	f, err := os.OpenFile("/dev/hvc0", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString("guest: hello from hvc0\n")
	return err
}

// up gives eth0 the address that the peer's network has second.
func up() error {
	host, _, err := net.SplitHostPort(argument("peer"))
	if err != nil {
		return err
	}
	ip := net.ParseIP(host).To4()
	if ip == nil {
		return fmt.Errorf("peer %q", host)
	}
	ip[3]++
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(configure(s, ip), unix.Close(s))
}

// configure sets eth0's address through the socket s, and brings it up.
func configure(s int, ip net.IP) error {
	for _, c := range []struct {
		request uint
		set     func(*unix.Ifreq) error
	}{
		{unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(ip) }},
		{unix.SIOCSIFNETMASK, func(r *unix.Ifreq) error { return r.SetInet4Addr(net.IP{255, 255, 255, 0}) }},
		{unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP); return nil }},
	} {
		r, err := unix.NewIfreq("eth0")
		if err != nil {
			return err
		}
		if err := c.set(r); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(s, c.request, r); err != nil {
			return fmt.Errorf("configure eth0: %w", err)
		}
	}
	return nil
}

// network sends a few MiB to the peer and compares what comes back.
func network() error {
	if err := up(); err != nil {
		return err
	}
	return talk()
}

// talk sends the peer what it sends back.
func talk() error {
	c, err := net.DialTimeout("tcp", argument("peer"), patience)
	if err != nil {
		return err
	}
	defer c.Close()
	want := make([]byte, 4<<20)
	fill(want, 9)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(want)
		sent <- errors.Join(err, c.(*net.TCPConn).CloseWrite())
	}()
	got, err := io.ReadAll(c)
	if err := errors.Join(err, <-sent); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("echo of %d bytes, want %d of the same", len(got), len(want))
	}
	return nil
}

// networkQueues has all pairs of queues at work.
func networkQueues() error {
	q, err := filepath.Glob("/sys/class/net/eth0/queues/[rt]x-*")
	if err != nil {
		return err
	}
	pairs, err := strconv.Atoi(argument("pairs"))
	if err != nil || len(q) != 2*pairs {
		return fmt.Errorf("%d queues, want %s pairs: %v", len(q), argument("pairs"), q)
	}
	results := make(chan error)
	for range 4 * pairs {
		go func() { results <- talk() }()
	}
	for range 4 * pairs {
		err = errors.Join(err, <-results)
	}
	return err
}

func networkAgain() error {
	if err := rebind("/sys/class/net/eth0/device", "virtio_net"); err != nil {
		return err
	}
	if err := comes("/sys/class/net/eth0"); err != nil {
		return err
	}
	return network()
}
