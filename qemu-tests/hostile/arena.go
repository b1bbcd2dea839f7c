package main

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// The arena is one huge page, whose physical address is known: all that a device is told to
// write to, in this guest's memory, lies in there, so that no attack hits the guest itself.
const (
	arenaSize = 2 << 20
	ringSpace = 0x4000  // of one queue: descriptors, available ring, used ring
	tableAt   = 0x20000 // of indirect descriptors
	bufferAt  = 0x40000
	pagesAt   = 0x100000 // pages for the balloon, and the rest
)

// An arena is that page.
type arena struct {
	b   []byte
	gpa uint64
}

func newArena() (*arena, error) {
	b, err := unix.Mmap(-1, 0, arenaSize, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_HUGETLB|unix.MAP_POPULATE|unix.MAP_LOCKED)
	if err != nil {
		return nil, fmt.Errorf("map a huge page (hugepages=1 on the command line?): %w", err)
	}
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var e [8]byte
	if _, err := f.ReadAt(e[:], int64(address(b)/4096*8)); err != nil {
		return nil, fmt.Errorf("pagemap: %w", err)
	}
	const present, frame = 1 << 63, 1<<55 - 1
	v := binary.LittleEndian.Uint64(e[:])
	if v&present == 0 || v&frame == 0 {
		return nil, fmt.Errorf("pagemap: %#x: no page there", v)
	}
	return &arena{b, v & frame * 4096}, nil
}
