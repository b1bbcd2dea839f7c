package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
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

// diskController is the PCI function of the only NVMe disk.
func diskController() (string, error) {
	return filepath.EvalSymlinks("/sys/block/" + filepath.Base(nvme) + "/device/device")
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
	serial := attribute("/sys/block/" + filepath.Base(nvme) + "/device/serial")
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

// identify has a stopped controller write what it is to an address, and returns the status.
func (c *controller) identify(to uint64) (status uint32, err error) {
	queues, err := lockedPages(2)
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

// lockedPages is memory that stays where it is.
func lockedPages(n int) ([]byte, error) {
	return unix.Mmap(-1, 0, n*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE|unix.MAP_LOCKED)
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
