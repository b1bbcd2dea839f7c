package iouring

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/jail"
)

// HotplugRules are the system calls that SetFiles needs. A ring takes nothing but what it
// was restricted to, so there is no more to be had by them than other files for the
// same operations, of those that the process holds anyway.
func HotplugRules() []jail.Rule {
	return []jail.Rule{jail.Allow(unix.SYS_IO_URING_REGISTER, "the files of a disk that is plugged in, on a ring made before",
		jail.Equal(1, registerFilesUpdate))}
}

// NewEmpty is New for a ring that gets its n files later, by SetFiles.
func NewEmpty(entries uint32, n int, ops []Op, buffers *Buffers) (*Ring, error) {
	return New(entries, make([]*os.File, n), ops, buffers)
}

// ErrClosed says that a Ring has been closed.
var ErrClosed = errors.New("the io_uring has been closed")

// SetFiles has a ring that NewEmpty has made work on files; nil ones are none. No request is
// under way. The ring lets go of those it had.
func (r *Ring) SetFiles(files []*os.File) error {
	if r.r == nil {
		return ErrClosed
	}
	if err := updateFileSet(r.fd, files); err != nil {
		return fmt.Errorf("register %d files: %w", len(files), err)
	}
	return nil
}
