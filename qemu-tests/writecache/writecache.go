// Package writecache is a disk with a volatile write cache, for QEMU: what was written and not
// flushed may be lost when the power is cut, whole or in part, in any order. A QEMU that is killed
// loses nothing that it has written to a file, so that a flush which is missing would not be seen.
//
// It serves a file as a network block device (nbd.go). The file always has what was written last;
// what it had before is kept until the next flush, to go back to.
package writecache

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
)

const (
	// sector is what a disk writes whole or not at all, in bytes.
	sector = 512
	// room is the size of the cache in bytes: what is more is on the disk at once.
	room = 64 << 20
)

// A Disk is a disk that is served.
type Disk struct {
	size   int64
	listen net.Listener
	served sync.WaitGroup

	mu     sync.Mutex
	file   *os.File
	cached []write // since the last flush, in their order
	bytes  int     // of these
	conns  map[net.Conn]bool
	err    error // the first of the file's
}

// A write is one that the disk has acknowledged.
type write struct {
	at       int64
	old, now []byte
}

// Serve makes the file of size bytes where there is none, and serves it at a Unix socket, until
// Close.
func Serve(path string, size int64, socket string) (*Disk, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("serve disk: %w", err)
	}
	if err := f.Truncate(size); err != nil {
		f.Close()
		return nil, fmt.Errorf("serve disk: %w", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("serve disk: %w", err)
	}
	d := &Disk{size: size, listen: l, file: f, conns: make(map[net.Conn]bool)}
	d.served.Go(d.accept)
	return d, nil
}

func (d *Disk) accept() {
	for {
		c, err := d.listen.Accept()
		if err != nil {
			return // Close
		}
		d.mu.Lock()
		d.conns[c] = true
		d.mu.Unlock()
		d.served.Go(func() {
			defer func() {
				d.mu.Lock()
				delete(d.conns, c)
				d.mu.Unlock()
				c.Close()
			}()
			d.serve(c)
		})
	}
}

// Close ends the service. What was written is in the file.
func (d *Disk) Close() error {
	err := d.listen.Close()
	d.hangUp()
	d.served.Wait()
	return errors.Join(err, d.err, d.file.Close())
}

func (d *Disk) hangUp() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.conns {
		c.Close()
	}
}

// read reads from the disk.
func (d *Disk) read(b []byte, at int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, err := d.file.ReadAt(b, at)
	return d.note(err)
}

// write writes to the cache, and with through past it.
func (d *Disk) write(b []byte, at int64, through bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := write{at, make([]byte, len(b)), slices.Clone(b)}
	_, err := d.file.ReadAt(w.old, at)
	if err == nil {
		_, err = d.file.WriteAt(b, at)
	}
	if err != nil {
		return d.note(err)
	}
	d.cached = append(d.cached, w)
	d.bytes += len(b)
	if through || d.bytes > room { // with all that came before it: it is as good, and simple
		d.drop()
	}
	return nil
}

// flush makes all that was written last.
func (d *Disk) flush() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drop()
}

func (d *Disk) drop() { d.cached, d.bytes = nil, 0 }

func (d *Disk) note(err error) error {
	if err != nil && d.err == nil {
		d.err = fmt.Errorf("disk with a cache: %w", err)
	}
	return err
}

// A Loss is what becomes of the cache when the power is cut.
type Loss int

// Losses.
const (
	Nothing Loss = iota // all of the cache is written
	Everything
	// Some of the writes are lost, and of some a part of their sectors.
	Some
)

// String names the loss.
func (l Loss) String() string { return [...]string{"nothing", "everything", "some"}[l] }

// Cut is what a cut of the power does to the disk of a machine that has ended: it says how many
// writes were in the cache, and of how many of them something was lost.
func (d *Disk) Cut(loss Loss, rng *rand.Rand) (cached, lost int, err error) {
	d.hangUp()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return 0, 0, d.err
	}
	cached = len(d.cached)
	defer d.drop()
	if loss == Nothing {
		return cached, 0, nil
	}
	for _, w := range slices.Backward(d.cached) {
		if _, err := d.file.WriteAt(w.old, w.at); err != nil {
			return cached, lost, d.note(err)
		}
	}
	for _, w := range d.cached {
		whole := true
		keep := rng.IntN(3) // 0 nothing, 1 all, 2 some
		for at := 0; at < len(w.now); at += sector {
			if loss == Everything || keep == 0 || keep == 2 && rng.IntN(2) == 0 {
				whole = false
				continue
			}
			if _, err := d.file.WriteAt(w.now[at:min(at+sector, len(w.now))], w.at+int64(at)); err != nil {
				return cached, lost, d.note(err)
			}
		}
		if !whole {
			lost++
		}
	}
	return cached, lost, nil
}
