package guest

import (
	"fmt"
	"sync"

	"github.com/ashlar-hv/ashlar/drivers/hugepages"
	"github.com/ashlar-hv/ashlar/drivers/topology"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// pools is what a Manager keeps about the host's pools of huge pages.
type pools struct {
	setting sync.Mutex // one change at a time: each reads, writes and reads again
	// pledged is memory, in bytes, that a pool is growing by: guests do not get it. It is
	// guarded by the Manager's mu.
	pledged int64
}

// Pools are the host's pools of huge pages (hostcall.HugepagesList).
func (m *Manager) Pools() ([]hostcall.HugepagePool, error) {
	sizes, err := hugepages.Sizes()
	if err != nil {
		return nil, err
	}
	var out []hostcall.HugepagePool
	for _, s := range sizes {
		out = append(out, poolOf(s))
	}
	return out, nil
}

func poolOf(s hugepages.Size) hostcall.HugepagePool {
	p := hostcall.HugepagePool{Page: s.PageBytes, Total: s.Total, Free: s.Free, Reserved: s.Reserved, Surplus: s.Surplus}
	for _, n := range s.Nodes {
		p.Nodes = append(p.Nodes, hostcall.HugepageNode(n))
	}
	return p
}

// readPool reads the pool of pages of size bytes.
func readPool(size int64) (*hugepages.Size, error) {
	sizes, err := hugepages.Sizes()
	if err != nil {
		return nil, err
	}
	var have []string
	for _, s := range sizes {
		if s.PageBytes == size && len(s.Nodes) > 0 {
			return &s, nil
		}
		have = append(have, pageName(s.PageBytes))
	}
	return nil, &hostcall.Error{Code: hostcall.NotFound, Field: "hugepageSize.page",
		Message: fmt.Sprintf("The host has no pool of pages of %s: it has %v.", pageName(size), have)}
}

// pageName is how people write the size of pages.
func pageName(bytes int64) string {
	switch {
	case bytes >= 1<<30 && bytes%(1<<30) == 0:
		return fmt.Sprintf("%dGiB", bytes>>30)
	case bytes >= 1<<20 && bytes%(1<<20) == 0:
		return fmt.Sprintf("%dMiB", bytes>>20)
	}
	return fmt.Sprintf("%dKiB", bytes>>10)
}

// A resize is what is to become of the pool of one node: from so many pages to so many.
type resize struct{ node, from, to int64 }

// SetPool makes a pool as large as it is asked to be, or leaves it as it is and says what
// could be had (hostcall.HugepagesSet).
func (m *Manager) SetPool(c hostcall.HugepageSize) ([]hostcall.HugepagePool, error) {
	m.pools.setting.Lock()
	defer m.pools.setting.Unlock()
	pool, err := readPool(c.Page)
	if err != nil {
		return nil, err
	}
	plan, err := planOf(pool, c)
	if err != nil {
		return nil, err
	}
	if !c.AtMost {
		if err := keepPromises(pool, plan); err != nil {
			return nil, err
		}
	}
	done, err := m.pledge(pool.PageBytes, plan, c.AtMost)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := carryOut(pool.PageBytes, plan, c.AtMost); err != nil {
		return nil, err
	}
	if pool, err = readPool(c.Page); err != nil {
		return nil, err
	}
	return []hostcall.HugepagePool{poolOf(*pool)}, nil
}

// planOf is what c asks of each node.
func planOf(pool *hugepages.Size, c hostcall.HugepageSize) ([]resize, error) {
	if most := int64(1) << 50 / pool.PageBytes; c.Pages < 0 || c.Pages > most {
		return nil, &hostcall.Error{Code: hostcall.InvalidArgument, Field: "hugepageSize.pages",
			Message: fmt.Sprintf("A pool has 0 to %d pages, %d are asked for.", most, c.Pages)}
	}
	var plan []resize
	var have []int
	for i, n := range pool.Nodes {
		have = append(have, n.ID)
		r := resize{int64(n.ID), n.Kept(), c.Pages}
		if c.Node == nil {
			each, rest := c.Pages/int64(len(pool.Nodes)), c.Pages%int64(len(pool.Nodes))
			r.to = each
			if int64(i) < rest {
				r.to++
			}
		} else if *c.Node != n.ID {
			continue
		}
		if c.AtMost && r.to <= r.from {
			continue
		}
		plan = append(plan, r)
	}
	if c.Node != nil && len(plan) == 0 && !c.AtMost {
		return nil, &hostcall.Error{Code: hostcall.InvalidArgument, Field: "hugepageSize.node",
			Message: fmt.Sprintf("The host has no NUMA node %d with a pool: it has %s.", *c.Node, topology.FormatList(have))}
	}
	return plan, nil
}

// keepPromises refuses to take pages away that guests use or have been promised.
func keepPromises(pool *hugepages.Size, plan []resize) error {
	change := int64(0)
	for _, r := range plan {
		change += r.to - r.from
		for _, n := range pool.Nodes {
			if int64(n.ID) == r.node && r.to < r.from && r.to < n.Total-n.Free {
				return inUse(pool.PageBytes, n, r.to)
			}
		}
	}
	if change < 0 && pool.Available()+change < 0 {
		least := int64(0)
		for _, r := range plan {
			least += r.to
		}
		return &hostcall.Error{Code: hostcall.FailedPrecondition, Field: "hugepageSize.pages",
			Message: fmt.Sprintf("Of the %d pages of %s %d are in use and %d more are promised to guests: stop guests that use the pool, or set no less than %d. Nothing has changed.",
				pool.Total, pageName(pool.PageBytes), pool.Total-pool.Free, pool.Reserved, least-pool.Available()-change)}
	}
	return nil
}

// inUse says that a node has too many pages in use.
func inUse(page int64, n hugepages.Node, to int64) error {
	return &hostcall.Error{Code: hostcall.FailedPrecondition, Field: "hugepageSize.pages",
		Message: fmt.Sprintf("Guests use %d pages of %s of the host's NUMA node %d, it is to have %d: stop guests that use the pool, or set no less. Nothing has changed.",
			n.Total-n.Free, pageName(page), n.ID, to)}
}

// pledge takes the memory for the pages that plan adds out of what guests may have, until
// done is called. Where there is not enough of it, it refuses, or with cut makes
// plan smaller.
func (m *Manager) pledge(page int64, plan []resize, cut bool) (done func(), err error) {
	host, err := topology.Read()
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	left, err := m.left()
	if err != nil {
		return nil, err
	}
	pledged := int64(0)
	for i, r := range plan {
		grow := r.to - r.from
		if grow <= 0 {
			continue
		}
		can := left - pledged
		if n, ok := host.Node(int(r.node)); ok {
			near := max(n.AvailableBytes-nodeReserve, 0)
			for _, u := range m.taken() {
				near -= u.left([]int{n.ID})
			}
			can = min(can, near)
		}
		can = max(can, 0) / page
		if grow > can && !cut {
			return nil, tooFew(page, r, can)
		}
		grow = min(grow, can)
		plan[i].to = r.from + grow
		pledged += grow * page
	}
	m.pools.pledged = pledged
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.pools.pledged = 0
	}, nil
}

