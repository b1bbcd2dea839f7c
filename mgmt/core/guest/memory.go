package guest

import (
	"errors"
	"fmt"
	"os"

	"github.com/ashlar-hv/ashlar/drivers/hugepages"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"golang.org/x/sys/unix"
)

const (
	memoryUnit    = 2 << 20  // guests have a multiple of this
	memoryMin     = 32 << 20 // and at least this
	memoryMax     = 1 << 40
	memoryReserve = 64 << 20 // stays free for the host
	// overheadBase is what a VMM may use besides the guest's memory, whatever the
	// size of that: its own heap, its messages.
	overheadBase = 64 << 20
	// overheadShare is the part of the guest's memory that the kernel may need to
	// keep track of it, all charged to the VMM: 8 of 4096 bytes in the host's page
	// tables, as many in the guest's, some more in the index of the memory's pages.
	overheadShare = 128
	// pooledShare is the same for pages of a pool: the host's own tables are next to
	// nothing, but KVM may have to write the guest's for pages of 4096 bytes.
	pooledShare = 512
	// overheadVCPU is what a vCPU adds: its state in KVM, the stacks of two threads,
	// the VMM's heap.
	overheadVCPU = 512 << 10
)

// overhead is what the VMM of a guest with that much memory and so many vCPUs may
// use besides that memory.
func overhead(memory uint64, pages protocol.Pages, vcpus int) int64 {
	share := uint64(overheadShare)
	if pages.PoolSize() > 0 {
		share = pooledShare
	}
	return overheadBase + int64(memory/share) + int64(vcpus)*overheadVCPU
}

// ordinary is how many bytes of its memory the guest takes from what all of the host
// shares: pages of a pool are none of it, nor are they charged to a memory cgroup.
func (r *record) ordinary() int64 {
	if r.Pages.PoolSize() > 0 {
		return 0
	}
	return int64(r.MemoryBytes + r.Plugged)
}

// promised is how many bytes of what all of the host shares the guest may use.
func (r *record) promised() int64 {
	return r.ordinary() + overhead(r.MemoryBytes+r.Plugged, r.Pages, r.VCPUs) + int64(r.MaxPlugged/rmapShare)
}

// pooled is how many bytes of the host's pools the guest may use, by the size of the
// pages.
func (r *record) pooled() map[uint64]int64 {
	out := make(map[uint64]int64)
	if n := r.Pages.PoolSize(); n > 0 {
		out[n] = int64(r.MemoryBytes)
	}
	return out
}

// left is how many bytes can be promised to guests besides what has been. The caller
// holds m.mu.
func (m *Manager) left() (int64, error) {
	available, err := m.c.Memory()
	if err != nil {
		return 0, err
	}
	for _, r := range m.running {
		// What a guest has not touched yet still counts as available.
		promised := r.rec.promised()
		if used, err := r.group.MemoryCurrent(); err == nil {
			promised -= used
		}
		available -= max(promised, 0)
	}
	return available - memoryReserve - m.pools.pledged, nil
}

// admit checks that the memory for one more guest can be had. Its pages of a pool are
// asked for when they are set aside. The caller holds m.mu.
func (m *Manager) admit(rec *record) error {
	left, err := m.left()
	if err != nil {
		return err
	}
	left -= int64(rec.MaxPlugged / rmapShare)
	exhausted := func(format string, args ...any) error {
		return &hostcall.Error{Code: hostcall.ResourceExhausted, Field: "guest.memoryBytes", Message: fmt.Sprintf(format, args...)}
	}
	if rec.Pages.PoolSize() > 0 {
		if need := rec.promised(); need > left {
			return exhausted("The host has %d MiB free for guests, %d MiB are needed besides the huge pages: stop another guest, or ask for less.",
				max(left, 0)>>20, need>>20)
		}
		return nil
	}
	free := (left - overhead(0, rec.Pages, rec.VCPUs)) / (overheadShare + 1) * overheadShare / memoryUnit * memoryUnit
	if need := rec.ordinary(); need > max(free, 0) {
		return exhausted("The host has %d MiB free for guests, %d MiB are asked for: stop another guest, or ask for less.",
			max(free, 0)>>20, need>>20)
	}
	return nil
}

// memfdFlags are those of a guest's memory on such pages, besides those of every.
var memfdFlags = map[protocol.Pages]int{
	protocol.Pages2MiB: unix.MFD_HUGETLB | unix.MFD_HUGE_2MB,
	protocol.Pages1GiB: unix.MFD_HUGETLB | unix.MFD_HUGE_1GB,
}

// guestMemory makes the memory of a guest: its size cannot be changed, and
// nothing in it can be executed by the host. Pages of a pool are set aside for it,
// all of them, or it is refused.
func guestMemory(size uint64, pages protocol.Pages) (*os.File, error) {
	fd, err := unix.MemfdCreate("ashlar-guest", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL|memfdFlags[pages])
	if err != nil && pages.PoolSize() > 0 {
		return nil, &hostcall.Error{Code: hostcall.FailedPrecondition, Field: "guest.backing.pages",
			Message: fmt.Sprintf("The host has no pool of pages of %s: %v. Choose other pages.", pages, err)}
	}
	if err != nil {
		return nil, fmt.Errorf("make guest memory (CONFIG_MEMFD_CREATE, Linux 6.3): %w", err)
	}
	f := os.NewFile(uintptr(fd), "guest-memory")
	if err := finishMemory(f, size, pages); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func finishMemory(f *os.File, size uint64, pages protocol.Pages) error {
	if err := f.Truncate(int64(size)); err != nil {
		return fmt.Errorf("make guest memory: %w", err)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		return fmt.Errorf("seal guest memory: %w", err)
	}
	if pages.PoolSize() == 0 {
		return nil
	}
	return setAside(f, size, pages)
}

// setAside promises all pages of f, a file of hugetlbfs, to it: a guest that touches
// one will always find it. The promise is the file's, and made by mapping it (kernel's
// Documentation/mm/hugetlbfs_reserv.rst): no page is allocated or cleared, and none is
// charged to core's cgroup, as by fallocate(2).
func setAside(f *os.File, size uint64, pages protocol.Pages) error {
	b, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if errors.Is(err, unix.ENOMEM) {
		return shortOf(size, pages)
	}
	if err != nil {
		return fmt.Errorf("set pages of guest memory aside: %w", err)
	}
	if err := unix.Munmap(b); err != nil {
		return fmt.Errorf("set pages of guest memory aside: %w", err)
	}
	return nil
}

// shortOf says that a pool has not enough pages for size bytes.
func shortOf(size uint64, pages protocol.Pages) error {
	pool, err := hugepages.Read(pages.PoolSize())
	if err != nil {
		return err
	}
	return &hostcall.Error{Code: hostcall.ResourceExhausted, Field: "guest.memoryBytes",
		Message: fmt.Sprintf("The host's pool has %d of its %d pages of %s free, %d are asked for: stop a guest that uses the pool, ask for less, or choose other pages.",
			pool.Available(), pool.Total, pages, size/pages.PoolSize())}
}
