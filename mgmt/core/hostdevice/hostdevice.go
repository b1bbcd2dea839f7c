// Package hostdevice gives PCI devices of the host to guests and takes them back: it says why
// one cannot be given away (check.go), has vfio-pci take it from the host's driver, and gives it
// back to that one when its guest has ended.
//
// A record on the run file system is written before the first step of either and removed after
// the last. A core that was ended anywhere finds it, and finishes: what a guest that runs has
// stays, all else goes back. When the host is booted all devices are the host's, and there are
// no records.
package hostdevice

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/ashlar-hv/ashlar/drivers/pci"
	"github.com/ashlar-hv/ashlar/drivers/vfio"
	"github.com/ashlar-hv/ashlar/mgmt/core/folder"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// Config says where things are.
type Config struct {
	Dir string // on the run file system: a record for each device
	// Find finds the devices that there are.
	Find func() (*pci.Inventory, error)
	// NameOf is the name of a guest, "" where it is not known. It must not wait for a Set.
	NameOf func(id string) string
	// Changed is told of each change of who has what; it may be nil. It must not wait.
	Changed func()
	Log     *slog.Logger
}

// A Held is a device that a guest has, or is getting.
type Held struct {
	Guest   string `json:"guest"` // identifier
	Number  int    `json:"number"`
	Address string `json:"address"`
	Name    string `json:"name"` // that it was asked for by
	Group   int    `json:"group"`
	// Driver is the host's, "" where it had none.
	Driver string `json:"driver,omitempty"`
	// NoReset: it cannot be reset, and stays with its guest.
	NoReset bool `json:"noReset,omitempty"`
	ROM     bool `json:"rom,omitempty"`
	// Idle: its guest does not have it now, but it cannot go back: the guest has others of its
	// group, or it cannot be reset.
	Idle bool `json:"idle,omitempty"`
	// Fault is what has happened to it that is no good, and FaultTime when that was seen.
	Fault     string    `json:"fault,omitempty"`
	FaultTime time.Time `json:"faultTime,omitzero"`
}

// A Set is the devices of the host that guests have. Lock order: changing, noting, mu.
type Set struct {
	c Config
	// changing is held while devices are taken or given back, which may take long.
	changing sync.Mutex
	noting   sync.Mutex // held while records are written

	mu   sync.Mutex
	held map[string]Held // by address
}

// New reads the records of an earlier core.
func New(c Config) (*Set, error) {
	if c.Changed == nil {
		c.Changed = func() {}
	}
	s := &Set{c: c, held: map[string]Held{}}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("keep devices of guests: %w", err)
	}
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("keep devices of guests: %w", err)
	}
	for _, e := range entries {
		h, err := readRecord(filepath.Join(c.Dir, e.Name()))
		if err != nil || h.Address != e.Name() || !hostcall.ValidID(h.Guest) {
			c.Log.Warn("record of a device is of no use", "record", e.Name(), "error", err)
			if err := os.Remove(filepath.Join(c.Dir, e.Name())); err != nil {
				return nil, fmt.Errorf("keep devices of guests: %w", err)
			}
			continue
		}
		s.held[h.Address] = h
	}
	return s, nil
}

func readRecord(path string) (h Held, err error) {
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &h)
	}
	return h, err
}

// note records h, before anything is done about it.
func (s *Set) note(h Held) error {
	s.noting.Lock()
	defer s.noting.Unlock()
	return s.put(h)
}

// put is note with noting held.
func (s *Set) put(h Held) error {
	b, err := json.Marshal(h)
	if err == nil {
		err = folder.WriteFile(filepath.Join(s.c.Dir, h.Address), b)
	}
	if err != nil {
		return fmt.Errorf("record device %s: %w", h.Address, err)
	}
	s.mu.Lock()
	s.held[h.Address] = h
	s.mu.Unlock()
	s.c.Changed()
	return nil
}

// forget removes the record of a device.
func (s *Set) forget(address string) error {
	s.noting.Lock()
	defer s.noting.Unlock()
	if err := os.Remove(filepath.Join(s.c.Dir, address)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget device %s: %w", address, err)
	}
	s.mu.Lock()
	delete(s.held, address)
	s.mu.Unlock()
	s.c.Changed()
	return nil
}

// all are the devices held, by address.
func (s *Set) all() []Held {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Held
	for _, address := range slices.Sorted(maps.Keys(s.held)) {
		out = append(out, s.held[address])
	}
	return out
}

// Of are the devices that a guest has, by number.
func (s *Set) Of(guest string) []Held {
	out := slices.DeleteFunc(s.all(), func(h Held) bool { return h.Guest != guest || h.Idle })
	slices.SortFunc(out, func(a, b Held) int { return a.Number - b.Number })
	return out
}

// Owners are the guests that have devices, by the addresses of these.
func (s *Set) Owners() map[string]string {
	owners := map[string]string{}
	for _, h := range s.all() {
		owners[h.Address] = h.Guest
	}
	return owners
}

