// Package iouring is the part of io_uring (io_uring(7), linux/io_uring.h) that
// a block device needs: one ring, a fixed set of files, and few operations.
//
// A ring can get around system call filters: the kernel opens, connects or
// unlinks for it without asking them. So a ring is made before the process
// enters its jail, and is made small: it takes only the operations and only the
// files that were named then (io_uring_register(2), IORING_REGISTER_RESTRICTIONS),
// and io_uring_setup is no call to allow later. It needs Linux 6.1.
package iouring

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/jail"
	"github.com/ashlar-hv/ashlar/vmm/virtio/eventfd"
)

// workers is how many kernel threads a ring may use for requests that would
// block (flushes, fallocate). They count as threads of the process
// (RLIMIT_NPROC, pids.max), and by default there are four a CPU for each ring:
// enough for a guest with many flushes under way to leave the Go runtime
// without the thread that it cannot do without.
const workers = 2

// Rules are the system calls that a ring needs once it is made: none but
// io_uring_enter.
func Rules() []jail.Rule {
	return []jail.Rule{jail.Allow(unix.SYS_IO_URING_ENTER, "disk requests, on rings restricted to disk files")}
}

// ErrUnsupported says that the kernel lacks what this package needs.
var ErrUnsupported = errors.New("needs Linux 6.1 with CONFIG_IO_URING, and the sysctl kernel.io_uring_disabled at 0")

// A Ring is one io_uring. It is used by one goroutine at a time. What a request points
// to (iovecs, buffers) belongs to the caller, is heap memory, and stays untouched until
// the request's Completion. Requests of a thread that ends may be cancelled (ECANCELED):
// the runtime ends none but those that a goroutine was locked to.
type Ring struct {
	f       *os.File
	fd      int
	event   *os.File
	r       *rings
	tail    uint32 // submission entries filled, published by Submit
	ahead   uint32 // of those, not yet taken by the kernel
	size    uint32
	buffers *Buffers // nil where none are registered
}

// A Completion is a request that is done.
type Completion struct {
	Data   uint64 // as given with the request
	Result int32  // what the system call would return, or minus an errno
}

// New makes a ring for entries requests at a time that works on files, by their
// place in the slice, and does nothing but ops. The files stay the caller's; the
// ring holds them too. buffers may be nil; else OpReadv and OpWritev allow OpReadFixed and
// OpWriteFixed, too.
func New(entries uint32, files []*os.File, ops []Op, buffers *Buffers) (*Ring, error) {
	p := params{flags: setupClamp | setupRDisabled | setupSubmitAll | setupCoopTaskrun}
	fd, err := ioUringSetup(entries, &p)
	if err != nil {
		if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
			err = fmt.Errorf("%w: %w", err, ErrUnsupported)
		}
		return nil, fmt.Errorf("make io_uring of %d entries: %w", entries, err)
	}
	r := &Ring{f: os.NewFile(uintptr(fd), "io_uring"), fd: fd, size: p.sqEntries, buffers: buffers}
	if r.event, err = eventfd.New("io_uring-event", false); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	if err := r.start(&p, files, ops); err != nil {
		return nil, errors.Join(fmt.Errorf("make io_uring: %w", err), r.Close())
	}
	return r, nil
}

// start maps, restricts and enables the ring.
func (r *Ring) start(p *params, files []*os.File, ops []Op) error {
	const want = featSingleMmap | featNoDrop | featSubmitStable
	if p.features&want != want {
		return fmt.Errorf("features %#x: %w", p.features, ErrUnsupported)
	}
	var err error
	if r.r, err = mapRings(r.fd, p); err != nil {
		return fmt.Errorf("map rings: %w", err)
	}
	if len(files) > 0 {
		if err := registerFileSet(r.fd, files); err != nil {
			return fmt.Errorf("register %d files: %w", len(files), err)
		}
	}
	if r.buffers != nil {
		if err := r.buffers.lend(r.fd); err != nil {
			return err
		}
		ops = withFixed(ops)
	}
	if err := registerEvent(r.fd, r.event); err != nil {
		return fmt.Errorf("register its event: %w", err)
	}
	store(r.r.cqFlags, cqEventfdDisabled)
	if err := registerWorkers(r.fd, workers, 1); err != nil {
		return fmt.Errorf("bound to %d kernel threads: %w", workers, err)
	}
	rs := []restriction{
		{opcode: restrictSQEFlagsAllowed, arg: sqeFixedFile},
		{opcode: restrictSQEFlagsRequired, arg: sqeFixedFile},
	}
	if slices.Contains(files, nil) {
		rs = append(rs, restriction{opcode: restrictRegisterOp, arg: registerFilesUpdate})
	}
	for _, op := range ops {
		rs = append(rs, restriction{opcode: restrictSQEOp, arg: uint8(op)})
	}
	if err := registerRestrictionSet(r.fd, rs); err != nil {
		return fmt.Errorf("restrict to %d operations: %w", len(ops), err)
	}
	if err := ioUringRegister(r.fd, registerEnableRings, nil, 0); err != nil {
		return fmt.Errorf("enable: %w", err)
	}
	return nil
}

