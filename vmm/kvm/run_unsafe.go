package kvm

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What is unsafe here: struct kvm_run is seen through pointers into a mapping
// that KVM shares. The mapping is at least as large as runPage (checked once)
// and stays until unmap; KVM writes to it only during KVM_RUN, so that the
// vCPU's thread reads it alone afterwards. The one byte that other threads
// write, immediate_exit, is written by an atomic operation on the word around it.

// runMapping is the page (or pages) that KVM shares with the runner of a vCPU.
type runMapping struct {
	base unsafe.Pointer
	size int
}

func mapRun(f *os.File, size int) (*runMapping, error) {
	if size < int(unsafe.Sizeof(runPage{})) {
		return nil, fmt.Errorf("KVM shares %d bytes, want %d", size, unsafe.Sizeof(runPage{}))
	}
	p, err := unix.MmapPtr(int(f.Fd()), 0, nil, uintptr(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return &runMapping{p, size}, nil
}

func (r *runMapping) unmap() error {
	if r.base == nil {
		return nil
	}
	err := unix.MunmapPtr(r.base, uintptr(r.size))
	r.base, r.size = nil, 0
	return err
}

func (r *runMapping) page() *runPage { return (*runPage)(r.base) }

// setImmediateExit sets the byte at offset 1 of the page. The word of four
// bytes around it holds besides only fields that nobody here uses.
func (r *runMapping) setImmediateExit(v uint8) {
	atomic.StoreUint32((*uint32)(r.base), uint32(v)<<8)
}

func (r *runMapping) exitReason() uint32 { return r.page().exitReason }

func (r *runMapping) union() unsafe.Pointer { return unsafe.Pointer(&r.page().exit) }

func (r *runMapping) io() exitIO               { return *(*exitIO)(r.union()) }
func (r *runMapping) mmio() *exitMMIO          { return (*exitMMIO)(r.union()) }
func (r *runMapping) failEntry() exitFailEntry { return *(*exitFailEntry)(r.union()) }
func (r *runMapping) internal() *exitInternal  { return (*exitInternal)(r.union()) }

// bytes are n bytes at off of the mapping, if it has them.
func (r *runMapping) bytes(off, n uint64) ([]byte, bool) {
	if off > uint64(r.size) || n > uint64(r.size)-off {
		return nil, false
	}
	return unsafe.Slice((*byte)(unsafe.Add(r.base, off)), n), true
}
