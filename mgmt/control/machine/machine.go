// Package machine keeps virtual machines: what is wanted of them (in the store), what
// core sees of them, and the work that brings the two together.
//
// Each machine has one goroutine that does its operations one after the other, so that
// a slow one holds up nobody else. What core sees comes in through Synced and Changed;
// all decisions are taken from the state, not from the event, so that a lost event or
// a restart of control or core changes nothing but the time.
package machine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/feed"
	"github.com/ashlar-hv/ashlar/mgmt/control/image"
	"github.com/ashlar-hv/ashlar/mgmt/control/operation"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

const (
	// Prefix of the names of virtual machines.
	Prefix = "virtualMachines/"
	// Kind of the resource.
	Kind = "ashlar.v1.VirtualMachine"
	// maxMachines bounds how many there are: core lists them in one message.
	maxMachines = 128
)

var idForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

// Core is what machines need of core (link.Link).
type Core interface {
	Do(context.Context, hostcall.Call) (hostcall.Message, error)
	File(context.Context, hostcall.Call) (*os.File, error)
	// Sync returns when Synced has brought the present state.
	Sync(context.Context) error
	// WaitUp returns when core is there and its state known.
	WaitUp(context.Context) error
}

// A Manager knows all machines.
type Manager struct {
	store  *store.Store
	core   Core
	feed   *feed.Feed
	log    *slog.Logger
	images *image.Manager
	ops    *operation.Registry
	// findDevice finds a PCI device of the host by its address or a stable name (SetDevices).
	findDevice func(name string) (*ashlarv1.PciDevice, error)
	// findLink finds a link (SetLinks).
	findLink func(name string) (*ashlarv1.Link, error)

	ctx context.Context // ends with Run
	wg  sync.WaitGroup  // one per machine's goroutine

	mu       sync.Mutex
	strange  map[string]bool // guests of core's that the store does not know, told once
	byID     map[string]*Machine
	byUID    map[string]*Machine
	macs     map[string]bool     // in use, in canonical form
	creating map[string]*Machine // by request key
}

// A Machine is one virtual machine. Lock order: nmi, ballooning, deciding, Manager.mu, mu. Nothing slow
// is done under mu: what core tells does not wait for the disk.
type Machine struct {
	g       *Manager
	id, uid string
	wake    chan struct{} // says to the goroutine: look again
	made    chan struct{} // closed when its creation has ended, in success or not

	// deciding is held while a decision about the machine is being stored: rec, queue
	// and gone change under it alone (queue gets shorter without it).
	deciding sync.Mutex
	// nmi is held while an NMI is sent: a request that is repeated waits for the first.
	nmi sync.Mutex
	// ballooning is held while the size of a balloon or a memory is stored and told: core hears of them
	// in the order of the store.
	ballooning sync.Mutex

	mu      sync.Mutex
	rec     store.VM
	seen    hostcall.GuestStatus // State "" until core has told
	absent  bool                 // core does not know it
	making  bool                 // Create works on it
	gone    bool                 // deleted, or never came to be
	current *operation.Op        // worked on by the goroutine
	queue   []*operation.Op      // to be worked on
	hurry   bool                 // the current stop is to use force
	booting bool                 // being started again after a reset
	resets  int                  // in quick succession
	booted  time.Time            // last start by control
	changed chan struct{}        // closed at each change
}