// Close closes the ring, unless it has been. No request is under way.
func (r *Ring) Close() error {
	var err error
	if r.r != nil {
		err = r.r.unmap()
		r.r = nil
	}
	for _, f := range []*os.File{r.f, r.event} {
		if cerr := f.Close(); f != nil && !errors.Is(cerr, os.ErrClosed) {
			err = errors.Join(err, cerr)
		}
	}
	return err
}

// next returns a cleared entry for a request on file, nil when the ring is full:
// then Submit makes room.
func (r *Ring) next(op Op, file int, data uint64) *sqe {
	if r.tail-load(r.r.sqHead) >= r.size {
		return nil
	}
	e := r.r.sqe(r.tail)
	*e = sqe{opcode: op, flags: sqeFixedFile, fd: int32(file), userData: data}
	r.tail++
	r.ahead++
	return e
}

// Readv asks to read file at off into iov; false means that the ring is full.
func (r *Ring) Readv(file int, iov []Iovec, off, data uint64) bool {
	e := r.next(OpReadv, file, data)
	if e == nil {
		return false
	}
	e.addr, e.len, e.off = iovecAddress(iov), uint32(len(iov)), off
	return true
}

// Writev asks to write iov to file at off; with dsync it is done only when the
// data is on the medium (RWF_DSYNC).
func (r *Ring) Writev(file int, iov []Iovec, off uint64, dsync bool, data uint64) bool {
	e := r.next(OpWritev, file, data)
	if e == nil {
		return false
	}
	e.addr, e.len, e.off = iovecAddress(iov), uint32(len(iov)), off
	if dsync {
		e.opFlags = unix.RWF_DSYNC
	}
	return true
}

// Fdatasync asks for all completed writes to file to be on the medium.
func (r *Ring) Fdatasync(file int, data uint64) bool {
	e := r.next(OpFsync, file, data)
	if e == nil {
		return false
	}
	e.opFlags = fsyncData
	return true
}

// Fallocate asks for fallocate(2) with mode on n bytes at off.
func (r *Ring) Fallocate(file int, mode uint32, off, n, data uint64) bool {
	e := r.next(OpFallocate, file, data)
	if e == nil {
		return false
	}
	e.off, e.addr, e.len = off, n, mode
	return true
}

// Submit hands the requests asked for to the kernel, and waits for none of them. Where
// some are left (Behind), as the kernel is out of memory for a moment or completions are
// to be taken first, it is to be called again.
//
// The scheduler is not told of the system call (RawSyscall): requests that would block
// are a matter of the kernel's own threads, and its thread that watches over system
// calls is woken by each of those of which it is told.
func (r *Ring) Submit() error {
	store(r.r.sqTail, r.tail)
	for r.ahead > 0 {
		n, err := ioUringEnter(r.fd, r.ahead)
		r.ahead -= uint32(n)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EBUSY):
			return nil
		case err != nil:
			return fmt.Errorf("io_uring_enter: %w", err)
		}
	}
	return nil
}

// Behind tells whether there are requests that the kernel has not taken.
func (r *Ring) Behind() bool { return r.ahead > 0 }

// Event is an eventfd that is signalled at completions, while that is asked for. It is
// the Ring's, which closes it; others may signal it too.
func (r *Ring) Event() *os.File { return r.event }

// Announce says whether Event is to be signalled at completions, from now on, and tells
// whether there are some already.
func (r *Ring) Announce(on bool) bool {
	flags := uint32(cqEventfdDisabled)
	if on {
		flags = 0
	}
	store(r.r.cqFlags, flags) // a full barrier: the load below comes after
	return load(r.r.cqHead) != load(r.r.cqTail)
}

// Next takes one completion, and tells whether there was one.
func (r *Ring) Next() (Completion, bool) {
	head := load(r.r.cqHead)
	if head == load(r.r.cqTail) {
		return Completion{}, false
	}
	e := r.r.cqe(head)
	store(r.r.cqHead, head+1)
	return Completion{Data: e.userData, Result: e.res}, true
}