// Fault notes what has happened to a device that a guest has, and reports whether that is new.
func (s *Set) Fault(guest, address, fault string, at time.Time) bool {
	s.noting.Lock()
	defer s.noting.Unlock()
	s.mu.Lock()
	h, ok := s.held[address]
	s.mu.Unlock()
	if !ok || h.Guest != guest || h.Idle || h.Fault == fault {
		return false
	}
	h.Fault, h.FaultTime = fault, at.UTC()
	if err := s.put(h); err != nil {
		s.c.Log.Warn("fault of a device is not noted", "error", err)
	}
	return true
}

// Take has devices ready for a guest, all or none: it checks them, records them, and has vfio-pci
// take them. What the guest has already it keeps.
func (s *Set) Take(guest string, want []hostcall.HostDevice) ([]Held, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	found, err := s.check(guest, want, false)
	if err != nil {
		return nil, err
	}
	for i, f := range found {
		if err := s.takeOne(guest, want[i], f); err != nil {
			for _, back := range found[:i+1] {
				s.giveBack(back.Address)
			}
			return nil, err
		}
	}
	return s.Of(guest), nil
}

func (s *Set) takeOne(guest string, want hostcall.HostDevice, d *pci.Device) error {
	h := Held{Guest: guest, Number: want.Number, Address: d.Address, Name: want.Name, Group: d.Group,
		Driver: d.Driver, NoReset: len(d.ResetMethods) == 0, ROM: want.ROM}
	s.mu.Lock()
	if had, ok := s.held[d.Address]; ok {
		h.Driver = had.Driver // the host's, not what has it now
	}
	s.mu.Unlock()
	if err := s.note(h); err != nil {
		return err
	}
	err := vfio.Take(d.Address)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, vfio.ErrStuck):
		return hostcall.Refuse([]hostcall.Violation{{Reason: hostcall.DriverStuck, Device: d.Address,
			Message: fmt.Sprintf("The host's driver %s does not let go of %s: look whether something uses it; at worst restart the host.", h.Driver, d.Address)}})
	case errors.Is(err, fs.ErrNotExist):
		return hostcall.Refuse([]hostcall.Violation{missing(want.Name)})
	}
	return hostcall.Refuse([]hostcall.Violation{{Reason: hostcall.NotAssignable, Device: d.Address,
		Message: fmt.Sprintf("The kernel does not hand %s on: %v.", d.Address, err)}})
}

// Return gives back all devices of a guest that has ended.
func (s *Set) Return(guest string) {
	is := func(h Held) bool { return h.Guest == guest }
	if !slices.ContainsFunc(s.all(), is) {
		return // and waits for nobody else's
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	s.giveBackAll(is)
}

// giveBackAll gives back the devices that f picks, side by side: a driver may take seconds to take one. The
// caller holds changing.
func (s *Set) giveBackAll(f func(Held) bool) {
	var all sync.WaitGroup
	for _, h := range s.all() {
		if f(h) {
			all.Go(func() { s.giveBack(h.Address) })
		}
	}
	all.Wait()
}

// ReturnOne gives back a device that a guest, which runs, does not have any more. Where it has
// others of the same group, which cannot be told apart, it goes back with the last of them.
func (s *Set) ReturnOne(guest string, number int) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	all := s.all()
	i := slices.IndexFunc(all, func(h Held) bool { return h.Guest == guest && h.Number == number && !h.Idle })
	if i < 0 {
		return nil
	}
	h := all[i]
	if slices.ContainsFunc(all, func(o Held) bool { return o.Group == h.Group && o.Address != h.Address && !o.Idle }) {
		h.Idle = true
		return s.note(h)
	}
	s.giveBackAll(func(o Held) bool { return o.Group == h.Group })
	return nil
}

// ReturnOthers gives back all devices of guests that do not run, as a core that was ended may have
// left them.
func (s *Set) ReturnOthers(runs func(guest string) bool) {
	s.changing.Lock()
	defer s.changing.Unlock()
	s.giveBackAll(func(h Held) bool { return !runs(h.Guest) })
}

// giveBack gives one device back to the host, unless it cannot be reset: what its guest has had it do
// nobody knows, so that it stays where it is. The caller holds changing.
func (s *Set) giveBack(address string) {
	s.mu.Lock()
	h, ok := s.held[address]
	s.mu.Unlock()
	if !ok {
		return
	}
	if h.NoReset {
		s.c.Log.Warn("a device that cannot be reset stays with its guest until the host is restarted", "device", address, "guest", h.Guest)
		h.Idle = true
		if err := s.note(h); err != nil {
			s.c.Log.Error("a device stays with its guest", "error", err)
		}
		return
	}
	err := vfio.GiveBack(address, h.Driver)
	if errors.Is(err, vfio.ErrStuck) {
		s.c.Log.Error("a device is not given back: it stays with its guest until core is started again", "device", address, "guest", h.Guest)
		return
	}
	if err != nil { // vfio-pci has let go of it; more is not to be had
		s.c.Log.Error("a device has no driver of the host's again", "device", address, "error", err)
	}
	if err := s.forget(address); err != nil {
		s.c.Log.Error("a device stays with its guest", "error", err)
	}
}
