// Package guest runs guests: one VMM process each (vmm/protocol), in
// namespaces, a cgroup and a user of its own, with everything it needs handed
// in open.
//
// A VMM outlives core. What core must know about it lies on the run file
// system (record); a core that is started again adopts what runs, and clears
// away what does not.
package guest

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/ashlar-hv/ashlar/drivers/cgroup"
	"github.com/ashlar-hv/ashlar/drivers/interrupt"
	"github.com/ashlar-hv/ashlar/drivers/pci"
	"github.com/ashlar-hv/ashlar/initramfs/layout"
	"github.com/ashlar-hv/ashlar/mgmt/core/folder"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostdevice"
	"github.com/ashlar-hv/ashlar/mgmt/core/image"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

const (
	// configureTimeout is how long a VMM may take to load a guest, besides
	// populating its memory.
	configureTimeout = 60 * time.Second
	callTimeout      = 10 * time.Second
	// pauseTimeout is how long a VMM may take until all that its disks were asked for
	// is done.
	pauseTimeout = 30 * time.Second
	// stopTimeout is how long a VMM may take to flush before it is killed.
	stopTimeout = 5 * time.Second
	killTimeout = 10 * time.Second
)

// Networks is what the guests' NICs hang on (mgmt/core/network.Set).
type Networks interface {
	Check(nics []hostcall.NIC) error
	Assign(id string, nics []hostcall.NIC) ([]folder.Interface, error)
	Activate(nics []folder.Interface) error
	Deactivate(nics []folder.Interface)
	Release(id string)
	// Keep leaves the guest id these addresses alone.
	Keep(id string, nics []folder.Interface)
	// MTU is that of a network.
	MTU(network string) uint16
	OpenTap(name, network string, queues int) ([]*os.File, error)
	RemoveTap(name string) error
	// SetLimits returns what the limits that a tap had have counted.
	SetLimits(tap string, l *hostcall.NICLimits) (counted map[string]uint64, err error)
	SetLink(tap string, up bool) error
	// TapCounters are those of a tap, as its guest sees them.
	TapCounters(name string) (map[string]uint64, error)
}

// A Config says where things are.
type Config struct {
	RunDir   string // a folder for each running guest
	EndDir   string // how guests ended
	Cgroup   string // holds a group for each running guest
	VMM      string // the program
	Folders  *folder.Store
	Images   *image.Store
	Networks Networks
	CPUs     CPUPolicy
	// Interrupts are the host's.
	Interrupts *interrupt.Steering
	DeviceDir  string // a record of each device of the host's that a guest has
	// FindDevices finds the host's devices, and DevicesChanged is told when other guests have
	// them. It must not wait.
	FindDevices    func() (*pci.Inventory, error)
	DevicesChanged func()
	// Functions are the virtual functions of these.
	Functions hostdevice.Functions
	// Memory tells how many bytes the host has available.
	Memory func() (int64, error)
	// Beat is how often each VMM is asked whether it is there; 0 is 10 s.
	Beat time.Duration
	// Allowed says why no guest may be started on the host; nil where they may.
	Allowed func() error
	// Notify is told of each change, one at a time. It must not wait.
	Notify func(hostcall.GuestStatus)
	Log    *slog.Logger
}

// A Manager is all guests of the host.
//
// Lock order: a guest's turn (turns), plugging, then mu.
type Manager struct {
	c       Config
	devices *hostdevice.Set

	turns turns
	// plugging is held while it changes what a guest may have plugged in of memory.
	plugging sync.Mutex

	mu      sync.Mutex
	running map[string]*run                 // has a VMM, or is getting one
	ended   map[string]hostcall.GuestStatus // the last end of those that ran
	closed  bool                            // no new guests: the host goes down

	pools pools

	// steering is held while interrupts are moved: before mu in the order of locks.
	steering sync.Mutex
	away     []int // the CPUs that interrupts were kept off last
	steered  bool  // away is in force
}

// New returns a Manager that has adopted the guests that run already.
func New(c Config) (*Manager, error) {
	m := &Manager{c: c, running: make(map[string]*run), ended: make(map[string]hostcall.GuestStatus)}
	for _, dir := range []string{c.RunDir, c.EndDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("manage guests: %w", err)
		}
	}
	var err error
	m.devices, err = hostdevice.New(hostdevice.Config{Dir: c.DeviceDir, Find: c.FindDevices, NameOf: m.NameOf, Functions: c.Functions, Changed: c.DevicesChanged, Log: c.Log})
	if err != nil {
		return nil, err
	}
	if err := m.readEnds(); err != nil {
		return nil, err
	}
	if err := m.adoptAll(); err != nil {
		return nil, err
	}
	m.devices.ReturnOthers(func(id string) bool { return m.lookup(id) != nil })
	return m, nil
}

// Create makes a guest with disks (hostcall.GuestCreate).
func (m *Manager) Create(id string, disks []hostcall.Disk) error {
	defer m.turns.take(id)()
	return m.c.Folders.Create(id, disks)
}

// Delete removes a guest that does not run.
func (m *Manager) Delete(id string) error {
	defer m.turns.take(id)()
	if m.lookup(id) != nil {
		return &hostcall.Error{Code: hostcall.FailedPrecondition, Message: "The guest runs: stop it first."}
	}
	if err := m.c.Folders.Delete(id); err != nil {
		return err
	}
	m.c.Networks.Release(id)
	m.removeEnd(id)
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.ended, id)
	return nil
}

