package memory

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// MaxBlocks bounds the blocks of memory that comes and goes: so many may lie apart, and
// each that does is an area of its own in this process's address space, of which the
// kernel allows some 65,000.
const MaxBlocks = 16 << 10

var (
	// ErrPlugged says that a block is plugged in already, ErrUnplugged that it is not.
	ErrPlugged   = errors.New("plugged in already")
	ErrUnplugged = errors.New("not plugged in")
)

// A PluggableConfig is memory that comes and goes in blocks.
type PluggableConfig struct {
	Size  uint64 // bytes, a multiple of Block
	Block uint64 // bytes: a power of 2, from 2 MiB on
	// Populate: a block is allocated when it is plugged in.
	Populate bool
}

// pluggable is the memory that comes and goes. It is mapped twice. What the kernel is
// given (KVM, io_uring, vhost) is view, in which an unplugged block cannot be read or
// written: a vCPU that touches it does not go on, and other accesses fail with EFAULT.
// So nothing that a guest does makes pages there. This process's own accesses go
// through the mapping of all memory, after a look at the bitmap; mu keeps a block
// plugged in for the time of one.
type pluggable struct {
	PluggableConfig
	gpa, off uint64 // of the first byte, in the guest and in the file
	view     hostPointer
	bytes    atomic.Uint64 // plugged in

	mu      sync.RWMutex
	plugged []uint64 // a bit for each block
}

// MapPluggable is Map for a file that has, behind size bytes of memory as others, some
// that can be plugged in. It lies from the next GiB on in the guest, with a gap before
// it, so that no buffer of a driver reaches from one into the other. Nothing of it is
// plugged in yet. Pages of the host's pools do not come and go: ErrSize.
func MapPluggable(f *os.File, size uint64, c PluggableConfig) (*Memory, error) {
	if err := c.check(size); err != nil {
		return nil, err
	}
	m, err := mapMemory(f, size, c.Size)
	if err != nil {
		return nil, err
	}
	if m.pageSize > PageSize {
		return nil, errors.Join(fmt.Errorf("blocks of memory from a pool of the host's: %w", ErrSize), m.Close())
	}
	p := &pluggable{PluggableConfig: c, gpa: pluggableBase(m), off: size, plugged: make([]uint64, (c.Size/c.Block+63)/64)}
	if p.view, err = mapFile(f, size, c.Size, hugeSize, unix.PROT_NONE); err != nil {
		return nil, errors.Join(fmt.Errorf("map %d bytes of guest memory: %w", c.Size, err), m.Close())
	}
	m.pluggable = p
	return m, nil
}

func (c PluggableConfig) check(size uint64) error {
	switch {
	case c.Block < hugeSize || c.Block&(c.Block-1) != 0:
		return fmt.Errorf("blocks of %d bytes: %w", c.Block, ErrSize)
	case c.Size == 0 || c.Size%c.Block != 0 || c.Size/c.Block > MaxBlocks || c.Size > MaxSize || size > MaxSize-c.Size || size%hugeSize != 0:
		return fmt.Errorf("%d bytes to plug in by blocks of %d behind %d: %w", c.Size, c.Block, size, ErrSize)
	}
	return nil
}

// pluggableBase is where memory that can be plugged in begins in the guest.
func pluggableBase(m *Memory) uint64 {
	const unit = 1 << 30
	end := uint64(HighBase)
	for _, r := range m.regions {
		end = max(end, r.GPA+r.Size)
	}
	return (end + unit) &^ (unit - 1)
}

// A Pluggable tells of memory that can be plugged in.
type Pluggable struct {
	GPA     uint64
	Size    uint64 // bytes; 0: there is none
	Block   uint64 // bytes
	Plugged uint64 // bytes of it that are plugged in
}

// Pluggable is how the memory is that can be plugged in.
func (m *Memory) Pluggable() Pluggable {
	p := m.pluggable
	if p == nil {
		return Pluggable{}
	}
	return Pluggable{GPA: p.gpa, Size: p.Size, Block: p.Block, Plugged: p.bytes.Load()}
}

// End is the address behind all memory, also such as can be plugged in.
func (m *Memory) End() uint64 {
	if p := m.pluggable; p != nil {
		return p.gpa + p.Size
	}
	last := m.regions[len(m.regions)-1]
	return last.GPA + last.Size
}

// HostRegions are Regions and all of what can be plugged in: what KVM and vhost are to
// know of. What is not plugged in is mapped so that they cannot reach it.
func (m *Memory) HostRegions() []Region {
	p := m.pluggable
	if p == nil {
		return m.regions
	}
	hot := Region{GPA: p.gpa, Size: p.Size, Offset: p.off, HostAddr: uintptr(p.view)}
	return append(m.regions[:len(m.regions):len(m.regions)], hot)
}

// blocks returns the numbers of the first block of n bytes at gpa and of the one
// behind the last.
func (p *pluggable) blocks(gpa, n uint64) (first, end uint64, ok bool) {
	if gpa < p.gpa || gpa-p.gpa >= p.Size || n > p.Size-(gpa-p.gpa) {
		return 0, 0, false
	}
	off := gpa - p.gpa
	return off / p.Block, (off + max(n, 1) + p.Block - 1) / p.Block, true
}

