package memory

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	// maxPopulators bounds the threads of Populate: more of them wait for each other
	// in the kernel's allocator.
	maxPopulators = 8
	// populateUnit is how many bytes a thread of Populate takes at a time, at least.
	populateUnit = 64 << 20
)

// ErrExhausted says that the host had not enough memory, or pages of a pool.
var ErrExhausted = errors.New("the host has run out of memory")

// ErrHuge says that the host's kernel knows no transparent huge pages.
var ErrHuge = errors.New("no transparent huge pages (CONFIG_TRANSPARENT_HUGEPAGE)")

// AdviseHuge asks for transparent huge pages, as far as the host has some
// (MADV_HUGEPAGE; for a memfd only where
// /sys/kernel/mm/transparent_hugepage/shmem_enabled is "advise" or stronger,
// Documentation/admin-guide/mm/transhuge.rst). It is of use for pages that are
// touched from then on.
func (m *Memory) AdviseHuge() error {
	err := m.advise(0, m.mapped, unix.MADV_HUGEPAGE)
	if p := m.pluggable; err == nil && p != nil {
		err = advise(p.view, p.Size, unix.MADV_HUGEPAGE)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrHuge, err)
	}
	return nil
}

// A PopulateError says where in the file it was that the host had no page.
type PopulateError struct {
	Offset uint64
	err    error
}

// Error says so, and why.
func (e *PopulateError) Error() string {
	return fmt.Sprintf("allocate guest memory, from byte %d on: %v", e.Offset, e.err)
}

// Unwrap is why.
func (e *PopulateError) Unwrap() error { return e.err }

// Populate allocates all pages but those of what can be plugged in, on as many threads
// as the host has CPUs, up to 8 (MADV_POPULATE_WRITE, Linux 5.14), by turns from each of
// the parts that were bound to nodes: so nodes are at it side by side. A *PopulateError,
// which wraps ErrExhausted, says that the host had not enough; what was allocated until
// then stays.
func (m *Memory) Populate() error {
	pieces := m.pieces()
	var next atomic.Int64 // the number of the next free piece
	work := func() *PopulateError {
		for {
			i := int(next.Add(1)) - 1
			if i >= len(pieces) {
				return nil
			}
			if err := m.populate(pieces[i].Offset, pieces[i].Size); err != nil {
				next.Store(int64(len(pieces))) // the others end, too
				return &PopulateError{pieces[i].Offset, err}
			}
		}
	}
	var all sync.WaitGroup
	var first sync.Once
	var failed error
	for range min(runtime.NumCPU(), maxPopulators) {
		all.Go(func() {
			runtime.LockOSThread() // not undone: the thread ends with the work
			if err := work(); err != nil {
				first.Do(func() { failed = err })
			}
		})
	}
	all.Wait()
	return failed
}

// pieces are what a thread of Populate takes at a time, in the order that they are
// taken in.
func (m *Memory) pieces() []Region {
	unit := max(populateUnit, m.pageSize)
	starts := slices.Sorted(slices.Values(append([]uint64{0, m.size}, m.bounds...)))
	starts = slices.Compact(starts)
	var out []Region
	for more, turn := true, uint64(0); more; turn++ {
		more = false
		for i, start := range starts[:len(starts)-1] {
			if off := start + turn*unit; off < starts[i+1] {
				out = append(out, Region{Offset: off, Size: min(unit, starts[i+1]-off)})
				more = true
			}
		}
	}
	return out
}

// populate allocates n bytes at off of the mapping.
func (m *Memory) populate(off, n uint64) error {
	for {
		err := m.advise(off, n, unix.MADV_POPULATE_WRITE)
		switch {
		case errors.Is(err, unix.EINTR):
			continue // what is there already costs next to nothing
		case errors.Is(err, unix.ENOMEM), errors.Is(err, unix.EFAULT), errors.Is(err, unix.ENOSPC):
			// EFAULT is where a write to the page would have been a SIGBUS.
			return fmt.Errorf("%w: %w", ErrExhausted, err)
		}
		return err
	}
}
