// Package device knows the host's PCI devices as core has told them last, and tells
// watchers when they change.
package device

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/feed"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

const (
	// Prefix goes before addresses and stable names.
	Prefix = "pciDevices/"
	// Kind is the type of the resource, for errors.
	Kind = "ashlar.v1/PciDevice"
	// callTimeout bounds the reading of all devices.
	callTimeout = 30 * time.Second
	// again is how long to wait after a reading that failed. Without a reason nothing is
	// read: reading configuration space wakes devices that sleep.
	again = 30 * time.Second
	// maxPages bounds what core may tell: far more devices than a machine has.
	maxPages = 1000
)

// Core is what a Manager asks.
type Core interface {
	Do(context.Context, hostcall.Call) (hostcall.Message, error)
}

// A Manager keeps the devices. Its methods may be called by many goroutines.
type Manager struct {
	core  Core
	feed  *feed.Feed
	log   *slog.Logger
	stale chan struct{} // what is known may be old
	owner func(uid string) string

	mu     sync.Mutex
	known  bool
	all    []*ashlarv1.PciDevice // by address; not written to
	byName map[string]*ashlarv1.PciDevice
}

// New makes a Manager that knows nothing yet.
func New(core Core, f *feed.Feed, log *slog.Logger) *Manager {
	return &Manager{core: core, feed: f, log: log, stale: make(chan struct{}, 1)}
}

// SetOwners says how to find the name of the virtual machine that core knows by uid. To be
// called before use.
func (m *Manager) SetOwners(name func(uid string) string) { m.owner = name }

// setOwners says in all who has what of devices.
func (m *Manager) setOwners(all []*ashlarv1.PciDevice, devices []hostcall.PCIDevice) {
	owners := map[string]string{}
	for _, d := range devices {
		if d.Owner != "" && m.owner != nil {
			owners[Prefix+d.Address] = m.owner(d.Owner)
		}
	}
	for _, d := range all {
		d.Owner = owners[d.Name]
	}
}

// Changed says that what is known may be old. It does not wait.
func (m *Manager) Changed() {
	select {
	case m.stale <- struct{}{}:
	default: // it is to be read anew already
	}
}

// Run reads the devices again and again, after each Changed, until ctx ends.
func (m *Manager) Run(ctx context.Context) {
	for {
		select {
		case <-m.stale:
			// A core that is away says so by itself when it is back.
			if err := m.read(ctx); err != nil && !refuse.IsDown(err) && ctx.Err() == nil {
				m.log.Warn("PCI devices are not known anew", "error", err, "again_in", again)
				time.AfterFunc(again, m.Changed)
			}
		case <-ctx.Done():
			return
		}
	}
}

// read asks core for all devices.
func (m *Manager) read(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var devices []hostcall.PCIDevice
	after := ""
	for range maxPages {
		msg, err := m.core.Do(ctx, hostcall.Call{Method: hostcall.PCIList, After: after})
		if err != nil {
			return err
		}
		if msg.PCI == nil {
			return errors.New("core answered without saying anything about PCI devices")
		}
		devices = append(devices, msg.PCI.Devices...)
		if !msg.PCI.More || len(msg.PCI.Devices) == 0 {
			all := resources(devices)
			m.setOwners(all, devices)
			m.take(all)
			return nil
		}
		after = devices[len(devices)-1].Address
	}
	return fmt.Errorf("core tells of more than %d PCI devices", len(devices))
}

// take makes these the devices that there are.
func (m *Manager) take(all []*ashlarv1.PciDevice) {
	byName := map[string]*ashlarv1.PciDevice{}
	for _, d := range all {
		byName[d.Name] = d
		for _, n := range d.StableNames {
			byName[Prefix+n] = d
		}
	}
	m.mu.Lock()
	old := m.all
	m.known, m.all, m.byName = true, all, byName
	m.mu.Unlock()
	for _, d := range old {
		if byName[d.Name] == nil {
			m.feed.Delete(d.Name)
		}
	}
	for _, d := range all {
		m.feed.Put(d.Name, d)
	}
}

// List returns all devices, by address. They are not to be written to.
func (m *Manager) List() ([]*ashlarv1.PciDevice, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.known {
		return nil, refuse.Down()
	}
	return m.all, nil
}

