package work

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// touch reads 8 bytes at a time at random places of so many MiB, which are all there before:
// nearly every read misses the TLB, and walks the page tables of the guest and, for each
// step, those of the host.
func touch(mib string, d time.Duration) (Result, error) {
	n, err := strconv.Atoi(mib)
	if err != nil || n < 1 || n > 1<<20 {
		return Result{}, errUsage
	}
	size := uint64(n) << 20
	b, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANONYMOUS|unix.MAP_PRIVATE|unix.MAP_POPULATE)
	if err != nil {
		return Result{}, fmt.Errorf("map %d MiB: %w", n, err)
	}
	defer func() { _ = unix.Munmap(b) }()
	const batch = 1000
	at := uint64(1)
	for start, ops := time.Now(), int64(0); ; ops += batch {
		if took := time.Since(start); took >= d {
			return Result{ops, took}, nil
		}
		for range batch {
			// The next place follows from what was read, which is 0: no read begins before the last ended.
			at = at*6364136223846793005 + 1442695040888963407 + binary.LittleEndian.Uint64(b[at>>17%(size>>3)<<3:])
		}
	}
}
