// Package hugepage keeps the host's pools of huge pages as the operator wants them: it
// asks core to change them, remembers how large they are to be, and asks for the same
// after a boot.
package hugepage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

const (
	// Prefix goes before the size of pages.
	Prefix = "hugepagePools/"
	// Kind is the type of the resource, for errors.
	Kind = "ashlar.v1/HugepagePool"
	// listTimeout bounds a look at the pools.
	listTimeout = 30 * time.Second
	// setTimeout bounds a change: the kernel may have to move much to make room.
	setTimeout = 5 * time.Minute
	// downPause is how long to wait for a core that has gone again.
	downPause = time.Second
)

// Core is what a Manager asks.
type Core interface {
	Do(context.Context, hostcall.Call) (hostcall.Message, error)
}

// A Manager manages the pools.
type Manager struct {
	store *store.Store
	core  Core
	log   *slog.Logger

	connected chan struct{} // core is there for the first time
	first     sync.Once
	applied   chan struct{} // closed when the pools are as they were before the boot

	setting sync.Mutex // one change at a time, with the note of it

	mu     sync.Mutex
	wanted map[key]int64 // pages
}

// A key is the pool of pages of one size on a node.
type key struct {
	page int64
	node int
}

// Load reads how large the pools are to be.
func Load(s *store.Store, core Core, log *slog.Logger) (*Manager, error) {
	m := &Manager{
		store: s, core: core, log: log, wanted: map[key]int64{},
		connected: make(chan struct{}), applied: make(chan struct{}),
	}
	err := s.View(func(tx *store.Tx) error {
		return store.Hugepages.Each(tx, func(h store.Hugepage) error {
			m.wanted[key{h.PageBytes, h.Node}] = h.Pages
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// Connected says that core is there. It does not wait.
func (m *Manager) Connected() { m.first.Do(func() { close(m.connected) }) }

// Applied is closed once the pools are as they were before the boot, as far as the host
// has the memory.
func (m *Manager) Applied() <-chan struct{} { return m.applied }

// Run asks for the pools once core is there, and ends.
func (m *Manager) Run(ctx context.Context) {
	defer close(m.applied)
	select {
	case <-m.connected:
	case <-ctx.Done():
		return
	}
	m.setting.Lock()
	defer m.setting.Unlock()
	m.mu.Lock()
	wanted := maps.Clone(m.wanted)
	m.mu.Unlock()
	// Large pages first: they need memory in larger pieces.
	largest := func(a, b key) int { return cmp.Or(cmp.Compare(b.page, a.page), cmp.Compare(a.node, b.node)) }
	for _, k := range slices.SortedFunc(maps.Keys(wanted), largest) {
		pages := wanted[k]
		size := hostcall.HugepageSize{Page: k.page, Node: &k.node, Pages: pages, AtMost: true}
		pool, err := m.set(ctx, size)
		for refuse.IsDown(err) && ctx.Err() == nil {
			select {
			case <-time.After(downPause):
			case <-ctx.Done():
			}
			pool, err = m.set(ctx, size)
		}
		if err != nil {
			m.log.Error("huge pages are missing", "page", sizeName(k.page), "node", k.node, "wanted", pages, "error", err)
			continue
		}
		for _, n := range pool.Nodes {
			if n.ID == k.node && n.Kept() < pages {
				m.log.Error("huge pages are missing", "page", sizeName(k.page), "node", k.node, "wanted", pages, "pages", n.Kept())
			}
		}
	}
}

// set asks core to change a pool.
func (m *Manager) set(ctx context.Context, size hostcall.HugepageSize) (*hostcall.HugepagePool, error) {
	ctx, cancel := context.WithTimeout(ctx, setTimeout)
	defer cancel()
	msg, err := m.core.Do(ctx, hostcall.Call{Method: hostcall.HugepagesSet, HugepageSize: &size})
	if err != nil {
		return nil, err
	}
	if len(msg.Hugepages) != 1 {
		return nil, errors.New("core answered without saying anything about the pool")
	}
	return &msg.Hugepages[0], nil
}

// List returns all pools.
func (m *Manager) List(ctx context.Context) ([]*ashlarv1.HugepagePool, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	msg, err := m.core.Do(ctx, hostcall.Call{Method: hostcall.HugepagesList})
	if err != nil {
		return nil, refuse.Core(err, "", nil)
	}
	var out []*ashlarv1.HugepagePool
	for _, p := range msg.Hugepages {
		out = append(out, m.resource(p))
	}
	return out, nil
}

// Get returns one pool.
func (m *Manager) Get(ctx context.Context, name string) (*ashlarv1.HugepagePool, error) {
	if _, err := pageOf(name); err != nil {
		return nil, err
	}
	all, err := m.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		if p.Name == name {
			return p, nil
		}
	}
	return nil, refuse.NotFound(Kind, name)
}

// Set makes a pool as large as req says, and remembers it.
func (m *Manager) Set(ctx context.Context, req *ashlarv1.SetHugepagePoolRequest) (*ashlarv1.HugepagePool, error) {
	page, err := pageOf(req.Name)
	if err != nil {
		return nil, err
	}
	if req.Pages < 0 {
		return nil, refuse.Field("pages", "is %d: 0 or more", req.Pages)
	}
	size := hostcall.HugepageSize{Page: page, Pages: req.Pages}
	if req.Node != nil {
		if *req.Node < 0 {
			return nil, refuse.Field("node", "is %d: leave it out for all nodes", *req.Node)
		}
		node := int(*req.Node)
		size.Node = &node
	}
	m.setting.Lock()
	defer m.setting.Unlock()
	// A change once begun is noted, also when the caller goes away.
	ctx = context.WithoutCancel(ctx)
	pool, err := m.set(ctx, size)
	var he *hostcall.Error
	if errors.As(err, &he) && he.Code == hostcall.NotFound {
		return nil, refuse.NotFound(Kind, req.Name)
	}
	if err != nil {
		return nil, refuse.Core(err, req.Name, func(field string) string { return fields[field] })
	}
	if err := m.note(pool, size.Node); err != nil {
		return nil, refuse.Internal(fmt.Errorf("the pool is set, but will not be after a boot: %w", err))
	}
	return m.resource(*pool), nil
}

// fields are those of a request by what core calls them.
var fields = map[string]string{"hugepageSize.pages": "pages", "hugepageSize.node": "node", "hugepageSize.page": "name"}

// note remembers what a pool has on a node, or (nil) on all.
func (m *Manager) note(pool *hostcall.HugepagePool, node *int) error {
	return m.store.Update(func(tx *store.Tx) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, n := range pool.Nodes {
			if node != nil && *node != n.ID {
				continue
			}
			k := key{pool.Page, n.ID}
			rec := store.Hugepage{PageBytes: pool.Page, Node: n.ID, Pages: n.Kept()}
			if rec.Pages == 0 {
				delete(m.wanted, k)
				if err := store.Hugepages.Delete(tx, rec.Key()); err != nil {
					return err
				}
				continue
			}
			m.wanted[k] = rec.Pages
			if err := store.Hugepages.Put(tx, rec); err != nil {
				return err
			}
		}
		return nil
	})
}

func (m *Manager) resource(p hostcall.HugepagePool) *ashlarv1.HugepagePool {
	out := &ashlarv1.HugepagePool{
		Name: Prefix + sizeName(p.Page), PageBytes: p.Page, TotalPages: p.Total, FreePages: p.Free,
		ReservedPages: p.Reserved, SurplusPages: p.Surplus,
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range p.Nodes {
		out.Nodes = append(out.Nodes, &ashlarv1.HugepagePool_Node{
			Id: int32(n.ID), TotalPages: n.Total, FreePages: n.Free, SurplusPages: n.Surplus, ConfiguredPages: m.wanted[key{p.Page, n.ID}],
		})
	}
	return out
}

// units of the sizes of pages, the largest first.
var units = []struct {
	name  string
	bytes int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

// sizeName is how the size of a page is written: `2MiB`.
func sizeName(bytes int64) string {
	for _, u := range units {
		if bytes%u.bytes == 0 {
			return strconv.FormatInt(bytes/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(bytes, 10)
}

// pageOf is the size of pages that the name of a pool says.
func pageOf(name string) (int64, error) {
	size, ok := strings.CutPrefix(name, Prefix)
	for _, u := range units {
		digits, has := strings.CutSuffix(size, u.name)
		if n, err := strconv.ParseUint(digits, 10, 20); ok && has && err == nil && n > 0 && sizeName(int64(n)*u.bytes) == size {
			return int64(n) * u.bytes, nil
		}
	}
	return 0, refuse.Field("name", "write %sSIZE, such as %[1]s2MiB", Prefix)
}
