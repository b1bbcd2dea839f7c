// Package sriov is what core does with virtual functions of the host's devices: it makes
// them, tells of the links that have them, and sets them up for guests.
package sriov

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ashlar-hv/ashlar/drivers/nic"
	"github.com/ashlar-hv/ashlar/drivers/pci"
	driver "github.com/ashlar-hv/ashlar/drivers/sriov"
	"github.com/ashlar-hv/ashlar/mgmt/core/host"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

const sysfs = "/sys"

const (
	// carrierTimeout is how long a link that is switched on may take to have a carrier. One
	// without a cable never has one: virtual functions are made all the same.
	carrierTimeout = 10 * time.Second
	// pathName goes before where a device is plugged in, in its name (drivers/pci).
	pathName = "path-"
	maxName  = 512 // bytes
)

// A Config says what a Manager knows of the rest.
type Config struct {
	// Inventory finds the PCI devices of the host, and what it uses itself.
	Inventory func() (*pci.Inventory, error)
	// Owners are the guests that have devices of the host's, by the addresses of these.
	Owners func() map[string]string
	// Uplink are the guest networks that reach the outside through an interface.
	Uplink func(name string) []string
	Log    *slog.Logger
}

// A Manager manages virtual functions. Its methods may be called by many goroutines.
type Manager struct {
	c Config
	// mu is held while virtual functions are made or removed, and by whoever chooses one
	// until it is noted whose it is (Hold).
	mu sync.Mutex
}

// New makes a Manager.
func New(c Config) *Manager { return &Manager{c: c} }

// Hold keeps virtual functions from being made or removed until release is called.
func (m *Manager) Hold() (release func()) {
	m.mu.Lock()
	return m.mu.Unlock
}

// refuse makes a refusal.
func refuse(code hostcall.Code, field, format string, args ...any) error {
	return &hostcall.Error{Code: code, Field: field, Message: fmt.Sprintf(format, args...)}
}

// violation makes the refusal of a device for a guest.
func violation(reason hostcall.Reason, device, format string, args ...any) error {
	return hostcall.Refuse([]hostcall.Violation{{Reason: reason, Device: device, Message: fmt.Sprintf(format, args...)}})
}

// locate finds the device that a name says where it is plugged in.
func locate(inv *pci.Inventory, field, name string) (string, error) {
	if !strings.HasPrefix(name, pathName) || len(name) > maxName {
		return "", refuse(hostcall.InvalidArgument, field, "A device is named by where it is plugged in, as %s0000:00-1c.0-00.0, not %.60q.", pathName, name)
	}
	address, err := inv.Resolve(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", refuse(hostcall.NotFound, field, "There is no device %s: look for it with ashlarctl device list.", name)
	}
	return address, err
}

// Set makes virtual functions (hostcall.VFsSet).
func (m *Manager) Set(ctx context.Context, v hostcall.VFs) error {
	if field, wrong := v.Check(); wrong != "" {
		return refuse(hostcall.InvalidArgument, "vfs."+field, "%s of virtual functions %s.", field, wrong)
	}
	defer m.Hold()()
	inv, err := m.c.Inventory()
	if err != nil {
		return err
	}
	address, err := locate(inv, "vfs.device", v.Device)
	if err != nil {
		return err
	}
	d, err := inv.Read(address)
	if err != nil {
		return err
	}
	if err := m.check(inv, d, v); err != nil {
		return err
	}
	if d.SRIOV.Enabled != v.Count {
		if err := m.unused(inv, d); err != nil {
			return err
		}
	}
	if err := m.change(ctx, d, v); err != nil {
		return err
	}
	m.c.Log.Info("virtual functions are made", "device", address, "driver", d.Driver, "number", v.Count)
	return nil
}

// check refuses what the device cannot have, or should not.
func (m *Manager) check(inv *pci.Inventory, d *pci.Device, v hostcall.VFs) error {
	switch {
	case d.SRIOV == nil:
		return refuse(hostcall.FailedPrecondition, "vfs.device", "The device %s cannot have virtual functions: it has no SR-IOV, or that is switched off in the firmware's setup.", d.Address)
	case v.Count > d.SRIOV.Total:
		return refuse(hostcall.InvalidArgument, "vfs.count", "The device %s has at most %d virtual functions: %d are asked for.", d.Address, d.SRIOV.Total, v.Count)
	case m.c.Owners()[d.Address] != "":
		return refuse(hostcall.FailedPrecondition, "vfs.device", "The device %s is a guest's: stop that first.", d.Address)
	case d.Driver == "" && v.Count > 0:
		return refuse(hostcall.FailedPrecondition, "vfs.device", "The host has no driver for the device %s: it cannot make virtual functions of it.", d.Address)
	case v.Namespaces != nil && d.Class != classNVMe:
		return refuse(hostcall.InvalidArgument, "vfs.namespaces", "The device %s is no NVMe controller: it has no namespaces.", d.Address)
	}
	for _, u := range inv.Uses(d.Address) {
		if v.Count > 0 && (u == pci.BootDisk || u == pci.DataDisk) {
			return refuse(hostcall.FailedPrecondition, "vfs.device",
				"The host's own disk is behind the device %s: a guest with one of its virtual functions could read and write it. Take another device.", d.Address)
		}
	}
	return nil
}

