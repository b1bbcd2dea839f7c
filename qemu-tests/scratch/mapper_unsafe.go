package scratch

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// do makes a request of the device mapper's about f, with a table where it takes one, and
// returns the number of the device. A struct dm_ioctl comes first in the buffer, and behind it
// for each part a struct dm_target_spec and its parameters as a C string, padded to 8 bytes.
func (f *Failing) do(request uintptr, flags uint32, table []part) (dev uint64, err error) {
	const head, spec = unsafe.Sizeof(unix.DmIoctl{}), unsafe.Sizeof(unix.DmTargetSpec{})
	size := head
	for _, p := range table {
		parameters := f.parameters(p)
		size += spec + pad(len(parameters)+1)
	}
	words := make([]uint64, (size+7)/8) // aligned for both structs
	buf := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), len(words)*8)
	// Sound: the buffer is as large as the struct at least, and aligned as it is.
	d := (*unix.DmIoctl)(unsafe.Pointer(&words[0]))
	d.Version = [3]uint32{4, 0, 0}
	d.Data_size, d.Data_start = uint32(len(buf)), uint32(head)
	d.Target_count, d.Flags = uint32(len(table)), flags
	copy(d.Name[:], f.name)
	at := head
	for _, p := range table {
		parameters := f.parameters(p)
		next := spec + pad(len(parameters)+1)
		// Sound: all offsets are multiples of 8, and within the size that was summed up above.
		s := (*unix.DmTargetSpec)(unsafe.Pointer(&buf[at]))
		s.Sector_start, s.Length, s.Next = p.from, p.sectors, uint32(next)
		copy(s.Target_type[:], p.kind)
		copy(buf[at+spec:], parameters)
		at += next
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.control.Fd(), request, uintptr(unsafe.Pointer(&words[0]))); errno != 0 {
		return 0, fmt.Errorf("device mapper request %#x: %w", request, errno)
	}
	return d.Dev, nil
}

func pad(n int) uintptr { return uintptr(n+7) &^ 7 }

// fibmap is FIBMAP of linux/fs.h, a number without a struct.
const fibmap = 1

// blockOf is where block n of a file is on its disk, in blocks; 0 is nowhere.
func blockOf(file *os.File, n int64) (int64, error) {
	at := int32(n)
	// Sound: the kernel reads and writes one int.
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, file.Fd(), fibmap, uintptr(unsafe.Pointer(&at))); errno != 0 {
		return 0, errno
	}
	return int64(at), nil
}
