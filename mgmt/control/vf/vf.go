// Package vf keeps virtual functions of the host's devices as the operator wants them: it
// asks core to make them, remembers how many there are to be, and asks for the same after a
// boot, and when a device that has lost them comes back.
package vf

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/device"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

const (
	// setTimeout bounds a change: links may have to get a carrier twice.
	setTimeout = 2 * time.Minute
	// again is how long to wait after a device that did not get what it is to have.
	again = time.Minute
)

// Core is what a Manager asks.
type Core interface {
	Do(context.Context, hostcall.Call) (hostcall.Message, error)
}

// A Manager manages virtual functions.
type Manager struct {
	store   *store.Store
	core    Core
	devices *device.Manager
	log     *slog.Logger

	look    chan struct{} // devices may lack what they are to have
	first   sync.Once
	applied chan struct{} // closed when devices are as they were before the boot

	setting sync.Mutex // one change at a time, with the note of it

	mu     sync.Mutex
	wanted map[string]store.Functions // by device
	failed map[string]time.Time       // when a device did not get them
}

// Load reads what virtual functions there are to be.
func Load(s *store.Store, core Core, devices *device.Manager, log *slog.Logger) (*Manager, error) {
	m := &Manager{
		store: s, core: core, devices: devices, log: log, wanted: map[string]store.Functions{}, failed: map[string]time.Time{},
		look: make(chan struct{}, 1), applied: make(chan struct{}),
	}
	err := s.View(func(tx *store.Tx) error {
		return store.VFs.Each(tx, func(f store.Functions) error {
			m.wanted[f.Device] = f
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	devices.Follow(m.wake)
	if len(m.wanted) == 0 {
		m.first.Do(func() { close(m.applied) })
	}
	return m, nil
}

func (m *Manager) wake() {
	select {
	case m.look <- struct{}{}:
	default: // it will look anyway
	}
}

// Applied is closed once the devices that there are have what they had before the boot, or
// could not get it.
func (m *Manager) Applied() <-chan struct{} { return m.applied }

// Run gives devices what they lack, after each change of them, until ctx ends.
func (m *Manager) Run(ctx context.Context) {
	for {
		select {
		case <-m.look:
		case <-ctx.Done():
			return
		}
		if m.restore(ctx) {
			m.first.Do(func() { close(m.applied) })
		}
	}
}

// restore gives devices that have no virtual functions those that they are to have. It is not
// done where core goes away.
func (m *Manager) restore(ctx context.Context) (done bool) {
	m.setting.Lock()
	defer m.setting.Unlock()
	for _, f := range m.lacking() {
		err := m.set(ctx, f)
		if err == nil {
			err = m.devices.Read(ctx) // else the next look would find it lacking still
		}
		switch {
		case err == nil:
			m.note(f.Device, time.Time{})
		case refuse.IsDown(err), ctx.Err() != nil:
			return false // core says when it is back: devices are read anew then
		default:
			m.log.Error("virtual functions are missing", "device", f.Device, "wanted", f.Count, "error", err, "again_in", again)
			m.note(f.Device, time.Now())
			time.AfterFunc(again, m.wake)
		}
	}
	return true
}

// lacking are those that are wanted of devices without any, which have not failed just now.
func (m *Manager) lacking() []store.Functions {
	all, err := m.devices.List()
	if err != nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []store.Functions
	for _, d := range all {
		f, ok := m.wanted[device.Place(d.StableNames)]
		if ok && d.Sriov.GetEnabledVfs() == 0 && time.Since(m.failed[f.Device]) >= again {
			out = append(out, f)
		}
	}
	slices.SortFunc(out, func(a, b store.Functions) int { return cmp.Compare(a.Device, b.Device) })
	return out
}

// note notes when a device did not get its functions; the zero time that it has them.
func (m *Manager) note(device string, failed time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if failed.IsZero() {
		delete(m.failed, device)
		return
	}
	m.failed[device] = failed
}

// set asks core to make virtual functions.
func (m *Manager) set(ctx context.Context, f store.Functions) error {
	ctx, cancel := context.WithTimeout(ctx, setTimeout)
	defer cancel()
	_, err := m.core.Do(ctx, hostcall.Call{Method: hostcall.VFsSet,
		VFs: &hostcall.VFs{Device: f.Device, Count: f.Count, Namespaces: f.Namespaces}})
	return err
}

// fields are those of a request by what core calls them.
var fields = map[string]string{"vfs.device": "name", "vfs.count": "count", "vfs.namespaces": "namespaces"}

// Set gives a device as many virtual functions as req says, and remembers it.
func (m *Manager) Set(ctx context.Context, req *ashlarv1.SetVirtualFunctionsRequest) (*ashlarv1.PciDevice, error) {
	d, err := m.devices.Get(req.Name)
	if err != nil {
		return nil, err
	}
	f := store.Functions{Device: device.Place(d.StableNames), Count: int(req.Count)}
	for _, n := range req.Namespaces {
		ids := []int{}
		for _, id := range n.GetIds() {
			ids = append(ids, int(id))
		}
		f.Namespaces = append(f.Namespaces, ids)
	}
	v := hostcall.VFs{Device: f.Device, Count: f.Count, Namespaces: f.Namespaces}
	if field, wrong := v.Check(); wrong != "" {
		return nil, refuse.Field(field, "%s", wrong)
	}
	if f.Device == "" {
		return nil, refuse.Internal(errors.New("core does not tell where the device is plugged in"))
	}
	m.setting.Lock()
	defer m.setting.Unlock()
	// A change once begun is noted, also when the caller goes away.
	ctx = context.WithoutCancel(ctx)
	if err := m.set(ctx, f); err != nil {
		return nil, refuse.Core(err, req.Name, func(field string) string { return fields[field] })
	}
	if err := m.keep(f); err != nil {
		return nil, refuse.Internal(fmt.Errorf("the virtual functions are there, but will not be after a boot: %w", err))
	}
	if err := m.devices.Read(ctx); err != nil {
		return nil, refuse.Core(err, req.Name, nil)
	}
	return m.devices.Get(req.Name)
}

// keep remembers what a device is to have.
func (m *Manager) keep(f store.Functions) error {
	err := m.store.Update(func(tx *store.Tx) error {
		if f.Count == 0 {
			return store.VFs.Delete(tx, f.Device)
		}
		return store.VFs.Put(tx, f)
	})
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wanted[f.Device] = f
	if f.Count == 0 {
		delete(m.wanted, f.Device)
	}
	delete(m.failed, f.Device)
	return nil
}
