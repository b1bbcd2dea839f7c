// Package memory is a guest's physical memory: one file (a memfd), mapped once,
// shown to the guest as one region from address 0 and, where it is larger than
// LowTop, a second one from HighBase. Behind them may lie memory that comes and goes
// (MapPluggable). The hole between them holds the
// machine's devices, as on every PC.
//
// Guest memory is shared with a guest that may change it at any moment and
// means harm. So there is no slice of it to hold: bytes are copied in and out,
// ring indices go through atomic loads and stores, and every address is
// checked against the regions first. Only the kernel is ever given a host
// address (HostSpan), for vectors of io_uring and for vhost.
//
// Order: every Load is an acquire, every Store is sequentially consistent (a
// full barrier), so the rings of virtio 1.2 section 2.7 need no other fence.
package memory

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// LowTop is the most memory that lies below 4 GiB; the rest starts at HighBase.
	LowTop = 3 << 30
	// HighBase is where memory above LowTop goes on.
	HighBase = 4 << 30
	// PageSize is the unit of sizes and of host mappings in bytes.
	PageSize = 4096
	// hugeSize is what the mapping is aligned to: the pages of the second level of
	// page tables, in the host's and in the guest's, hold as many bytes.
	hugeSize = 2 << 20
	// maxPageSize is the largest page that amd64 has.
	maxPageSize = 1 << 30
	// MaxSize bounds a guest's memory in bytes (16 TiB): no sum of an address
	// and a length in guest memory can overflow.
	MaxSize = 16 << 40
)

var (
	// ErrOutOfRange says that a range is not wholly inside guest memory.
	ErrOutOfRange = errors.New("outside guest memory")
	// ErrUnaligned says that an address is no multiple of the size loaded or stored.
	ErrUnaligned = errors.New("unaligned guest address")
	// ErrSize says that a size is no multiple of PageSize, zero, over MaxSize or
	// not what the file has.
	ErrSize = errors.New("bad memory size")
)

// A Region is a piece of guest memory that is contiguous in the guest and in
// the file.
type Region struct {
	GPA      uint64  // guest-physical address
	Size     uint64  // bytes
	Offset   uint64  // of its first byte in the file
	HostAddr uintptr // of its first byte in this process: for the kernel only
}

// Memory is a guest's physical memory. Its methods may be called by several
// goroutines at once, except Close.
type Memory struct {
	base     hostPointer // to the file's first byte
	size     uint64
	mapped   uint64 // bytes from base on
	pageSize uint64
	low      uint64 // bytes from address 0
	high     uint64 // bytes from HighBase
	regions  []Region
	bounds   []uint64 // where in the file the parts begin that Bind was called for

	pluggable *pluggable // behind these; nil where there is none
	followers followers
}

// Create makes an unlinked memory file of size bytes, as Map wants it. Its
// size is sealed, so that nobody can cut it under a running guest.
func Create(name string, size uint64) (*os.File, error) {
	if err := checkSize(size); err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("create memory file: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if err := f.Truncate(int64(size)); err != nil {
		f.Close()
		return nil, fmt.Errorf("size memory file to %d bytes: %w", size, err)
	}
	const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		f.Close()
		return nil, fmt.Errorf("seal memory file: %w", err)
	}
	return f, nil
}

// Map maps the first size bytes of f, which stays the caller's and may be
// closed at once. size is a multiple of PageSize and just the size of f. The
// mapping lies at a multiple of 2 MiB, or of the pages that f is made of where those
// are larger, so that huge pages stay whole in the host's page tables and in KVM's.
func Map(f *os.File, size uint64) (*Memory, error) { return mapMemory(f, size, 0) }

// mapMemory is Map for a file that has more bytes, which are mapped, too.
func mapMemory(f *os.File, size, more uint64) (*Memory, error) {
	if err := checkSize(size); err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("map guest memory: %w", err)
	}
	if uint64(fi.Size()) != size+more {
		return nil, fmt.Errorf("map guest memory: file has %d bytes, want %d: %w", fi.Size(), size+more, ErrSize)
	}
	page, err := pageSize(f)
	if err != nil {
		return nil, fmt.Errorf("map guest memory: %w", err)
	}
	base, err := mapFile(f, 0, size+more, max(page, hugeSize), unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes of guest memory: %w", size+more, err)
	}
	m := &Memory{base: base, size: size, mapped: size + more, pageSize: page, low: min(size, LowTop)}
	m.high = size - m.low
	m.regions = append(m.regions, Region{Size: m.low, HostAddr: uintptr(base)})
	if m.high > 0 {
		m.regions = append(m.regions, Region{
			GPA: HighBase, Size: m.high, Offset: m.low, HostAddr: uintptr(base) + uintptr(m.low),
		})
	}
	return m, nil
}

