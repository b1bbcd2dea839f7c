// Guest is the init of the benchmark's guest that puts load on disk, network and memory.
//
// It takes the address ADDRESS/BITS of eth0 from bench.ip= on the kernel command line, and
// the disk from bench.disk= (/dev/vda without it), prints BENCH init, and then takes commands of
// package work, a line each, on its console. Every answer is a line that starts with `OK` and has
// numbers NAME=VALUE, or with `ERR`. The numbers are ops (or bytes) and seconds.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/qemu-tests/bench/initramfs"
	"github.com/ashlar-hv/ashlar/qemu-tests/bench/work"
)

func main() {
	work.Alone = true
	disk, err := prepare()
	fmt.Println(initramfs.Started)
	if err != nil {
		fmt.Println("ERR prepare:", err)
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		f := strings.Fields(in.Text())
		if len(f) == 0 {
			continue
		}
		r, err := work.Do(f, disk)
		if err != nil {
			fmt.Printf("ERR %s: %v\n", f[0], err)
			continue
		}
		fmt.Printf("OK %s ops=%d seconds=%.6f\n", f[0], r.Ops, r.Took.Seconds())
	}
	fmt.Println("ERR console closed:", in.Err())
	for {
		_ = unix.Pause() // a signal has come
	}
}

// prepare mounts what is needed, and returns the disk.
func prepare() (disk string, err error) {
	for _, m := range [][2]string{{"proc", "/proc"}, {"devtmpfs", "/dev"}} {
		_ = os.MkdirAll(m[1], 0o755)
		if err := unix.Mount(m[0], m[1], m[0], 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return "", fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "", err
	}
	disk = "/dev/vda"
	for _, f := range strings.Fields(string(cmdline)) {
		if a, ok := strings.CutPrefix(f, "bench.ip="); ok {
			err = errors.Join(err, address(a))
		}
		if d, ok := strings.CutPrefix(f, "bench.disk="); ok {
			disk = d
		}
	}
	return disk, err
}

// carrierLimit is far more than a virtual function takes to have a carrier.
const carrierLimit = time.Minute

// address brings eth0 up, and waits for its carrier.
func address(a string) error {
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("eth0: %w", err)
	}
	addr, err := netlink.ParseAddr(a)
	if err != nil {
		return err
	}
	if err := errors.Join(netlink.AddrAdd(link, addr), netlink.LinkSetUp(link)); err != nil {
		return err
	}
	for end := time.Now().Add(carrierLimit); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if link, err = netlink.LinkByName("eth0"); err != nil || link.Attrs().RawFlags&unix.IFF_LOWER_UP != 0 {
			return err
		}
	}
	return fmt.Errorf("eth0 has no carrier in %v", carrierLimit)
}