// tooFew says that a node has memory for no more than so many pages.
func tooFew(page int64, r resize, more int64) error {
	return &hostcall.Error{Code: hostcall.ResourceExhausted, Field: "hugepageSize.pages",
		Message: fmt.Sprintf("The host's NUMA node %d has %d pages of %s and memory for %d more, %d are asked for: ask for no more than %d, stop guests, or set the pool right after a boot. Nothing has changed.",
			r.node, r.from, pageName(page), more, r.to, r.from+more)}
}

// carryOut asks the kernel for what is planned, and undoes all of it where it does not do
// so; with short, less is good as well.
func carryOut(page int64, plan []resize, short bool) (err error) {
	for i, r := range plan {
		if err = hugepages.Set(page, int(r.node), r.to); err == nil && !short {
			err = check(page, r)
		}
		if err == nil {
			continue
		}
		for _, back := range plan[:i+1] {
			if e := hugepages.Set(page, int(back.node), back.from); e != nil {
				return fmt.Errorf("%w; and pages of node %d are not put back: %w", err, back.node, e)
			}
		}
		return err
	}
	return nil
}

// check sees whether the kernel has done what it was asked for: it may not find enough
// memory in one piece, and a guest may have taken pages meanwhile.
func check(page int64, r resize) error {
	pool, err := readPool(page)
	if err != nil {
		return err
	}
	for _, n := range pool.Nodes {
		switch {
		case int64(n.ID) != r.node:
		case n.Kept() < r.to:
			return tooFew(page, r, n.Kept()-r.from)
		case n.Surplus > 0 && r.to < r.from:
			return inUse(page, n, r.to)
		}
	}
	return nil
}