// count is how many of the blocks from first to before end are plugged in; mu is held.
func (p *pluggable) count(first, end uint64) (n uint64) {
	for i := first; i < end; i++ {
		n += p.plugged[i/64] >> (i % 64) & 1
	}
	return n
}

// set marks blocks; mu is held for writing.
func (p *pluggable) set(first, end uint64, plugged bool) {
	for i := first; i < end; i++ {
		if plugged {
			p.plugged[i/64] |= 1 << (i % 64)
		} else {
			p.plugged[i/64] &^= 1 << (i % 64)
		}
	}
}

// enter is Memory.offset for n bytes that are plugged in, and stay so until leave.
func (p *pluggable) enter(gpa, n uint64) (uint64, bool) {
	first, end, ok := p.blocks(gpa, n)
	if !ok {
		return 0, false
	}
	p.mu.RLock()
	if p.count(first, end) < end-first {
		p.mu.RUnlock()
		return 0, false
	}
	return p.off + gpa - p.gpa, true
}

// enter is offset for memory that comes and goes, too. What it finds stays plugged in
// until leave, so soon: whoever unplugs waits for it.
func (m *Memory) enter(gpa, n uint64) (uint64, bool) {
	off, ok := m.offset(gpa, n)
	if ok || m.pluggable == nil {
		return off, ok
	}
	return m.pluggable.enter(gpa, n)
}

// leave ends what enter has begun.
func (m *Memory) leave(off uint64) {
	if off >= m.size {
		m.pluggable.mu.RUnlock()
	}
}

// whole is blocks for n bytes that are just some blocks.
func (p *pluggable) whole(op string, gpa, n uint64) (first, end uint64, err error) {
	first, end, ok := p.blocks(gpa, n)
	if !ok {
		return 0, 0, outOfRange(op, gpa, n)
	}
	if n == 0 || (gpa|n)%p.Block != 0 {
		return 0, 0, fmt.Errorf("%s %d bytes at %#x, which are no blocks: %w", op, n, gpa, ErrUnaligned)
	}
	return first, end, nil
}

// PluggedIn is how many of n bytes at gpa, which are whole blocks of what can be plugged
// in, are.
func (m *Memory) PluggedIn(gpa, n uint64) (uint64, error) {
	p := m.pluggable
	if p == nil {
		return 0, outOfRange("look up", gpa, n)
	}
	first, end, err := p.whole("look up", gpa, n)
	if err != nil {
		return 0, err
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.count(first, end) * p.Block, nil
}

// Plug plugs n bytes at gpa in, blocks of which none is (ErrPlugged). They read as zeros.
// After any other error, of the kernel's or ErrExhausted, nothing has changed. Plug and
// Unplug are called by one goroutine at a time.
func (m *Memory) Plug(gpa, n uint64) error {
	p := m.pluggable
	if p == nil {
		return outOfRange("plug", gpa, n)
	}
	first, end, err := p.whole("plug", gpa, n)
	if err != nil {
		return err
	}
	off := gpa - p.gpa
	m.followers.mu.RLock()
	defer m.followers.mu.RUnlock()
	p.mu.RLock()
	have := p.count(first, end)
	p.mu.RUnlock()
	if have > 0 {
		return fmt.Errorf("plug %d bytes at %#x: %w", n, gpa, ErrPlugged)
	}
	if p.Populate {
		err = m.populate(p.off+off, n)
	}
	if err == nil {
		err = protect(p.view, off, n, unix.PROT_READ|unix.PROT_WRITE)
	}
	if err == nil {
		err = m.mapBlocks(first, end)
	}
	if err != nil {
		// Of an area that could not be split all or nothing has changed.
		err = errors.Join(err, protect(p.view, off, n, unix.PROT_NONE), m.remove(p.off+off, n))
		return fmt.Errorf("plug %d bytes at %#x: %w", n, gpa, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.set(first, end, true)
	p.bytes.Add(n)
	return nil
}

// Unplug takes n bytes at gpa away, blocks all of which are plugged in (ErrUnplugged), and
// gives their pages to the host. When it returns nothing can make new ones. After an
// error of the kernel's they are all there, perhaps as zeros.
func (m *Memory) Unplug(gpa, n uint64) error {
	p := m.pluggable
	if p == nil {
		return outOfRange("unplug", gpa, n)
	}
	first, end, err := p.whole("unplug", gpa, n)
	if err != nil {
		return err
	}
	off := gpa - p.gpa
	m.followers.mu.RLock()
	defer m.followers.mu.RUnlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.count(first, end) < end-first {
		return fmt.Errorf("unplug %d bytes at %#x: %w", n, gpa, ErrUnplugged)
	}
	if err := m.unmapBlocks(first, end); err != nil {
		return fmt.Errorf("unplug %d bytes at %#x: %w", n, gpa, err)
	}
	if err = protect(p.view, off, n, unix.PROT_NONE); err == nil {
		err = m.remove(p.off+off, n)
	}
	if err != nil {
		err = errors.Join(err, protect(p.view, off, n, unix.PROT_READ|unix.PROT_WRITE), m.mapBlocks(first, end))
		return fmt.Errorf("unplug %d bytes at %#x: %w", n, gpa, err)
	}
	p.set(first, end, false)
	p.bytes.Add(-n)
	return nil
}
