package main

import (
	"fmt"
	"unsafe" // the program headers, where the kernel has mapped them

	"golang.org/x/sys/unix"
)

// Entries of the auxiliary vector (getauxval(3)), and of a program header (elf(5)).
const (
	auxPHDR  = 3
	auxPHNum = 5

	ptLoad      = 1
	pfW         = 2
	hostPage    = 4096
	maxSegments = 64
)

// A programHeader is Elf64_Phdr.
type programHeader struct {
	typ, flags uint32
	_          uint64 // offset
	vaddr      uint64
	_, _       uint64 // physical address, size in the file
	memsz      uint64
	_          uint64 // alignment
}

// dropText gives back the pages of the program's code and constants: most of them were
// needed to start a guest and never will be again, and those that are come back from the
// page cache, 64 KiB at a time. What can be written stays.
func dropText() error {
	aux, err := unix.Auxv()
	if err != nil {
		return fmt.Errorf("auxiliary vector: %w", err)
	}
	var at, n uintptr
	for _, a := range aux {
		switch a[0] {
		case auxPHDR:
			at = a[1]
		case auxPHNum:
			n = a[1]
		}
	}
	if at == 0 || n > maxSegments {
		return fmt.Errorf("%d program headers at %#x", n, at)
	}
	first := *(**programHeader)(unsafe.Pointer(&at))
	for _, h := range unsafe.Slice(first, n) {
		if h.typ != ptLoad || h.flags&pfW != 0 {
			continue
		}
		size := uintptr(h.memsz) &^ (hostPage - 1)
		if _, _, e := unix.Syscall(unix.SYS_MADVISE, uintptr(h.vaddr), size, unix.MADV_DONTNEED); e != 0 {
			return fmt.Errorf("give back pages of the program: %w", e)
		}
	}
	return nil
}
