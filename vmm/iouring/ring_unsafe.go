package iouring

import (
	"errors"
	"os"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What is unsafe here: the rings are two mappings of the kernel's, neither moved
// nor freed by the garbage collector, and live until Ring.Close. Offsets into
// them come from the kernel once and are checked against the mappings in
// mapRings; indices are masked with the ring sizes that were checked there.
// Addresses of Go memory go to the kernel only for heap objects that their
// owner keeps until the request is done (Ring's doc); the heap does not move.

func ioUringSetup(entries uint32, p *params) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(p)), 0)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// ioUringEnter waits for nothing.
func ioUringEnter(fd int, submit uint32) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(fd), uintptr(submit), 0, 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func ioUringRegister(fd int, op uint32, arg unsafe.Pointer, n int) error {
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(fd), uintptr(op), uintptr(arg), uintptr(n), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func registerFileSet(fd int, files []*os.File) error {
	fds := descriptors(files)
	return ioUringRegister(fd, registerFiles, unsafe.Pointer(unsafe.SliceData(fds)), len(fds))
}

// registerEvent has f signalled at completions.
func registerEvent(fd int, f *os.File) error {
	event := int32(f.Fd())
	return ioUringRegister(fd, registerEventfd, unsafe.Pointer(&event), 1)
}

// updateFileSet replaces the first files of those registered.
func updateFileSet(fd int, files []*os.File) error {
	fds := descriptors(files)
	u := &filesUpdate{fds: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(fds))))}
	err := ioUringRegister(fd, registerFilesUpdate, unsafe.Pointer(u), len(fds))
	runtime.KeepAlive(fds)
	return err
}

// descriptors are those of files, -1 where there is none.
func descriptors(files []*os.File) []int32 {
	fds := make([]int32, len(files))
	for i, f := range files {
		fds[i] = -1
		if f != nil {
			fds[i] = int32(f.Fd())
		}
	}
	return fds
}

// registerBufferSet has the kernel pin what pieces name.
func registerBufferSet(fd int, pieces []Iovec) error {
	return ioUringRegister(fd, registerBuffers, unsafe.Pointer(unsafe.SliceData(pieces)), len(pieces))
}

// cloneBufferSet gives a ring the buffers of another.
func cloneBufferSet(fd, from int) error {
	return ioUringRegister(fd, registerCloneBuffers, unsafe.Pointer(&cloneBuffers{srcFd: uint32(from)}), 1)
}

func registerRestrictionSet(fd int, rs []restriction) error {
	return ioUringRegister(fd, registerRestrictions, unsafe.Pointer(unsafe.SliceData(rs)), len(rs))
}

// registerWorkers bounds the kernel threads of each thread that submits: those
// for files, and those for everything else.
func registerWorkers(fd int, files, others uint32) error {
	counts := [2]uint32{files, others}
	return ioUringRegister(fd, registerIOWQMaxWorkers, unsafe.Pointer(&counts), len(counts))
}

// rings are the shared memory of one io_uring.
type rings struct {
	ring, sqes                     []byte
	sqHead, sqTail, cqHead, cqTail *uint32
	cqFlags                        *uint32
	sqArray                        unsafe.Pointer
	cqeBase                        unsafe.Pointer
	sqMask, cqMask                 uint32
}

// mapRings maps what the kernel described in p.
func mapRings(fd int, p *params) (*rings, error) {
	sqEnd := uint64(p.sqOff.array) + 4*uint64(p.sqEntries)
	cqEnd := uint64(p.cqOff.cqes) + uint64(unsafe.Sizeof(cqe{}))*uint64(p.cqEntries)
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	ring, err := unix.Mmap(fd, offSQRing, int(max(sqEnd, cqEnd)), prot, flags)
	if err != nil {
		return nil, err
	}
	sqes, err := unix.Mmap(fd, offSQEs, int(p.sqEntries)*int(unsafe.Sizeof(sqe{})), prot, flags)
	if err != nil {
		return nil, errors.Join(err, unix.Munmap(ring))
	}
	r := &rings{ring: ring, sqes: sqes, sqMask: p.sqEntries - 1, cqMask: p.cqEntries - 1}
	word := func(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&ring[off : off+4][0])) }
	r.sqHead, r.sqTail = word(p.sqOff.head), word(p.sqOff.tail)
	r.cqHead, r.cqTail = word(p.cqOff.head), word(p.cqOff.tail)
	r.cqFlags = word(p.cqOff.flags)
	r.sqArray = unsafe.Pointer(&ring[p.sqOff.array])
	r.cqeBase = unsafe.Pointer(&ring[p.cqOff.cqes])
	for i := range p.sqEntries { // entry i of the queue is SQE i, for good
		*(*uint32)(unsafe.Add(r.sqArray, 4*uintptr(i))) = i
	}
	return r, nil
}

func (r *rings) unmap() error {
	return errors.Join(unix.Munmap(r.sqes), unix.Munmap(r.ring))
}

// sqe is the submission entry for tail index i.
func (r *rings) sqe(i uint32) *sqe {
	return (*sqe)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(r.sqes)), uintptr(i&r.sqMask)*unsafe.Sizeof(sqe{})))
}

// cqe copies the completion entry for head index i.
func (r *rings) cqe(i uint32) cqe {
	return *(*cqe)(unsafe.Add(r.cqeBase, uintptr(i&r.cqMask)*unsafe.Sizeof(cqe{})))
}

func load(p *uint32) uint32     { return atomic.LoadUint32(p) }
func store(p *uint32, v uint32) { atomic.StoreUint32(p, v) }

func iovecAddress(v []Iovec) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(v)))) }
func bufferAddress(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

// Address is where b lies, for an Iovec. The caller keeps b alive and on the
// heap until the kernel is done with it.
func Address(b []byte) uint64 { return bufferAddress(b) }
