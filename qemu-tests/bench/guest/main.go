// Guest is the init of the benchmark's guest that puts load on disk and network.
//
// It takes the address ADDRESS/BITS of eth0 from bench.ip= on the kernel command
// line, prints BENCH init, and then takes commands, a line each, on its console. Every
// answer is a line that starts with `OK` and has numbers NAME=VALUE, or with `ERR`:
//
//	blk read|write rand|seq SIZE DEPTH SECONDS   direct I/O of SIZE bytes on /dev/vda
//	fsync SECONDS                                4 KiB written and made durable, one at a time
//	send|receive ADDRESS:PORT SECONDS            one TCP stream
//	rtt ADDRESS:PORT SECONDS                     one byte there and back, over TCP
//	packets ADDRESS:PORT SECONDS                 UDP datagrams of 64 bytes
//
// The numbers are ops (or bytes) and seconds.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/qemu-tests/bench/initramfs"
)

func main() {
	err := prepare()
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
		r, err := command(f)
		if err != nil {
			fmt.Printf("ERR %s: %v\n", f[0], err)
			continue
		}
		fmt.Printf("OK %s ops=%d seconds=%.6f\n", f[0], r.ops, r.took.Seconds())
	}
	fmt.Println("ERR console closed:", in.Err())
	for {
		_ = unix.Pause() // a signal has come
	}
}

// A result is what was done in which time.
type result struct {
	ops  int64
	took time.Duration
}

func prepare() error {
	for _, m := range [][2]string{{"proc", "/proc"}, {"devtmpfs", "/dev"}} {
		_ = os.MkdirAll(m[1], 0o755)
		if err := unix.Mount(m[0], m[1], m[0], 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	for _, f := range strings.Fields(string(cmdline)) {
		if a, ok := strings.CutPrefix(f, "bench.ip="); ok {
			return address(a)
		}
	}
	return nil
}

// address brings eth0 up.
func address(a string) error {
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("eth0: %w", err)
	}
	addr, err := netlink.ParseAddr(a)
	if err != nil {
		return err
	}
	return errors.Join(netlink.AddrAdd(link, addr), netlink.LinkSetUp(link))
}

var errUsage = errors.New("unknown command, or not its arguments")

func command(f []string) (result, error) {
	seconds, err := strconv.Atoi(f[len(f)-1])
	if err != nil {
		return result{}, errUsage
	}
	d := time.Duration(seconds) * time.Second
	switch {
	case f[0] == "blk" && len(f) == 6:
		return block(f[1], f[2], f[3], f[4], d)
	case f[0] == "fsync" && len(f) == 2:
		return durable(d)
	case f[0] == "send" && len(f) == 3:
		return send(f[1], d)
	case f[0] == "receive" && len(f) == 3:
		return receive(f[1], d)
	case f[0] == "rtt" && len(f) == 3:
		return roundTrips(f[1], d)
	case f[0] == "packets" && len(f) == 3:
		return packets(f[1], d)
	}
	return result{}, errUsage
}
