package memory

import (
	"errors"
	"fmt"
	"slices"
	"sync"
)

// A Follower maps guest memory for devices that read and write it at any time, past this
// process: an IOMMU. What it has mapped stays where it is in the host.
type Follower interface {
	// Map and Unmap map and unmap r: one of the regions, or a block that was plugged in.
	// After an error nothing of it is mapped, or all of it still.
	Map(r Region) error
	Unmap(r Region) error
}

// followers are those of a Memory.
type followers struct {
	// mu is held, for reading, by what gives pages to the host or takes them: it waits while a
	// Follower comes or goes. It is above pluggable.mu.
	mu   sync.RWMutex
	list []Follower
}

// Follow has f map all memory that there is, and from then on what is plugged in, until
// Unfollow. As long as there is a Follower pages are not given back by Remove: the device would
// go on using those that are gone. What is unplugged, f unmaps before. After an error f has nothing mapped.
func (m *Memory) Follow(f Follower) error {
	m.followers.mu.Lock()
	defer m.followers.mu.Unlock()
	pieces := m.mappable()
	for i, r := range pieces {
		if err := f.Map(r); err != nil {
			return errors.Join(fmt.Errorf("map %d bytes of guest memory at %#x: %w", r.Size, r.GPA, err), unmapAll(f, pieces[:i]))
		}
	}
	m.followers.list = append(m.followers.list, f)
	return nil
}

// Unfollow has f unmap all memory.
func (m *Memory) Unfollow(f Follower) error {
	m.followers.mu.Lock()
	defer m.followers.mu.Unlock()
	m.followers.list = slices.DeleteFunc(m.followers.list, func(g Follower) bool { return g == f })
	return unmapAll(f, m.mappable())
}

func unmapAll(f Follower, pieces []Region) error {
	var errs []error
	for _, r := range pieces {
		errs = append(errs, f.Unmap(r))
	}
	return errors.Join(errs...)
}

// mappable are the regions and the blocks that are plugged in, each by itself, as it goes by
// itself. followers.mu is held.
func (m *Memory) mappable() []Region {
	p := m.pluggable
	if p == nil {
		return m.regions
	}
	out := slices.Clone(m.regions)
	p.mu.RLock()
	defer p.mu.RUnlock()
	for i := range p.Size / p.Block {
		if p.count(i, i+1) == 1 {
			out = append(out, p.region(i))
		}
	}
	return out
}

// region is block i, as the kernel is shown it.
func (p *pluggable) region(i uint64) Region {
	off := i * p.Block
	return Region{GPA: p.gpa + off, Size: p.Block, Offset: p.off + off, HostAddr: uintptr(p.view) + uintptr(off)}
}

// mapBlocks has all followers map the blocks from first to before end, or none of them.
// followers.mu is held.
func (m *Memory) mapBlocks(first, end uint64) error {
	for n, f := range m.followers.list {
		for i := first; i < end; i++ {
			if err := f.Map(m.pluggable.region(i)); err != nil {
				for j := first; j < i; j++ {
					err = errors.Join(err, f.Unmap(m.pluggable.region(j)))
				}
				for _, g := range m.followers.list[:n] {
					for j := first; j < end; j++ {
						err = errors.Join(err, g.Unmap(m.pluggable.region(j)))
					}
				}
				return err
			}
		}
	}
	return nil
}

// unmapBlocks has all followers unmap these blocks. After an error those that could be are
// mapped again. followers.mu is held.
func (m *Memory) unmapBlocks(first, end uint64) error {
	for n, f := range m.followers.list {
		for i := first; i < end; i++ {
			if err := f.Unmap(m.pluggable.region(i)); err != nil {
				for j := first; j < i; j++ {
					err = errors.Join(err, f.Map(m.pluggable.region(j)))
				}
				for _, g := range m.followers.list[:n] {
					for j := first; j < end; j++ {
						err = errors.Join(err, g.Map(m.pluggable.region(j)))
					}
				}
				return err
			}
		}
	}
	return nil
}

// Followed tells whether there is a Follower: Remove does nothing then.
func (m *Memory) Followed() bool {
	m.followers.mu.RLock()
	defer m.followers.mu.RUnlock()
	return len(m.followers.list) > 0
}
