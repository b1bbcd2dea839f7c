package work

import (
	"fmt"
	"os"
	"structs"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Commands of iocb (linux/aio_abi.h).
const (
	cmdPread  = 0
	cmdPwrite = 1
)

// iocb mirrors struct iocb.
type iocb struct {
	_       structs.HostLayout
	data    uint64
	key     uint32
	rwFlags uint32
	opcode  uint16
	prio    int16
	fd      uint32
	buf     uint64
	nbytes  uint64
	offset  int64
	_       uint64
	flags   uint32
	resfd   uint32
}

// ioEvent mirrors struct io_event.
type ioEvent struct {
	_    structs.HostLayout
	data uint64
	obj  uint64
	res  int64
	res2 int64
}

// A queue has requests under way with the kernel's asynchronous I/O (io_submit(2)).
// What the kernel is given lies outside of Go's heap or is kept by the queue.
type queue struct {
	context uintptr
	size    int
	memory  []byte
	blocks  []iocb
	events  []ioEvent
	done    []int
	next    []*iocb // the one that is being submitted
}

func newQueue(f *os.File, depth, size int, write bool) (*queue, error) {
	q := &queue{size: size, blocks: make([]iocb, depth), events: make([]ioEvent, depth), next: make([]*iocb, 1)}
	var err error
	if q.memory, err = aligned(depth * size); err != nil {
		return nil, err
	}
	// io_setup writes the context through the pointer, which stays valid during the call.
	if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, uintptr(depth), uintptr(unsafe.Pointer(&q.context)), 0); errno != 0 {
		return nil, fmt.Errorf("io_setup: %w", errno)
	}
	for i := range q.blocks {
		q.blocks[i] = iocb{
			data: uint64(i), opcode: cmdPread, fd: uint32(f.Fd()), nbytes: uint64(size),
			// The memory is mapped, never moved, and unmapped only by close.
			buf: uint64(uintptr(unsafe.Pointer(&q.memory[i*size]))),
		}
		if write {
			q.blocks[i].opcode = cmdPwrite
		}
	}
	return q, nil
}

// submit starts the request of a slot that is free.
func (q *queue) submit(slot int, offset int64) error {
	q.next[0] = &q.blocks[slot]
	q.next[0].offset = offset
	// The kernel copies the request before the call returns. q is no memory of a stack.
	if _, errno := call(unix.SYS_IO_SUBMIT, q.context, 1, uintptr(unsafe.Pointer(&q.next[0])), 0, 0); errno != 0 {
		return fmt.Errorf("io_submit: %w", errno)
	}
	return nil
}

// wait returns the slots whose requests have ended, at least one. They are valid
// until the next wait.
func (q *queue) wait() ([]int, error) {
	// The kernel fills events, which q keeps, during the call.
	n, errno := call(unix.SYS_IO_GETEVENTS, q.context, 1, uintptr(len(q.events)), uintptr(unsafe.Pointer(&q.events[0])), 0)
	if errno != 0 {
		return nil, fmt.Errorf("io_getevents: %w", errno)
	}
	q.done = q.done[:0]
	for _, e := range q.events[:n] {
		if e.res != int64(q.size) {
			return nil, fmt.Errorf("a request of %d bytes ended with %d", q.size, e.res)
		}
		q.done = append(q.done, int(e.data))
	}
	return q.done, nil
}

// drain waits until n requests have ended.
func (q *queue) drain(n int) error {
	for n > 0 {
		done, err := q.wait()
		if err != nil {
			return err
		}
		n -= len(done)
	}
	return nil
}

func (q *queue) close() {
	_, _, _ = unix.Syscall(unix.SYS_IO_DESTROY, q.context, 0, 0)
	_ = unix.Munmap(q.memory)
}