// Load reads the machines of earlier runs and gives them the operations that had not
// ended.
func Load(s *store.Store, core Core, f *feed.Feed, images *image.Manager, ops *operation.Registry, open []*operation.Op, log *slog.Logger) (*Manager, error) {
	g := &Manager{
		store: s, core: core, feed: f, log: log, images: images, ops: ops,
		strange: map[string]bool{}, byID: map[string]*Machine{}, byUID: map[string]*Machine{}, macs: map[string]bool{}, creating: map[string]*Machine{},
	}
	images.SetUsers(g.bootsFrom)
	err := s.View(func(tx *store.Tx) error {
		return store.VMs.Each(tx, func(rec store.VM) error {
			numberDevices(&rec)
			m := g.newMachine(rec)
			close(m.made)
			g.enter(m)
			m.publish()
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("load virtual machines: %w", err)
	}
	for _, op := range open {
		g.takeUp(op)
	}
	return g, nil
}

// takeUp decides what becomes of an operation that an earlier run has begun.
func (g *Manager) takeUp(op *operation.Op) {
	rec := op.Record()
	m := g.byUID[rec.TargetUID]
	switch {
	case m == nil && rec.Kind == kindDelete:
		op.Finish(nil) // all but the note was done
	case m == nil:
		op.Finish(refuse.NotFound(Kind, rec.Target))
	case !slices.Contains(lasting, rec.Kind) && op.FromEarlierBoot():
		op.Finish(refuse.New(connect.CodeAborted, refuse.HostRestarted, "the host was restarted before it was done: start it again"))
	default:
		m.queue = append(m.queue, op)
		if mac := newAddress(rec); mac != "" {
			g.macs[mac] = true
		}
	}
}

func (g *Manager) newMachine(rec store.VM) *Machine {
	return &Machine{
		g: g, id: rec.ID, uid: rec.UID, rec: rec,
		wake: make(chan struct{}, 1), made: make(chan struct{}), changed: make(chan struct{}),
	}
}

// enter puts m into the maps. mu is held, or nobody else is there yet.
func (g *Manager) enter(m *Machine) {
	g.byID[m.id], g.byUID[m.uid] = m, m
	for _, a := range addresses(&m.rec) {
		g.macs[*a.mac] = true
	}
}

// Run runs the machines' goroutines until ctx ends. What they were at goes on at the
// next start.
func (g *Manager) Run(ctx context.Context) {
	g.mu.Lock()
	g.ctx = ctx
	g.wg.Add(1) // as long as launch may add
	for _, m := range g.byUID {
		g.wg.Go(m.run)
	}
	g.mu.Unlock()
	<-ctx.Done()
	g.mu.Lock()
	g.wg.Done()
	g.mu.Unlock()
	g.wg.Wait()
}

// launch starts m's goroutine. mu is held.
func (g *Manager) launch(m *Machine) {
	if g.ctx != nil && g.ctx.Err() == nil {
		g.wg.Go(m.run)
	}
}

// ParseName takes the ID out of `virtualMachines/ID`.
func ParseName(name string) (string, error) {
	id, ok := strings.CutPrefix(name, Prefix)
	if !ok || !idForm.MatchString(id) {
		return "", refuse.Field("name", "is %q: write %sID", name, Prefix)
	}
	return id, nil
}

// Find returns the machine called name.
func (g *Manager) Find(name string) (*Machine, error) {
	id, err := ParseName(name)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	m := g.byID[id]
	g.mu.Unlock()
	if m == nil || !m.public() {
		return nil, refuse.NotFound(Kind, name)
	}
	return m, nil
}

// public reports whether clients may know of m.
func (m *Machine) public() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rec.Phase != store.Creating && !m.gone
}

// List returns all machines by name.
func (g *Manager) List() []*ashlarv1.VirtualMachine {
	out := []*ashlarv1.VirtualMachine{}
	for _, m := range g.all() {
		if m.public() {
			out = append(out, m.Proto())
		}
	}
	slices.SortFunc(out, func(a, b *ashlarv1.VirtualMachine) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (g *Manager) all() []*Machine {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make([]*Machine, 0, len(g.byUID))
	for _, m := range g.byUID {
		all = append(all, m)
	}
	return all
}

// bootsFrom returns the names of the machines that boot from the image, those that are
// being made included.
func (g *Manager) bootsFrom(imageID string) []string {
	var users []string
	for _, m := range g.all() {
		m.mu.Lock()
		if !m.gone && (m.rec.Kernel == imageID || m.rec.Initramfs == imageID || m.making && m.clones(imageID) || m.willClone(imageID)) {
			users = append(users, Prefix+m.id)
		}
		m.mu.Unlock()
	}
	slices.Sort(users)
	return users
}

// clones reports whether a disk is made from the image. mu is held.
func (m *Machine) clones(imageID string) bool {
	return slices.ContainsFunc(m.rec.Disks, func(d store.Disk) bool { return d.Image == imageID })
}

// Name is the public name.
func (m *Machine) Name() string { return Prefix + m.id }

// UID is what core knows the machine by.
func (m *Machine) UID() string { return m.uid }

// touch tells everybody who looks at m that it has changed. mu is held.
func (m *Machine) touch() {
	close(m.changed)
	m.changed = make(chan struct{})
	select {
	case m.wake <- struct{}{}:
	default:
	}
	m.tell()
}

// publish tells watchers how m is now.
func (m *Machine) publish() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tell()
}

// tell is called with mu held.
func (m *Machine) tell() {
	if !m.gone && m.rec.Phase != store.Creating {
		m.g.feed.Put(m.Name(), m.proto())
	}
}

// save stores the record, changed by f. The record in memory changes only if that works.
func (m *Machine) save(f func(*store.VM)) error {
	m.deciding.Lock()
	defer m.deciding.Unlock()
	return m.put(f)
}

// put is save with deciding held.
func (m *Machine) put(f func(*store.VM)) error {
	m.mu.Lock()
	rec := m.rec
	m.mu.Unlock()
	f(&rec)
	if err := m.g.store.Update(func(tx *store.Tx) error { return store.VMs.Put(tx, rec) }); err != nil {
		return fmt.Errorf("store %s: %w", m.Name(), err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rec = rec
	m.touch()
	return nil
}

// forget takes m out of store and memory, with the requests that made it where it
// never came to be.
func (m *Machine) forget() error {
	m.deciding.Lock()
	defer m.deciding.Unlock()
	err := m.g.store.Update(func(tx *store.Tx) error {
		return errors.Join(store.VMs.Delete(tx, m.uid), forgetRequests(tx, func(r store.Request) bool { return r.Result == m.uid }))
	})
	if err != nil {
		return fmt.Errorf("forget %s: %w", m.Name(), err)
	}
	for _, op := range m.leave() {
		op.Finish(refuse.NotFound(Kind, m.Name()))
	}
	return nil
}

// leave takes m out of memory, and returns the operations that nobody will do. Watchers
// hear of it before the name is free: else they might take a new machine of that name
// for deleted.
func (m *Machine) leave() []*operation.Op {
	m.g.mu.Lock()
	defer m.g.mu.Unlock()
	delete(m.g.byID, m.id)
	delete(m.g.byUID, m.uid)
	for _, a := range addresses(&m.rec) {
		delete(m.g.macs, *a.mac)
	}
	m.mu.Lock()
	m.gone = true
	queue := m.queue
	for _, op := range queue {
		if mac := newAddress(op.Record()); mac != "" {
			delete(m.g.macs, mac)
		}
	}
	m.queue = nil
	m.touch()
	m.mu.Unlock()
	m.g.feed.Delete(m.Name())
	return queue
}

// forgetRequests removes the requests that f picks.
func forgetRequests(tx *store.Tx, f func(store.Request) bool) error {
	var keys []string
	err := store.Requests.Each(tx, func(r store.Request) error {
		if f(r) {
			keys = append(keys, r.Key)
		}
		return nil
	})
	for _, key := range keys {
		err = errors.Join(err, store.Requests.Delete(tx, key))
	}
	return err
}

// Sweep forgets requests that are older than a day.
func (g *Manager) Sweep(now time.Time) error {
	return g.store.Update(func(tx *store.Tx) error {
		return forgetRequests(tx, func(r store.Request) bool { return now.Sub(r.Time) > 24*time.Hour })
	})
}
