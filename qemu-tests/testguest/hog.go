package main

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// hog takes as much as it can get of something, for ever: `cpu`, `memory` (of so many MiB),
// `disk` (to a device) or `network` (to an address).
func hog(kind, what string) error {
	var once func() error
	switch kind {
	case "cpu":
		for range runtime.NumCPU() {
			spin()
		}
		return nil
	case "memory":
		n, err := strconv.Atoi(what)
		if err != nil {
			return err
		}
		once = func() error { return churn(n << 20) }
	case "disk":
		d, err := os.OpenFile(what, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		once = func() error { return rewrite(d) }
	case "network":
		c, err := net.Dial("udp", net.JoinHostPort(what, "9"))
		if err != nil {
			return err
		}
		b := make([]byte, 1400)
		once = func() error {
			_, _ = c.Write(b) // refused now and then: nobody listens
			return nil
		}
	default:
		return fmt.Errorf("no hog of %s", kind)
	}
	go func() {
		for {
			if err := once(); err != nil {
				fmt.Println("ERR hog:", kind, err)
				return
			}
		}
	}()
	return nil
}

// churn takes n bytes of memory, writes to each page, and gives them back.
func churn(n int) error {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	for i := 0; i < n; i += 4096 {
		b[i] = 1
	}
	return unix.Munmap(b)
}

// rewrite writes 8 MiB and flushes them.
func rewrite(d *os.File) error {
	b := make([]byte, 1<<20)
	for i := range int64(8) {
		if _, err := d.WriteAt(b, i<<20); err != nil {
			return err
		}
	}
	return d.Sync()
}

// latency makes n rounds of what a guest waits for, and returns the median and the longest
// of each, in microseconds: a block of a disk written and flushed, an ICMP echo, and how
// much later than asked for a sleep of a millisecond ends.
func latency(device, address, rounds string) (string, error) {
	n, err := strconv.Atoi(rounds)
	if err != nil || n < 1 {
		return "", fmt.Errorf("%q rounds", rounds)
	}
	d, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer d.Close()
	b := make([]byte, blockSize)
	out := ""
	for _, what := range []struct {
		name  string
		asked time.Duration // is no waiting
		do    func() error
	}{
		{"disk", 0, func() error {
			if _, err := d.WriteAt(b, 0); err != nil {
				return err
			}
			return d.Sync()
		}},
		{"network", 0, func() error { return ping(address, "") }},
		{"timer", time.Millisecond, func() error { time.Sleep(time.Millisecond); return nil }},
	} {
		took := make([]int64, n)
		for i := range took {
			start := time.Now()
			if err := what.do(); err != nil {
				return "", fmt.Errorf("%s: %w", what.name, err)
			}
			took[i] = (time.Since(start) - what.asked).Microseconds()
		}
		slices.Sort(took)
		out += fmt.Sprintf("%s=%d,%d ", what.name, took[n/2], took[n-1])
	}
	return out, nil
}
