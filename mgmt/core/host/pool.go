package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// PoolReserve is how many bytes of the pool have to be free: with less it counts as full.
const PoolReserve = 64 << 20

// PoolProblem says in a sentence what is wrong with the pool in dataDir, on the disk with
// that device node ("" for none), and what to do; "" where nothing is.
//
// A file system of XFS shuts down after errors in what it writes down of itself: then it
// does not even tell of its files.
func PoolProblem(dataDir, device string) string { return poolProblem(dataDir, device, "/sys") }

func poolProblem(dataDir, device, sys string) string {
	const guests = "Guests get I/O errors and nothing can be stored"
	if device != "" {
		if _, err := os.Lstat(filepath.Join(sys, "class/block", filepath.Base(device))); errors.Is(err, os.ErrNotExist) {
			return fmt.Sprintf("The data disk %s is gone. %s: bring the disk back, and restart the host.", device, guests)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(dataDir, &st); err != nil {
		return fmt.Sprintf("The data disk fails (%v). %s: check the disk, and restart the host.", err, guests)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dataDir, &fs); err != nil {
		return fmt.Sprintf("The data disk fails (%v). %s: check the disk, and restart the host.", err, guests)
	}
	if free := int64(fs.Bavail) * fs.Bsize; free < PoolReserve {
		return fmt.Sprintf("The pool is full: %d MiB are free. Guests get I/O errors where their disks grow: delete images, guests or disks.", free>>20)
	}
	return ""
}
