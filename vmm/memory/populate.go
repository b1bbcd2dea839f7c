package memory

import (
	"errors"
	"fmt"
	"runtime"
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

// Populate allocates all pages but those of what can be plugged in, on as many threads as the host has CPUs, up to 8
// (MADV_POPULATE_WRITE, Linux 5.14). ErrExhausted says that the host had not
// enough; what was allocated until then stays.
func (m *Memory) Populate() error {
	unit := max(populateUnit, m.pageSize)
	var next atomic.Uint64 // where the next free piece begins
	work := func() (uint64, error) {
		for {
			off := next.Add(unit) - unit
			if off >= m.size {
				return 0, nil
			}
			if err := m.populate(off, min(unit, m.size-off)); err != nil {
				next.Store(m.size) // the others end, too
				return off, err
			}
		}
	}
	var all sync.WaitGroup
	var first sync.Once
	var failed error
	for range min(runtime.NumCPU(), maxPopulators) {
		all.Go(func() {
			runtime.LockOSThread() // not undone: the thread ends with the work
			if off, err := work(); err != nil {
				first.Do(func() {
					failed = fmt.Errorf("allocate %d bytes of guest memory, from byte %d on: %w", m.size, off, err)
				})
			}
		})
	}
	all.Wait()
	return failed
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
