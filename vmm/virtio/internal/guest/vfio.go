package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// vfio is the guest's part of guesttest's tests of devices of the host's; what `vfio` on the
// command line says. Each prints `vfio: WHAT` when it has been seen.
func vfio() error {
	steps := map[string][]check{
		"disk":    {{"disk works", nvmeWorks}},
		"network": {{"network works", vfNetwork}},
		"hotplug": {
			{"up", func() error { return nil }},
			{"disk works", nvmeWorks}, {"disk left", nvmeLeaves},
			{"disk works again", nvmeWorks}, {"disk torn away", nvmeTornAway},
		},
		"removal": {{"disk works", nvmeWorks}, {"disk torn away", nvmeTornAway}},
		"hostile": {{"disk works", nvmeWorks}, {"abused", abuseConfig}},
		"outside": {{"disk works", nvmeWorks}, {"disk reads from outside", readOutside}},
		"peer":    {{"disk works", nvmeWorks}, {"peer reached", func() error { return writePeer(true) }}},
		"msi":     {{"messages came", useMSI}},
		"rom":     {{"ROM read", func() error { return readROM(true) }}},
		"no-rom":  {{"no ROM", func() error { return readROM(false) }}},
		"big":     {{"big BAR works", useBigBAR}},
		"no-peer": {{"disk works", nvmeWorks}, {"peer not reached", func() error { return writePeer(false) }}},
		"memory": {
			{"disk works", nvmeWorks}, {"memory came", func() error { return hasMemory(true) }}, {"disk works with more", nvmeWorks},
			{"memory left", func() error { return hasMemory(false) }}, {"disk works with less", nvmeWorks},
		},
	}[argument("vfio")]
	for _, s := range steps {
		if err := s.f(); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Println("vfio:", s.name)
	}
	if steps == nil {
		return errors.New("nothing to do")
	}
	return nil
}

// nvme is the file of the only NVMe disk, as nvmeWorks has found it last. Its number is the lowest
// that no controller has, with a disk or without, at the time.
var nvme string

// opened waits for a disk and opens it. Its node is there before the disk can be opened.
func opened(disk string) (f *os.File, err error) {
	late := wait(disk, "has not come", func() bool {
		f, err = os.OpenFile(disk, os.O_RDWR|unix.O_DIRECT, 0)
		return !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENXIO)
	})
	return f, errors.Join(err, late)
}

// nvmeWorks reads what the disk begins with, and writes and reads some of the rest.
func nvmeWorks() error {
	err := wait("an NVMe disk", "has not come", func() bool {
		found, _ := filepath.Glob("/dev/nvme*n1")
		if len(found) == 1 {
			nvme = found[0]
		}
		return len(found) == 1
	})
	if err != nil {
		return err
	}
	f, err := opened(nvme)
	if err != nil {
		return err
	}
	defer f.Close()
	got := aligned(part)
	if _, err := f.ReadAt(got[:4096], 0); err != nil {
		return err
	}
	if want := argument("text"); !bytes.HasPrefix(got, []byte(want)) {
		return fmt.Errorf("begins with %q, want %q", got[:len(want)], want)
	}
	want := aligned(part)
	fill(want, byte(time.Now().Nanosecond()))
	if _, err := f.WriteAt(want, part); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if _, err := f.ReadAt(got, part); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return errors.New("read other bytes than were written")
	}
	return interrupted(strings.TrimSuffix(filepath.Base(nvme), "n1")+"q", argument("interrupts"))
}

// interrupted looks for an interrupt of the kind that is wanted and that a driver has taken.
func interrupted(driver, kind string) error {
	for line := range strings.Lines(attribute("/proc/interrupts")) {
		f := strings.Fields(line)
		if len(f) < 3 || !strings.Contains(line, driver) || !strings.Contains(line, kind) {
			continue
		}
		for _, n := range f[1:] {
			if n == "" || strings.Trim(n, "0123456789") != "" {
				break
			}
			if n != "0" {
				fmt.Println("vfio:", strings.Join(f, " "))
				return nil
			}
		}
	}
	return fmt.Errorf("no interrupts of %s by %s: %s", driver, kind, attribute("/proc/interrupts"))
}

func nvmeLeaves() error { return leaves(nvme) }

// nvmeTornAway works on the disk until that fails.
func nvmeTornAway() error {
	f, err := os.OpenFile(nvme, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	fmt.Println("vfio: disk busy")
	b := aligned(chunk)
	return wait(nvme, "goes on working", func() bool { _, err := f.ReadAt(b, 0); return err != nil })
}

// vfNetwork has the gateway of the lab refuse a connection: packets go both ways.
func vfNetwork() error {
	if err := comes("/sys/class/net/eth0"); err != nil {
		return err
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	if err := configure(s, net.IP{10, 0, 2, 77}); err != nil {
		return err
	}
	if err := wait("eth0", "has no carrier", func() bool { return attribute("/sys/class/net/eth0/carrier") == "1" }); err != nil {
		return err
	}
	err = wait("10.0.2.2", "does not answer", func() bool {
		c, err := net.DialTimeout("tcp", "10.0.2.2:9", 5*time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil || errors.Is(err, syscall.ECONNREFUSED)
	})
	if err != nil {
		return err
	}
	return interrupted("eth0", argument("interrupts"))
}

// abuseConfig writes nonsense to configuration space of the disk, at every width and offset,
// while it is being read.
func abuseConfig() error {
	device, err := diskController()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(device, "config"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	go func() {
		d, err := os.OpenFile(nvme, os.O_RDWR|unix.O_DIRECT, 0)
		if err != nil {
			return
		}
		b := aligned(part)
		for err == nil { // it ends when the driver gives up
			_, err = d.ReadAt(b, 0)
		}
	}()
	r := rand.New(rand.NewPCG(1, 2))
	var b [4]byte
	for i := range 3000 {
		n := 1 << r.IntN(3)
		off := r.IntN(4096/n) * n
		if i%3 == 0 {
			off = r.IntN(256/n) * n
		}
		for j := range b {
			b[j] = byte(r.Uint32())
		}
		if _, err := f.WriteAt(b[:n], int64(off)); err != nil {
			return err
		}
		if _, err := f.ReadAt(b[:n], int64(off)); err != nil {
			return err
		}
	}
	return nil
}

// hasMemory waits until there is more memory than a guest of 256 MiB has, or no more than that.
func hasMemory(more bool) error {
	return wait("memory", "has not changed", func() bool {
		for line := range strings.Lines(attribute("/proc/meminfo")) {
			f := strings.Fields(line)
			if n, err := strconv.Atoi(f[1]); f[0] == "MemTotal:" && err == nil {
				return more == (n > 256<<10)
			}
		}
		return false
	})
}