// lookup returns the run of the guest id, nil for none.
func (m *Manager) lookup(id string) *run {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.running[id]
}

// find returns the run of a guest that must run.
func (m *Manager) find(id string) (*run, error) {
	if r := m.lookup(id); r != nil {
		return r, nil
	}
	if !m.c.Folders.Exists(id) {
		return nil, folder.NotFound(id)
	}
	return nil, &hostcall.Error{Code: hostcall.FailedPrecondition, Message: "The guest does not run: start it first."}
}

// List returns the status of all guests, in order of their identifiers. Where their folders
// cannot be read, those are missing that have not run since the host's boot.
func (m *Manager) List() ([]hostcall.GuestStatus, error) {
	ids, err := m.c.Folders.List()
	if err != nil {
		m.c.Log.Error("not all guests are known", "error", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make(map[string]hostcall.GuestStatus)
	for _, id := range ids {
		all[id] = hostcall.GuestStatus{ID: id, State: hostcall.Stopped}
		if s, ok := m.ended[id]; ok {
			all[id] = s
		}
	}
	for id, r := range m.running {
		all[id] = m.statusOf(r)
	}
	out := make([]hostcall.GuestStatus, 0, len(all))
	for _, id := range slices.Sorted(maps.Keys(all)) {
		out = append(out, all[id])
	}
	hostcall.FitDevices(out)
	return out, nil
}

// PowerButton presses the guest's power button. A paused guest could not hear it.
func (m *Manager) PowerButton(ctx context.Context, id string) error {
	r, err := m.find(id)
	if err != nil {
		return err
	}
	if err := m.notPaused(r); err != nil {
		return err
	}
	return r.powerButton(ctx)
}

// Console opens a stream to the guest's console.
func (m *Manager) Console(ctx context.Context, id string) (*os.File, error) {
	r, err := m.find(id)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	f, err := r.client.console(ctx)
	if err != nil {
		return nil, refusal(err)
	}
	return f, nil
}

// Log opens the guest's console log for reading.
func (m *Manager) Log(id string) (*os.File, error) { return m.c.Folders.OpenLog(id) }

// Kill ends the guest's VMM and returns when it is gone and cleaned up.
func (m *Manager) Kill(ctx context.Context, id string) error {
	r, err := m.find(id)
	if err != nil {
		return err
	}
	return m.finishBy(ctx, r, protocol.Stop)
}

// Leased notes that a guest has taken the address of one of its NICs.
func (m *Manager) Leased(mac, address string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.running {
		i := slices.IndexFunc(r.rec.NICs, func(n folder.Interface) bool { return n.MAC == mac })
		if i < 0 || r.rec.Leased[i] == address {
			continue
		}
		r.rec.Leased[i] = address
		if err := m.writeRecord(r.rec); err != nil {
			m.c.Log.Warn("cannot note address of guest", "guest", r.rec.ID, "error", err)
		}
		m.c.Notify(m.statusOf(r))
	}
}

// Shutdown resumes paused guests, presses every guest's power button, waits until ctx ends, and then
// kills those that still run. No guest can be started any more.
func (m *Manager) Shutdown(ctx context.Context) {
	m.mu.Lock()
	m.closed = true
	runs := slices.Collect(maps.Values(m.running))
	m.mu.Unlock()
	var all sync.WaitGroup
	for _, r := range runs {
		all.Go(func() {
			if err := m.wakeAndPress(ctx, r); err != nil {
				m.c.Log.Warn("cannot press power button", "guest", r.rec.ID, "error", err)
			}
			select {
			case <-r.gone:
				return
			case <-ctx.Done():
			}
			m.c.Log.Warn("guest has not powered off in time and is killed", "guest", r.rec.ID)
			kill, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout+killTimeout)
			defer cancel()
			if err := m.finishBy(kill, r, protocol.Stop); err != nil {
				m.c.Log.Error("cannot kill guest", "guest", r.rec.ID, "error", err)
			}
		})
	}
	all.Wait()
}

// slot finds a number for a new run that no other has. The caller holds m.mu.
func (m *Manager) slot() (int, error) {
	used := make(map[int]bool)
	for _, r := range m.running {
		used[r.rec.Slot] = true
	}
	for n := range layout.GuestUIDCount {
		if !used[n] {
			return n, nil
		}
	}
	return 0, &hostcall.Error{Code: hostcall.ResourceExhausted, Message: fmt.Sprintf("%d guests run: stop one first.", layout.GuestUIDCount)}
}

func (m *Manager) groupOf(id string) *cgroup.Group { return cgroup.Open(m.c.Cgroup + "/" + id) }

// turns lets one operation at a time change a guest.
type turns struct {
	mu    sync.Mutex
	taken map[string]chan struct{} // closed when the turn ends
}

// take waits for the turn of id; the function returned ends it.
func (t *turns) take(id string) func() {
	for {
		t.mu.Lock()
		wait, busy := t.taken[id]
		if !busy {
			mine := make(chan struct{})
			if t.taken == nil {
				t.taken = make(map[string]chan struct{})
			}
			t.taken[id] = mine
			t.mu.Unlock()
			return func() {
				t.mu.Lock()
				delete(t.taken, id)
				t.mu.Unlock()
				close(mine)
			}
		}
		t.mu.Unlock()
		<-wait
	}
}
