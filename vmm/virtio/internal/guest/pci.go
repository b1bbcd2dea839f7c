package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Classes of PCI functions.
const (
	classNVMe   = "0x010802"
	classMemory = "0x050000"
)

// functionOf is the PCI function of a class that is not this one.
func functionOf(class, not string) (string, error) {
	all, err := filepath.Glob("/sys/bus/pci/devices/*/class")
	if err != nil {
		return "", err
	}
	for _, name := range all {
		device, err := filepath.EvalSymlinks(filepath.Dir(name))
		if err == nil && device != not && attribute(name) == class {
			return device, nil
		}
	}
	return "", fmt.Errorf("there is no other function of class %s", class)
}

// takeBAR takes a PCI function from its driver, lets it do DMA and maps a part of a BAR.
func takeBAR(device string, n int, offset int64, size int) ([]byte, error) {
	err := os.WriteFile(device+"/driver/unbind", []byte(filepath.Base(device)), 0o200)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	config, err := os.OpenFile(device+"/config", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer config.Close()
	const command, memory, master = 4, 1 << 1, 1 << 2 // PCI Local Bus 3.0, section 6.2.2
	if _, err := config.WriteAt([]byte{memory | master, 0}, command); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(fmt.Sprintf("%s/resource%d", device, n), os.O_RDWR|os.O_SYNC, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return unix.Mmap(int(f.Fd()), offset, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

// barAddress is where the guest has a BAR of a PCI function.
func barAddress(device string, n int) (address uint64, err error) {
	lines := strings.Split(attribute(device+"/resource"), "\n")
	if n >= len(lines) {
		return 0, fmt.Errorf("%s has no BAR %d", device, n)
	}
	if _, err := fmt.Sscanf(lines[n], "%v", &address); err != nil {
		return 0, fmt.Errorf("BAR %d of %s: %w", n, device, err)
	}
	if address == 0 {
		return 0, fmt.Errorf("BAR %d of %s is nowhere", n, device)
	}
	return address, nil
}

// readROM reads the expansion ROM of the only NVMe controller, which ends with a text or is
// not there.
func readROM(there bool) error {
	device, err := functionOf(classNVMe, "")
	if err != nil {
		return err
	}
	name := device + "/rom"
	if _, err := os.Stat(name); errors.Is(err, os.ErrNotExist) && !there {
		return nil
	}
	if err := os.WriteFile(name, []byte("1"), 0o200); err != nil {
		return err
	}
	b, err := os.ReadFile(name)
	text := argument("text")
	switch {
	case there && err != nil:
		return err
	case there && !strings.HasSuffix(string(b), text), !there && err == nil:
		return fmt.Errorf("the ROM has %d bytes and ends with %q", len(b), b[max(0, len(b)-len(text)):])
	}
	return nil
}

// useBigBAR writes to both ends of BAR 2 of a device, of so many bytes, and reads what it has written.
func useBigBAR() error {
	device, err := functionOf(classMemory, "")
	if err != nil {
		return err
	}
	size, err := strconv.ParseInt(argument("size"), 10, 64)
	if err != nil {
		return err
	}
	lines := strings.Split(attribute(device+"/resource"), "\n")
	fmt.Println("vfio: BAR 2 is", lines[2])
	var ends []*atomic.Uint32
	for i, offset := range []int64{0, size/2 - page, size / 2, size - page} {
		b, err := takeBAR(device, 2, offset, page)
		if err != nil {
			return err
		}
		ends = append(ends, register(b, 0))
		ends[i].Store(uint32(i) + 1)
	}
	for i, r := range ends {
		if got := r.Load(); got != uint32(i)+1 {
			return fmt.Errorf("place %d has %d", i, got)
		}
	}
	return nil
}
