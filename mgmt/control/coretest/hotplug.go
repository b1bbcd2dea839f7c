package coretest

import (
	"slices"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

func nicNumbers(nics []hostcall.NIC) (numbers []int) {
	for _, n := range nics {
		numbers = append(numbers, n.Number)
	}
	return numbers
}

// plugAll notes what a guest is started with: its disks are those that there are.
func (g *guest) plugAll(spec *hostcall.Guest) error {
	g.devices = nil
	if !slices.Equal(slices.Sorted(slices.Values(g.numbers)), slices.Sorted(slices.Values(spec.DiskNumbers))) {
		return refusal(hostcall.FailedPrecondition, "started with disks %v, has %v", spec.DiskNumbers, g.numbers)
	}
	for _, n := range spec.DiskNumbers {
		g.devices = append(g.devices, protocol.PluggedDevice{Name: hostcall.DeviceName(hostcall.DiskKind, n)})
	}
	for _, n := range spec.NICs {
		g.devices = append(g.devices, protocol.PluggedDevice{Name: hostcall.DeviceName(hostcall.NICKind, n.Number)})
	}
	for i, d := range spec.Devices {
		g.devices = append(g.devices, protocol.PluggedDevice{Name: hostcall.DeviceName(hostcall.VFIOKind, d.Number), Slot: 1 + i})
	}
	return nil
}

// find is the place of a device, -1 for none.
func (g *guest) find(device string) int {
	return slices.IndexFunc(g.devices, func(d protocol.PluggedDevice) bool { return d.Name == device })
}

// plug puts a device into a slot. That it is there already is no error.
func (g *guest) plug(device string) error {
	taken := 1
	for _, d := range g.devices {
		taken = max(taken, d.Slot+1)
	}
	switch {
	case g.find(device) >= 0:
		return nil
	case taken > g.spec.HotplugSlots+len(g.spec.Devices):
		return refusal(hostcall.FailedPrecondition, "All %d hot-plug slots of the guest are taken.", taken-1)
	}
	g.devices = append(g.devices, protocol.PluggedDevice{Name: device, Slot: taken})
	return nil
}

// hotplug attaches and detaches. mu is held.
func (c *Core) hotplug(g *guest, call hostcall.Call, runs bool) error {
	switch call.Method {
	case hostcall.GuestAttachDisk:
		return c.attachDisk(g, call, runs)
	case hostcall.GuestAttachNIC:
		if !runs {
			return refusal(hostcall.FailedPrecondition, "does not run")
		}
		return g.plug(hostcall.DeviceName(hostcall.NICKind, call.NewNIC.Number))
	case hostcall.GuestAttachDevice:
		if !runs {
			return refusal(hostcall.FailedPrecondition, "does not run")
		}
		return c.attachDevice(g, *call.NewDevice)
	case hostcall.GuestDetach:
		i := g.find(call.Device)
		switch {
		case !runs || i < 0:
			return refusal(hostcall.FailedPrecondition, "has no %s", call.Device)
		case c.stubborn && !call.Force:
			g.devices[i].Detaching = true
		default:
			g.devices = slices.Delete(g.devices, i, i+1)
		}
	case hostcall.GuestDrop:
		if runs && g.find(call.Device) >= 0 {
			return refusal(hostcall.FailedPrecondition, "has %s", call.Device)
		}
		kind, number, _ := hostcall.ParseDevice(call.Device)
		if kind == hostcall.VFIOKind {
			c.dropDevice(g, number)
		}
		if i := slices.Index(g.numbers, number); i >= 0 && kind == hostcall.DiskKind {
			g.numbers, g.disks = slices.Delete(slices.Clone(g.numbers), i, i+1), slices.Delete(slices.Clone(g.disks), i, i+1)
		}
	}
	return nil
}

// attachDisk makes a disk, unless it is there. mu is held.
func (c *Core) attachDisk(g *guest, call hostcall.Call, runs bool) error {
	d := call.Disks[0]
	if d.Image != "" && (c.images[d.Image] == nil || !c.images[d.Image].Sealed) {
		return &hostcall.Error{Code: hostcall.NotFound, Field: "disks[0].image", Message: "no such image"}
	}
	if runs {
		if err := g.plug(hostcall.DeviceName(hostcall.DiskKind, call.Disk)); err != nil {
			return err
		}
	}
	if !slices.Contains(g.numbers, call.Disk) {
		g.numbers, g.disks = append(slices.Clone(g.numbers), call.Disk), append(slices.Clone(g.disks), d)
	}
	return nil
}

// Devices are what the guest has.
func (c *Core) Devices(id string) []protocol.PluggedDevice {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g := c.guests[id]; g != nil {
		return slices.Clone(g.devices)
	}
	return nil
}

// GiveUpDevice lets the guest give a device up.
func (c *Core) GiveUpDevice(id, device string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g := c.guests[id]; g != nil {
		g.devices = slices.DeleteFunc(g.devices, func(d protocol.PluggedDevice) bool { return d.Name == device })
	}
}

// Disks are the numbers of the disks that there are.
func (c *Core) Disks(id string) []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g := c.guests[id]; g != nil {
		return slices.Sorted(slices.Values(g.numbers))
	}
	return nil
}
