package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Registers of an NVMe controller (NVM Express Base 2.0, section 3.1.3), and the doorbell of its
// first queue.
const (
	nvmeCC       = 0x14
	nvmeCSTS     = 0x1c
	nvmeAQA      = 0x24
	nvmeASQ      = 0x28
	nvmeACQ      = 0x30
	nvmeDoorbell = 0x1000
)

const page = 4096

// A controller is one of NVMe without its driver.
type controller struct{ bar []byte }

// takeController takes the controller of a PCI function from its driver, and stops it.
func takeController(device string) (*controller, error) {
	bar, err := takeBAR(device, 0, 0, 2*nvmeDoorbell)
	if err != nil {
		return nil, err
	}
	c := &controller{bar: bar}
	register(bar, nvmeCC).Store(0)
	return c, c.ready(0)
}

func (c *controller) ready(want uint32) error {
	return wait("the controller", "is not as it should be", func() bool { return register(c.bar, nvmeCSTS).Load()&1 == want })
}

// start has it go on, with 8 entries in each of its two first queues.
func (c *controller) start(submission, completion uint64) error {
	register(c.bar, nvmeAQA).Store(7<<16 | 7)
	for r, address := range map[int]uint64{nvmeASQ: submission, nvmeACQ: completion} {
		register(c.bar, r).Store(uint32(address))
		register(c.bar, r+4).Store(uint32(address >> 32))
	}
	register(c.bar, nvmeCC).Store(4<<20 | 6<<16 | 1)
	return c.ready(1)
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

// diskController is the PCI function of the only NVMe disk.
func diskController() (string, error) {
	return filepath.EvalSymlinks("/sys/block/nvme0n1/device/device")
}

// readOutside takes the disk from its driver and has its controller read a command from where
// the guest has no memory.
func readOutside() error {
	device, err := diskController()
	if err != nil {
		return err
	}
	c, err := takeController(device)
	if err != nil {
		return err
	}
	const outside = 12 << 30
	if err := c.start(outside, outside+page); err != nil {
		return err
	}
	register(c.bar, nvmeDoorbell).Store(1)
	register(c.bar, nvmeCSTS).Load()
	time.Sleep(time.Second) // nothing tells that the controller has tried
	return nil
}

// writePeer has the disk's controller write what it is into the memory of another controller
// (NVM Express Base 2.0, section 5.17.2.1), which is to arrive there or not.
func writePeer(arrives bool) error {
	device, err := diskController()
	if err != nil {
		return err
	}
	serial := attribute("/sys/block/nvme0n1/device/serial")
	peer, err := functionOf(classNVMe, device)
	if err != nil {
		return err
	}
	c, err := takeController(device)
	if err != nil {
		return err
	}
	// What the controller has of memory for queues (section 8.5) is in BAR 2.
	memory, err := takeBAR(peer, 2, 0, 2*page)
	if err != nil {
		return err
	}
	at, err := barAddress(peer, 2)
	if err != nil {
		return err
	}
	for i := 0; i < page; i += 4 {
		register(memory, page+i).Store(0)
	}
	status, err := c.identify(at + page)
	if err != nil {
		return err
	}
	var got []byte
	for i := 4; i < 24; i += 4 { // Serial Number (SN)
		got = binary.LittleEndian.AppendUint32(got, register(memory, page+i).Load())
	}
	fmt.Printf("vfio: status %#x, the peer has %q\n", status, got)
	text := strings.Trim(string(got), " \x00")
	if arrives && (status != 0 || text != serial) || !arrives && text != "" {
		return fmt.Errorf("the peer's memory has %q with status %#x, the controller's serial number is %q", got, status, serial)
	}
	return nil
}

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
	if text := argument("text"); there && (err != nil || !strings.HasSuffix(string(b), text)) || !there && err == nil {
		return fmt.Errorf("the ROM has %d bytes and ends with %q, %w", len(b), b[max(0, len(b)-len(text)):], err)
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

// barAddress is where the guest has a BAR of a PCI function.
func barAddress(device string, n int) (address uint64, err error) {
	lines := strings.Split(attribute(device+"/resource"), "\n")
	if n < len(lines) {
		_, err = fmt.Sscanf(lines[n], "%v", &address)
	}
	if err != nil || address == 0 {
		return 0, fmt.Errorf("BAR %d of %s: %q, %w", n, device, lines, err)
	}
	return address, nil
}

// identify has a stopped controller write what it is to an address, and returns the status.
func (c *controller) identify(to uint64) (status uint32, err error) {
	queues, err := unix.Mmap(-1, 0, 2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE|unix.MAP_LOCKED)
	if err != nil {
		return 0, err
	}
	submission, err := physical(queues)
	if err != nil {
		return 0, err
	}
	completion, err := physical(queues[page:])
	if err != nil {
		return 0, err
	}
	const identify, ofController = 0x06, 1
	for i, word := range map[int]uint32{0: identify, 6: uint32(to), 7: uint32(to >> 32), 10: ofController} {
		register(queues, 4*i).Store(word)
	}
	if err := c.start(submission, completion); err != nil {
		return 0, err
	}
	register(c.bar, nvmeDoorbell).Store(1)
	last := register(queues, page+12) // of the first completion: status and phase
	err = wait("the controller", "does not answer", func() bool { return last.Load()>>16&1 == 1 })
	return last.Load() >> 17, err
}

// physical is where the page is that b begins with (the kernel's
// Documentation/admin-guide/mm/pagemap.rst).
func physical(b []byte) (uint64, error) {
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var entry [8]byte
	if _, err := f.ReadAt(entry[:], int64(addressOf(b)/page*8)); err != nil {
		return 0, err
	}
	const present, frame = 1 << 63, 1<<55 - 1
	e := binary.LittleEndian.Uint64(entry[:])
	if e&present == 0 || e&frame == 0 {
		return 0, fmt.Errorf("no page: %#x", e)
	}
	return e & frame * page, nil
}
