package memory

import (
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

// mapFile maps size bytes of f, shared. Pages are left out of core dumps.
func mapFile(f *os.File, size uint64) (unsafe.Pointer, error) {
	p, err := unix.MmapPtr(int(f.Fd()), 0, nil, uintptr(size),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	if err := unix.Madvise(unsafe.Slice((*byte)(p), size), unix.MADV_DONTDUMP); err != nil {
		_ = unix.MunmapPtr(p, uintptr(size)) // the first error counts
		return nil, err
	}
	return p, nil
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
