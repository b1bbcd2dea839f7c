package memory

import (
	"errors"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What is unsafe here: the mapping is not Go memory, so the garbage collector
// neither moves nor frees it, and base+off stays inside it, because every
// caller has taken off from Memory.offset, which checked off and the length
// against the size of the mapping. Slices made here do not outlive a call.

// A hostPointer points into the mapping.
type hostPointer = unsafe.Pointer

// mapFile maps size bytes at off of f, shared, at a multiple of align, a power of two.
// Pages are left out of core dumps.
func mapFile(f *os.File, off, size, align uint64, prot int) (unsafe.Pointer, error) {
	return mapFileAt(f, off, size, align, 0, prot)
}

// mapFileAt is mapFile at an address that is phase behind a multiple of align.
func mapFileAt(f *os.File, off, size, align, phase uint64, prot int) (unsafe.Pointer, error) {
	// Address space alone, with room to move the mapping in.
	room, err := unix.MmapPtr(-1, 0, nil, uintptr(size+align), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	before := (phase - uint64(uintptr(room))) % align
	p := unsafe.Add(room, before)
	_, err = unix.MmapPtr(int(f.Fd()), int64(off), p, uintptr(size),
		prot, unix.MAP_SHARED|unix.MAP_NORESERVE|unix.MAP_FIXED)
	if err == nil {
		err = advise(p, size, unix.MADV_DONTDUMP)
	}
	if err != nil {
		_ = unix.MunmapPtr(room, uintptr(size+align)) // the first error counts
		return nil, err
	}
	if before > 0 {
		err = unix.MunmapPtr(room, uintptr(before))
	}
	return p, errors.Join(err, unix.MunmapPtr(unsafe.Add(p, size), uintptr(align-before)))
}

// advise is madvise(2), which changes no byte by any advice given here.
func advise(p unsafe.Pointer, n uint64, advice int) error {
	return unix.Madvise(unsafe.Slice((*byte)(p), n), advice)
}

func (m *Memory) advise(off, n uint64, advice int) error { return advise(m.at(off), n, advice) }

// protect is mprotect(2) for n bytes at off of p, a mapping that nothing but the kernel
// follows.
func protect(p unsafe.Pointer, off, n uint64, prot int) error {
	return unix.Mprotect(unsafe.Slice((*byte)(unsafe.Add(p, off)), n), prot)
}

func unmap(p unsafe.Pointer, size uint64) error {
	return unix.MunmapPtr(p, uintptr(size))
}

func (m *Memory) at(off uint64) unsafe.Pointer { return unsafe.Add(m.base, off) }

func (m *Memory) copyOut(b []byte, off uint64) {
	copy(b, unsafe.Slice((*byte)(m.at(off)), len(b)))
}

func (m *Memory) copyIn(off uint64, b []byte) {
	copy(unsafe.Slice((*byte)(m.at(off)), len(b)), b)
}

func (m *Memory) clear(off, n uint64) {
	clear(unsafe.Slice((*byte)(m.at(off)), n))
}

// remove punches a hole into the file behind the mapping (madvise(2)): the mapping
// stays, and a page that is touched again is a new one.
func (m *Memory) remove(off, n uint64) error {
	for {
		err := unix.Madvise(unsafe.Slice((*byte)(m.at(off)), n), unix.MADV_REMOVE)
		if err != unix.EINTR {
			return err
		}
	}
}

// pread lets the kernel write to guest memory directly.
func (m *Memory) pread(f *os.File, off int64, dst, n uint64) (int, error) {
	return unix.Pread(int(f.Fd()), unsafe.Slice((*byte)(m.at(dst)), n), off)
}

func (m *Memory) load32(off uint64) uint32 { return atomic.LoadUint32((*uint32)(m.at(off))) }
func (m *Memory) load64(off uint64) uint64 { return atomic.LoadUint64((*uint64)(m.at(off))) }

func (m *Memory) store32(off uint64, v uint32) { atomic.StoreUint32((*uint32)(m.at(off)), v) }
func (m *Memory) store64(off uint64, v uint64) { atomic.StoreUint64((*uint64)(m.at(off)), v) }

func (m *Memory) store16(off uint64, v uint16) { storeUint16((*uint16)(m.at(off)), v) }

// storeUint16 stores v at p with XCHG, as sync/atomic does for the sizes it has.
//
//go:noescape
func storeUint16(p *uint16, v uint16)

// Page is page i, which is there until Close.
func (p *Pages) Page(i int) *[PageSize]byte {
	if i < 0 || i >= p.n {
		panic("memory: no such page")
	}
	return (*[PageSize]byte)(unsafe.Add(p.p, i*PageSize))
}

// HostAddr is where page i is in this process: for the kernel only.
func (p *Pages) HostAddr(i int) uintptr { return uintptr(unsafe.Pointer(p.Page(i))) }