// pageSize is the size of the pages of f: that of a pool where f is a file of
// hugetlbfs (Documentation/admin-guide/mm/hugetlbpage.rst), else PageSize.
func pageSize(f *os.File) (uint64, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return 0, fmt.Errorf("look up file system: %w", err)
	}
	if fs.Type != unix.HUGETLBFS_MAGIC {
		return PageSize, nil
	}
	if n := fs.Bsize; n >= PageSize && n <= maxPageSize && n&(n-1) == 0 {
		return uint64(n), nil
	}
	return 0, fmt.Errorf("pages of %d bytes: %w", fs.Bsize, ErrSize)
}

func checkSize(size uint64) error {
	if size == 0 || size%PageSize != 0 || size > MaxSize {
		return fmt.Errorf("%d bytes of guest memory: %w", size, ErrSize)
	}
	return nil
}

// Close unmaps the memory. Nothing may use m, or a HostAddr of it, from then on.
func (m *Memory) Close() error {
	if m.base == nil {
		return nil
	}
	err := unmap(m.base, m.mapped)
	if p := m.pluggable; p != nil {
		err = errors.Join(err, unmap(p.view, p.Size))
	}
	m.base, m.size, m.mapped, m.low, m.high, m.regions, m.pluggable = nil, 0, 0, 0, 0, nil, nil
	return err
}

// Size is the sum of all Regions in bytes.
func (m *Memory) Size() uint64 { return m.size }

// PageSize is the size in bytes of the pages that the host has set aside for
// this memory, PageSize where it has not. Those of a pool are promised to the
// guest: a hole punched into them would give the promise away.
func (m *Memory) PageSize() uint64 { return m.pageSize }

// Regions are the one or two pieces of the memory, lowest first. The slice is
// shared: do not write to it.
func (m *Memory) Regions() []Region { return m.regions }

// Contains says whether all n bytes from gpa are inside one region, and plugged in.
func (m *Memory) Contains(gpa, n uint64) bool {
	off, ok := m.enter(gpa, n)
	if ok {
		m.leave(off)
	}
	return ok
}

// offset returns where the n bytes at gpa lie in the mapping, and whether
// they are wholly inside one region. No sum in it can overflow: each is taken
// only after the bound that keeps it small.
func (m *Memory) offset(gpa, n uint64) (uint64, bool) {
	if gpa < m.low {
		return gpa, n <= m.low-gpa
	}
	if gpa >= HighBase && gpa-HighBase < m.high {
		off := gpa - HighBase
		return m.low + off, n <= m.high-off
	}
	return 0, false
}

// ReadAt fills b with the bytes at gpa.
func (m *Memory) ReadAt(gpa uint64, b []byte) error {
	off, ok := m.enter(gpa, uint64(len(b)))
	if !ok {
		return outOfRange("read", gpa, uint64(len(b)))
	}
	m.copyOut(b, off)
	m.leave(off)
	return nil
}

// WriteAt copies b to gpa.
func (m *Memory) WriteAt(gpa uint64, b []byte) error {
	off, ok := m.enter(gpa, uint64(len(b)))
	if !ok {
		return outOfRange("write", gpa, uint64(len(b)))
	}
	m.copyIn(off, b)
	m.leave(off)
	return nil
}

// Zero clears n bytes at gpa.
func (m *Memory) Zero(gpa, n uint64) error {
	off, ok := m.enter(gpa, n)
	if !ok {
		return outOfRange("zero", gpa, n)
	}
	m.clear(off, n)
	m.leave(off)
	return nil
}

