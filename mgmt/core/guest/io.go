package guest

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/ashlar-hv/ashlar/drivers/cgroup"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/seqpacket"
)

// The limits of a guest's disks are the VMM's to keep. Behind it stands io.max of its control
// group, for a VMM that does not: what all of its disks may do together, with room enough that
// one that keeps the limits never meets it. Where a disk has no limit, the guest has none.

const (
	// pieces is how many operations of the host's disk one of a guest's may become: its file
	// lies in pieces, and disks take no more than so much at once, 128 KiB some of them.
	pieces = 8
	// ownBytes and ownOperations are what the VMM may do a second besides, for its console log.
	ownBytes, ownOperations = 1 << 20, 100
)

// A diskRate is what a disk may do within a second, after a rest: 0 is no limit.
type diskRate struct {
	Bytes      uint64 `json:"bytes,omitempty"`
	Operations uint64 `json:"operations,omitempty"`
}

// rateOf is what l lets a disk do.
func rateOf(l *protocol.DiskLimits) diskRate {
	if l == nil {
		return diskRate{}
	}
	return diskRate{inSecond(l.BytesPerSecond, l.BurstBytes), inSecond(l.OperationsPerSecond, l.BurstOperations)}
}

// inSecond is what a bucket gives within a second, if it was full. Both are bounded
// (protocol.MaxBytesPerSecond), and a burst of 0 is a tenth.
func inSecond(rate, burst uint64) uint64 {
	if rate == 0 {
		return 0
	}
	if burst == 0 {
		burst = max(rate/10, 1)
	}
	return rate + burst
}

// looser is what both a and b have room in.
func (a diskRate) looser(b diskRate) diskRate {
	both := func(a, b uint64) uint64 {
		if a == 0 || b == 0 {
			return 0
		}
		return max(a, b)
	}
	return diskRate{both(a.Bytes, b.Bytes), both(a.Operations, b.Operations)}
}

// ratesOf is what the disks of g may do, by their numbers.
func ratesOf(g *hostcall.Guest) map[int]diskRate {
	rates := make(map[int]diskRate)
	for i, n := range g.DiskNumbers {
		rates[n] = rateOf(limitsOf(g, i))
	}
	return rates
}

// wall is what a VMM may do whose disks have these rates.
func wall(rates map[int]diskRate) (w cgroup.IOMax) {
	all := slices.Collect(maps.Values(rates))
	sum := func(of func(diskRate) uint64) (n uint64) {
		for _, r := range all {
			if of(r) == 0 {
				return 0
			}
			n += of(r)
		}
		return n
	}
	if n := sum(func(r diskRate) uint64 { return r.Bytes }); n > 0 {
		w.Bytes = n + ownBytes
	}
	if n := sum(func(r diskRate) uint64 { return r.Operations }); n > 0 {
		w.Operations = n*pieces + ownOperations
	}
	return w
}

// setRates notes what the disks of r may do, and bounds its VMM by that. The record comes
// first: a core that is started again after that bounds it anew.
func (m *Manager) setRates(r *run, change func(rates map[int]diskRate)) error {
	w, before, err := m.noteRates(r, change)
	if err != nil || w == before && w == (cgroup.IOMax{}) {
		return err
	}
	return m.bound(r, w)
}

// noteRates is the part of setRates that others must not come between. It returns what the
// VMM may do now, and could before.
func (m *Manager) noteRates(r *run, change func(rates map[int]diskRate)) (w, before cgroup.IOMax, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.over {
		return w, before, errEnded
	}
	before = wall(r.rec.Rates)
	rates := maps.Clone(r.rec.Rates)
	if rates == nil {
		rates = make(map[int]diskRate)
	}
	change(rates)
	rec := r.rec
	rec.Rates = rates
	if err := m.writeRecord(rec); err != nil {
		return w, before, err
	}
	r.rec = rec
	return wall(rates), before, nil
}

// bound gives the VMM of r another io.max.
func (m *Manager) bound(r *run, w cgroup.IOMax) error {
	disks, err := m.c.Folders.AllDisks(r.rec.ID)
	defer seqpacket.CloseAll(disks)
	if err != nil {
		return err
	}
	return setWall(r.group, w, disks)
}

// setWall bounds a group by w on the disk of the host that a guest's lie on: on one.
func setWall(group *cgroup.Group, w cgroup.IOMax, disks []*os.File) error {
	if len(disks) == 0 {
		return nil
	}
	d, err := cgroup.DiskOf(disks[0])
	if errors.Is(err, cgroup.ErrNoDisk) {
		return nil
	}
	if err == nil {
		err = group.SetIOMax(d, w)
	}
	if err != nil {
		return fmt.Errorf("bound disks of VMM: %w", err)
	}
	return nil
}

// withLimits has do give disk n of r the limits l. The VMM is never without room for what it
// keeps: it has room for both while nobody knows which holds.
func (m *Manager) withLimits(r *run, n int, l *protocol.DiskLimits, do func() error) error {
	before, had := m.recordOf(r).Rates[n]
	loose := rateOf(l)
	if had {
		loose = loose.looser(before)
	}
	set := func(rate diskRate) error {
		return m.setRates(r, func(rates map[int]diskRate) { rates[n] = rate })
	}
	if err := set(loose); err != nil {
		return err
	}
	err := do()
	switch {
	case err == nil:
		return set(rateOf(l))
	case !refused(err):
		return err
	case had:
		return errors.Join(err, set(before))
	}
	return errors.Join(err, m.dropRate(r, n))
}

// dropRate forgets disk n of r, which is gone.
func (m *Manager) dropRate(r *run, n int) error {
	return m.setRates(r, func(rates map[int]diskRate) { delete(rates, n) })
}

// boundAgain bounds the VMM of r, which a core before this one has started, by its record.
func (m *Manager) boundAgain(r *run) {
	if err := m.bound(r, wall(r.rec.Rates)); err != nil {
		m.c.Log.Error("VMM may do more with its disks than they may", "guest", r.rec.ID, "error", err)
	}
}
