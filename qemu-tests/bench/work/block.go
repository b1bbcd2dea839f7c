package work

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// block keeps depth requests of size bytes under way on a disk, at places that are random
// or follow one another.
func block(disk, op, order, sizeText, depthText string, d time.Duration) (Result, error) {
	size, err := strconv.Atoi(sizeText)
	if err != nil {
		return Result{}, err
	}
	depth, err := strconv.Atoi(depthText)
	if err != nil {
		return Result{}, err
	}
	f, places, err := openDisk(disk, int64(size))
	if err != nil {
		return Result{}, err
	}
	defer f.Close()
	q, err := newQueue(f, depth, size, op == "write")
	if err != nil {
		return Result{}, err
	}
	defer q.close()
	next := func(n int64) int64 {
		if order == "rand" {
			return rand.Int64N(places) * int64(size)
		}
		return n % places * int64(size)
	}
	var n int64
	for slot := range depth {
		if err := q.submit(slot, next(int64(slot))); err != nil {
			return Result{}, err
		}
	}
	start := time.Now()
	for submitted := int64(depth); ; {
		done, err := q.wait()
		if err != nil {
			return Result{}, err
		}
		n += int64(len(done))
		if time.Since(start) >= d {
			return Result{n, time.Since(start)}, q.drain(int(submitted - n))
		}
		for _, slot := range done {
			if err := q.submit(slot, next(submitted)); err != nil {
				return Result{}, err
			}
			submitted++
		}
	}
}

// openDisk opens the disk, past the page cache, and says how many pieces of a
// size it has.
func openDisk(disk string, size int64) (*os.File, int64, error) {
	f, err := os.OpenFile(disk, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return nil, 0, err
	}
	end, err := f.Seek(0, io.SeekEnd)
	if err == nil && end < size {
		err = fmt.Errorf("%s has only %d bytes", disk, end)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, end / size, nil
}

// durable writes 4 KiB after 4 KiB, each made durable before the next.
func durable(disk string, d time.Duration) (Result, error) {
	const size = 4096
	f, places, err := openDisk(disk, size)
	if err != nil {
		return Result{}, err
	}
	defer f.Close()
	b, err := aligned(size)
	if err != nil {
		return Result{}, err
	}
	start := time.Now()
	for n := int64(0); ; n++ {
		if took := time.Since(start); took >= d {
			return Result{n, took}, nil
		}
		m, err := transfer(unix.SYS_PWRITE64, int(f.Fd()), b, n%places*size)
		if err == nil && m != size {
			err = io.ErrShortWrite
		}
		if err != nil {
			return Result{}, fmt.Errorf("write of %d bytes: %w", size, err)
		}
		if _, errno := call(unix.SYS_FSYNC, f.Fd(), 0, 0, 0, 0); errno != 0 {
			return Result{}, fmt.Errorf("fsync: %w", errno)
		}
	}
}

// aligned is memory that begins with a page.
func aligned(size int) ([]byte, error) {
	return unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANONYMOUS|unix.MAP_PRIVATE)
}