// Remove gives the whole pages among the n bytes at gpa back to the host; they read as
// zeros from then on, until somebody writes to them. Pages of the host's pools stay as
// they are: what is promised of a pool would go with them, and whoever touched them
// again would be killed where others had taken them. So does all memory that has a Follower.
func (m *Memory) Remove(gpa, n uint64) error {
	m.followers.mu.RLock()
	defer m.followers.mu.RUnlock()
	off, ok := m.enter(gpa, n)
	if !ok {
		return outOfRange("remove", gpa, n)
	}
	defer m.leave(off)
	if m.pageSize > PageSize || len(m.followers.list) > 0 {
		return nil
	}
	// Regions begin and end with a page, in the guest as in the file.
	end := (off + n) &^ (PageSize - 1)
	start := (off + PageSize - 1) &^ (PageSize - 1)
	if start >= end {
		return nil
	}
	if err := m.remove(start, end-start); err != nil {
		return fmt.Errorf("remove %d bytes at %#x: %w", n, gpa, err)
	}
	return nil
}

// ReadFile fills the n bytes at gpa with those at off of f, without a copy in
// between. A file that ends before is io.ErrUnexpectedEOF.
func (m *Memory) ReadFile(f *os.File, off int64, gpa, n uint64) error {
	dst, ok := m.offset(gpa, n)
	if !ok {
		return outOfRange("read file", gpa, n)
	}
	for n > 0 {
		got, err := m.pread(f, off, dst, min(n, 16<<20))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", f.Name(), err)
		}
		if got == 0 {
			return fmt.Errorf("read %s at %d: %w", f.Name(), off, io.ErrUnexpectedEOF)
		}
		off, dst, n = off+int64(got), dst+uint64(got), n-uint64(got)
	}
	return nil
}

// HostSpan is the host address of n bytes at gpa, which lie inside one region. Where they
// are unplugged later the kernel cannot reach them any more (EFAULT).
// It is for the kernel (iovecs, vhost rings) and never for Go code to follow.
func (m *Memory) HostSpan(gpa, n uint64) (uintptr, error) {
	off, ok := m.enter(gpa, n)
	if !ok {
		return 0, outOfRange("span", gpa, n)
	}
	m.leave(off)
	if off >= m.size {
		return uintptr(m.pluggable.view) + uintptr(off-m.size), nil
	}
	return uintptr(m.base) + uintptr(off), nil
}

// aligned is enter for a naturally aligned word of n bytes.
func (m *Memory) aligned(op string, gpa, n uint64) (uint64, error) {
	if gpa%n != 0 {
		return 0, fmt.Errorf("%s %d bytes at %#x: %w", op, n, gpa, ErrUnaligned)
	}
	off, ok := m.enter(gpa, n)
	if !ok {
		return 0, outOfRange(op, gpa, n)
	}
	return off, nil
}

// Load16 atomically loads the little-endian word at gpa.
func (m *Memory) Load16(gpa uint64) (uint16, error) {
	off, err := m.aligned("load", gpa, 2)
	if err != nil {
		return 0, err
	}
	// Regions are whole pages, so the word around it is inside too.
	v := uint16(m.load32(off&^3) >> (off & 2 * 8))
	m.leave(off)
	return v, nil
}

// Load32 atomically loads the little-endian word at gpa.
func (m *Memory) Load32(gpa uint64) (uint32, error) {
	off, err := m.aligned("load", gpa, 4)
	if err != nil {
		return 0, err
	}
	v := m.load32(off)
	m.leave(off)
	return v, nil
}

// Load64 atomically loads the little-endian word at gpa.
func (m *Memory) Load64(gpa uint64) (uint64, error) {
	off, err := m.aligned("load", gpa, 8)
	if err != nil {
		return 0, err
	}
	v := m.load64(off)
	m.leave(off)
	return v, nil
}

// Store16 atomically stores v at gpa, little-endian.
func (m *Memory) Store16(gpa uint64, v uint16) error {
	off, err := m.aligned("store", gpa, 2)
	if err != nil {
		return err
	}
	m.store16(off, v)
	m.leave(off)
	return nil
}

// Store32 atomically stores v at gpa, little-endian.
func (m *Memory) Store32(gpa uint64, v uint32) error {
	off, err := m.aligned("store", gpa, 4)
	if err != nil {
		return err
	}
	m.store32(off, v)
	m.leave(off)
	return nil
}

// Store64 atomically stores v at gpa, little-endian.
func (m *Memory) Store64(gpa uint64, v uint64) error {
	off, err := m.aligned("store", gpa, 8)
	if err != nil {
		return err
	}
	m.store64(off, v)
	m.leave(off)
	return nil
}

func outOfRange(op string, gpa, n uint64) error {
	return fmt.Errorf("%s %d bytes at %#x: %w", op, n, gpa, ErrOutOfRange)
}