// unused refuses where virtual functions that d has are in use: all of them go when their
// number changes.
func (m *Manager) unused(inv *pci.Inventory, d *pci.Device) error {
	vfs, err := driver.Functions(sysfs, d.Address)
	if err != nil {
		return err
	}
	owners := m.c.Owners()
	for i, vf := range vfs {
		if owners[vf] != "" {
			return refuse(hostcall.FailedPrecondition, "vfs.count",
				"Virtual function %d of %s (%s) is in use by a guest, and all of them go when their number changes: stop that guest first.", i, d.Address, vf)
		}
		if len(inv.Uses(vf)) > 0 {
			return refuse(hostcall.FailedPrecondition, "vfs.count",
				"The host uses virtual function %d of %s (%s) itself, and all of them go when their number changes.", i, d.Address, vf)
		}
	}
	return nil
}

// change makes what is asked for, or puts back what there was.
func (m *Manager) change(ctx context.Context, d *pci.Device, v hostcall.VFs) error {
	make := makeOthers
	switch {
	case len(d.Interfaces) > 0:
		make = makeNIC
	case d.Class == classNVMe:
		make = makeNVMe
	}
	err := make(ctx, d, v)
	if err == nil || d.SRIOV.Enabled == v.Count {
		return err
	}
	if back := make(ctx, d, hostcall.VFs{Count: d.SRIOV.Enabled}); back != nil {
		m.c.Log.Error("virtual functions are not put back", "device", d.Address, "error", back)
	}
	return err
}

// makeOthers makes those of a device that needs nothing else.
func makeOthers(_ context.Context, d *pci.Device, v hostcall.VFs) error {
	return driver.Create(d.Address, v.Count)
}

// makeNIC makes those of a network card: its interface has to work before, and does not while
// they are made.
func makeNIC(ctx context.Context, d *pci.Device, v hostcall.VFs) error {
	if v.Count == 0 {
		return driver.Create(d.Address, 0)
	}
	if err := ready(ctx, d); err != nil {
		return err
	}
	if err := driver.Create(d.Address, v.Count); err != nil {
		return err
	}
	return ready(ctx, d)
}

// ready waits until the interfaces of d work, or have had the time to.
func ready(ctx context.Context, d *pci.Device) error {
	ctx, cancel := context.WithTimeout(ctx, carrierTimeout)
	defer cancel()
	for _, i := range d.Interfaces {
		if _, err := driver.Ready(ctx, i.Name); err != nil {
			return err
		}
	}
	return nil
}

// Links reads the links that come after a name (hostcall.LinkList).
func (m *Manager) Links(after string) (*hostcall.LinkPage, error) {
	ports, err := nic.Ports(sysfs)
	if err != nil {
		return nil, err
	}
	inv, err := m.c.Inventory()
	if err != nil {
		return nil, err
	}
	ports = slices.DeleteFunc(ports, func(p nic.Port) bool { return p.Name <= after })
	slices.SortFunc(ports, func(a, b nic.Port) int { return strings.Compare(a.Name, b.Name) })
	links, more, err := host.Page(ports, func(p nic.Port) (hostcall.Link, error) { return m.link(inv, p), nil })
	return &hostcall.LinkPage{Links: links, More: more}, err
}

func (m *Manager) link(inv *pci.Inventory, p nic.Port) hostcall.Link {
	out := hostcall.Link{
		Name: p.Name, MAC: p.MAC.String(), PermanentMAC: p.PermanentMAC.String(), Up: p.Up, Carrier: p.Carrier, MTU: p.MTU,
		Speed: p.SpeedMbps, Full: p.FullDuplex, Driver: p.Driver, Device: p.Device, Node: p.Node, TotalVFs: p.TotalVFs,
		Management: slices.Contains(inv.Uses(p.Device), pci.ManagementNIC), Uplink: m.c.Uplink(p.Name),
	}
	if p.Device == "" || len(p.VFs) == 0 {
		return out
	}
	addresses, err := driver.Functions(sysfs, p.Device)
	if err != nil {
		return out // they are just going
	}
	for i, s := range p.VFs[:min(len(p.VFs), len(addresses))] {
		out.VFs = append(out.VFs, hostcall.LinkVF{Device: addresses[i], VFSettings: told(s)})
	}
	return out
}

// states are those of the driver.
var states = map[hostcall.LinkState]driver.LinkState{hostcall.LinkAuto: driver.Auto, hostcall.LinkEnable: driver.Enable, hostcall.LinkDisable: driver.Disable}

// told makes of settings what is told of them.
func told(s driver.Settings) hostcall.VFSettings {
	out := hostcall.VFSettings{VLAN: s.VLAN, QoS: s.QoS, MaxRate: s.MaxRate, NoSpoofCheck: !s.SpoofCheck, Trust: s.Trust}
	if slices.ContainsFunc(s.MAC, func(b byte) bool { return b != 0 }) {
		out.MAC = s.MAC.String()
	}
	for state, d := range states {
		if d == s.LinkState {
			out.State = state
		}
	}
	return out
}
