package xfs

import (
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// sectorSize is the unit in which the device writes without tearing: its
// physical block, if that is 4096, and 512 bytes else. A file has 512.
func sectorSize(f *os.File) (int, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if st.Mode()&fs.ModeDevice == 0 {
		return 512, nil
	}
	logical, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET)
	if err != nil {
		return 0, fmt.Errorf("ask for the logical block size: %w", err)
	}
	physical, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKPBSZGET)
	if err != nil {
		return 0, fmt.Errorf("ask for the physical block size: %w", err)
	}
	if physical >= 4096 || logical == 4096 {
		return max(4096, logical), nil
	}
	return max(512, logical), nil
}

// zero makes n bytes from at on zero: by the device's own means where it has
// some, else by writing.
func zero(f *os.File, at, n int64) error {
	for _, mode := range []uint32{unix.FALLOC_FL_PUNCH_HOLE, unix.FALLOC_FL_ZERO_RANGE} {
		if unix.Fallocate(int(f.Fd()), mode|unix.FALLOC_FL_KEEP_SIZE, at, n) == nil {
			return nil
		}
	}
	b := make([]byte, 1<<20)
	for n > 0 {
		c := min(n, int64(len(b)))
		if _, err := f.WriteAt(b[:c], at); err != nil {
			return fmt.Errorf("zero the log: %w", err)
		}
		at, n = at+c, n-c
	}
	return nil
}
