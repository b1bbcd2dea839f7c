package store

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

var (
	// ErrFull says that the disk below the store has no room left: nothing was written.
	ErrFull = errors.New("the disk is full")
	// ErrDisk says that the disk below the store fails, or cannot be written.
	ErrDisk = errors.New("the disk fails")
)

// roomUnit is what the room of the file is a multiple of, in bytes.
const roomUnit = 4 << 20

// A guard keeps faults of the disk from ending the process.
type guard struct {
	file   *os.File      // bbolt's
	room   atomic.Int64  // how many bytes of the file have blocks on the disk
	broken chan struct{} // closed once the mapping of the file has faulted
	once   sync.Once
}

// Broken is closed once the file cannot be read any more: all that follows fails with
// ErrDisk, until the store is opened anew by another process.
func (s *Store) Broken() <-chan struct{} { return s.guard.broken }

// do runs f, which works on the file. What f itself refuses with comes back as it is.
func (s *Store) do(f func(fn func(*Tx) error) error, fn func(*Tx) error) (err error) {
	select {
	case <-s.guard.broken:
		return fmt.Errorf("store: %w: it cannot be read any more", ErrDisk)
	default:
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if _, fault := p.(interface{ Addr() uintptr }); !fault {
			panic(p) // a bug of ours
		}
		s.guard.once.Do(func() { close(s.guard.broken) })
		err = fmt.Errorf("store: %w: %v", ErrDisk, p)
	}()
	var own error
	err = f(func(tx *Tx) error { own = fn(tx); return own })
	if err == nil || own != nil {
		return err
	}
	return classify(err)
}

// classify says what an error of the file's means.
func classify(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("store: %w: %w", ErrFull, err)
	}
	return fmt.Errorf("store: %w: %w", ErrDisk, err)
}

// makeRoom has the disk keep room for as much again as the store holds: what is done to
// make room on a full disk can still be written down. A disk without that room, or a
// file system that cannot promise it, is no error.
func (s *Store) makeRoom(used int64) {
	want := (2*used/roomUnit + 1) * roomUnit
	if want <= s.guard.room.Load() {
		return
	}
	if err := unix.Fallocate(int(s.guard.file.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, want); err == nil {
		s.guard.room.Store(want)
	}
}
