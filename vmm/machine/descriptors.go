package machine

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// A descriptors is what came beside a Spec. Each is taken once.
type descriptors struct {
	files []*os.File
}

// take returns file f for the field, whose owner is the caller from then on.
func (d *descriptors) take(field string, f protocol.File) (*os.File, *protocol.Error) {
	if f < 0 || int(f) >= len(d.files) {
		return nil, invalid(field, "%s names descriptor %d of %d", field, f, len(d.files))
	}
	file := d.files[f]
	if file == nil {
		return nil, invalid(field, "%s names descriptor %d, which another field has taken", field, f)
	}
	d.files[f] = nil
	named, err := rename(file, field)
	if err != nil {
		return nil, &protocol.Error{Code: protocol.Unavailable, Field: field, Message: err.Error()}
	}
	return named, nil
}

// rename closes f and returns it under another name: messages are to name the
// field that a descriptor came for.
func rename(f *os.File, name string) (*os.File, error) {
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("take descriptor for %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// takeOptional is take for a field that may be absent.
func (d *descriptors) takeOptional(field string, f *protocol.File) (*os.File, *protocol.Error) {
	if f == nil {
		return nil, nil
	}
	return d.take(field, *f)
}

// takeUnwatched is take for what only the kernel reads and writes, as vhost-net does with a tap. The
// runtime's poller watches what does not block: each packet would wake a thread here for nothing.
func (d *descriptors) takeUnwatched(field string, f protocol.File) (*os.File, *protocol.Error) {
	file, perr := d.take(field, f)
	if perr != nil {
		return nil, perr
	}
	if err := unix.SetNonblock(int(file.Fd()), false); err != nil {
		file.Close()
		return nil, &protocol.Error{Code: protocol.Unavailable, Field: field, Message: fmt.Sprintf("have descriptor for %s block: %v", field, err)}
	}
	unwatched, err := rename(file, field) // the poller looks at a File when it is made
	if err != nil {
		return nil, &protocol.Error{Code: protocol.Unavailable, Field: field, Message: err.Error()}
	}
	return unwatched, nil
}

func (d *descriptors) close() {
	for _, f := range d.files {
		if f != nil {
			f.Close()
		}
	}
}