// Get returns the device with that name, its address or one that stays.
func (m *Manager) Get(name string) (*ashlarv1.PciDevice, error) {
	if !strings.HasPrefix(name, Prefix) || len(name) == len(Prefix) {
		return nil, refuse.Field("name", "write %sADDRESS, such as %[1]s0000:17:00.0, or a stable name in place of the address", Prefix)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.known {
		return nil, refuse.Down()
	}
	d := m.byName[name]
	if d == nil {
		return nil, refuse.NotFound(Kind, name)
	}
	return d, nil
}

// resources makes resources of devices: what several have to do with each other is told
// here, and names that several have are none.
func resources(devices []hostcall.PCIDevice) []*ashlarv1.PciDevice {
	count := map[string]int{}
	groups := map[int][]string{}
	functions := map[string][]hostcall.PCIDevice{}
	for _, d := range devices {
		for _, n := range d.Names {
			count[n]++
		}
		if d.Group >= 0 {
			groups[d.Group] = append(groups[d.Group], d.Address)
		}
		if d.Physical != "" {
			functions[d.Physical] = append(functions[d.Physical], d)
		}
	}
	out := make([]*ashlarv1.PciDevice, len(devices))
	for i, d := range devices {
		p := resource(d)
		for _, n := range d.Names {
			if count[n] == 1 {
				p.StableNames = append(p.StableNames, n)
			}
		}
		for _, address := range groups[d.Group] {
			if address != d.Address {
				p.GroupMembers = append(p.GroupMembers, Prefix+address)
			}
		}
		vfs := functions[d.Address]
		slices.SortFunc(vfs, func(a, b hostcall.PCIDevice) int { return a.VF - b.VF })
		for _, vf := range vfs {
			if p.Sriov != nil {
				p.Sriov.VirtualFunctions = append(p.Sriov.VirtualFunctions, Prefix+vf.Address)
			}
		}
		out[i] = p
	}
	slices.SortFunc(out, func(a, b *ashlarv1.PciDevice) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// uses are those that drivers/pci tells of.
var uses = map[string]ashlarv1.PciDevice_Use{
	"boot-disk":         ashlarv1.PciDevice_USE_BOOT_DISK,
	"data-disk":         ashlarv1.PciDevice_USE_DATA_DISK,
	"management-nic":    ashlarv1.PciDevice_USE_MANAGEMENT_NIC,
	"management-parent": ashlarv1.PciDevice_USE_MANAGEMENT_PARENT,
}

// resource is what d tells of itself.
func resource(d hostcall.PCIDevice) *ashlarv1.PciDevice {
	p := &ashlarv1.PciDevice{
		Name: Prefix + d.Address, ClassCode: int32(d.Class), VendorId: int32(d.Vendor), DeviceId: int32(d.Device),
		SubsystemVendorId: int32(d.SubsystemVendor), SubsystemDeviceId: int32(d.SubsystemDevice), Revision: int32(d.Revision),
		Driver: d.Driver, Node: known(d.Node), IommuGroup: known(d.Group), Parent: prefixed(d.Parent),
		ResetMethods: d.ResetMethods, PhysicalFunction: prefixed(d.Physical), VirtualFunction: int32(d.VF),
		AcsUnknown: !d.Extended, SerialNumber: d.SerialNumber, NvmeSerialNumber: d.NVMe,
	}
	if d.TotalVFs > 0 {
		p.Sriov = &ashlarv1.PciDevice_Sriov{TotalVfs: int32(d.TotalVFs), EnabledVfs: int32(d.VFs)}
	}
	if l := d.Link; l != nil {
		p.Link = &ashlarv1.PciDevice_Link{SpeedMts: int32(l.Speed), Width: int32(l.Width), MaxSpeedMts: int32(l.MaxSpeed), MaxWidth: int32(l.MaxWidth)}
	}
	for _, b := range d.BARs {
		p.Bars = append(p.Bars, &ashlarv1.PciDevice_Bar{Index: int32(b.Index), SizeBytes: b.Bytes, Io: b.IO, Wide: b.Wide, Prefetchable: b.Cached})
	}
	for _, address := range d.NoACS {
		p.WithoutAcs = append(p.WithoutAcs, Prefix+address)
	}
	for _, n := range d.Interfaces {
		p.NetworkInterfaces = append(p.NetworkInterfaces, &ashlarv1.PciDevice_NetworkInterface{Name: n.Name, MacAddress: n.MAC})
	}
	for _, u := range d.Uses {
		p.Uses = append(p.Uses, uses[u])
	}
	return p
}

// known is a number that is there unless it is negative.
func known(n int) *int32 {
	if n < 0 {
		return nil
	}
	v := int32(n)
	return &v
}

func prefixed(address string) string {
	if address == "" {
		return ""
	}
	return Prefix + address
}
