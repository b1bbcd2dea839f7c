package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// hotplug is the guest's part of guesttest's tests that bring and take devices as they read
// here what has been seen; what `hotplug` on the command line says.
func hotplug() error {
	fmt.Println("hotplug: up after", strings.Fields(attribute("/proc/uptime"))[0], "s")
	network := []check{{"network works", lateNetwork}, {"network left", func() error { return leaves("/sys/class/net/eth0") }}}
	first := []check{{"disk works", func() error { return lateDisk("late1") }}, {"disk left", func() error { return leaves("/sys/block/vda") }}}
	steps := map[string][]check{
		"none":  {},
		"calls": slices.Concat([]check{{"console full", flood}}, network, first),
		"all": slices.Concat(first, network, []check{
			{"second disk works", func() error { return lateDisk("late2") }},
			{"second disk torn away", tornAway},
			{"third disk works", func() error { return lateDisk("late3") }},
			{"third disk left", func() error { return leaves("/sys/block/vda") }},
		}),
	}[argument("hotplug")]
	if steps == nil {
		return errors.New("nothing to do")
	}
	for i, step := range steps {
		if err := step.f(); err != nil {
			return fmt.Errorf("step %d, %s: %w", i, step.name, err)
		}
		fmt.Println("hotplug:", step.name)
	}
	return nil
}

// flood says more than a log of the console keeps (protocol.LogLimit).
func flood() error {
	f, err := os.OpenFile("/dev/hvc0", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	line := []byte(strings.Repeat("flood ", chunk/6) + "\n")
	for said := 0; said < 1<<20; said += len(line) {
		if _, err := f.Write(line); err != nil {
			return err
		}
	}
	return nil
}

// patience is for what the host does, and for drivers.
const patience = 2 * time.Minute

func comes(name string) error {
	return wait(name, "has not come", func() bool { _, err := os.Stat(name); return err == nil })
}

func leaves(name string) error {
	return wait(name, "has not left", func() bool { _, err := os.Stat(name); return errors.Is(err, os.ErrNotExist) })
}

func wait(name, failure string, done func() bool) error {
	for end := time.Now().Add(patience); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("%s %s", name, failure)
		}
	}
	return nil
}

// lateDisk waits for a disk, and writes and reads it.
func lateDisk(serial string) error {
	// The node is there before the attributes are.
	if err := errors.Join(comes("/dev/vda"), comes("/sys/block/vda/serial")); err != nil {
		return err
	}
	if got := attribute("/sys/block/vda/serial"); got != serial {
		return fmt.Errorf("serial %q, want %q", got, serial)
	}
	f, err := os.OpenFile("/dev/vda", os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	want, got := aligned(part), aligned(part)
	fill(want, serial[len(serial)-1])
	if _, err := f.WriteAt(want, 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if _, err := f.ReadAt(got, 0); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return errors.New("read other bytes than were written")
	}
	return nil
}

func lateNetwork() error {
	if err := comes("/sys/class/net/eth0"); err != nil {
		return err
	}
	return network()
}

// tornAway works on the disk until that fails.
func tornAway() error {
	f, err := os.OpenFile("/dev/vda", os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b := aligned(chunk)
	if _, err := f.WriteAt(b, part); err != nil {
		return err
	}
	fmt.Println("hotplug: second disk busy")
	if err := wait("/dev/vda", "goes on working", func() bool { _, err := f.WriteAt(b, part); return err != nil }); err != nil {
		return err
	}
	return leaves("/sys/block/vda")
}
