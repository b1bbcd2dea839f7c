package machine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/operation"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

const (
	// devicePrefix goes before the names of PCI devices.
	devicePrefix = "pciDevices/"
	// takingTime is how long core may take to get devices from the host's drivers, and to
	// allocate all of a guest's memory for them.
	takingTime = 10 * time.Minute
)

// SetDevices says how to find a PCI device by its address or a stable name. To be called
// before use.
func (g *Manager) SetDevices(find func(name string) (*ashlarv1.PciDevice, error)) {
	g.findDevice = find
}

// NameOf is the name of the machine that core knows by uid, "" where there is none.
func (g *Manager) NameOf(uid string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if m := g.byUID[uid]; m != nil {
		return m.Name()
	}
	return ""
}

// stableName is the name that a device is kept by: the one that was asked for, if it stays
// also when another driver has the device, else the serial number for one that names what
// is on the device, else where it is.
func stableName(d *ashlarv1.PciDevice, asked string) string {
	asked = strings.TrimPrefix(asked, devicePrefix)
	best := ""
	for _, n := range d.GetStableNames() {
		kind, _, _ := strings.Cut(n, "-")
		switch {
		case kind != "path" && kind != "dsn":
		case n == asked:
			return n
		case best == "", kind == "dsn" && asked != strings.TrimPrefix(d.GetName(), devicePrefix):
			best = n
		}
	}
	return best
}

// hostDevice checks a device of the host's that a machine is to have. An error is one that
// says nothing about the request.
func (g *Manager) hostDevice(c *checker, field string, d *ashlarv1.HostDevice) (store.HostDevice, error) {
	out := store.HostDevice{HostDevice: hostcall.HostDevice{AllowNoReset: d.GetAllowNoReset(), ROM: d.GetRom()}}
	name := d.GetDevice()
	if name == "" {
		c.bad(field+".device", "is missing: name a PCI device of the host, as %s0000:17:00.0 or by a stable name", devicePrefix)
		return out, nil
	}
	found, err := g.findDevice(name)
	switch code := connect.CodeOf(err); {
	case err == nil:
	case code == connect.CodeNotFound, code == connect.CodeInvalidArgument:
		c.bad(field+".device", "is %.80q: the host has no PCI device of that name; ListPciDevices tells which there are", name)
		return out, nil
	default:
		return out, err
	}
	out.Name, out.Vendor, out.Device = stableName(found, name), int(found.GetVendorId()), int(found.GetDeviceId())
	if out.Name == "" {
		c.bad(field+".device", "is %.80q: it has no name that stays and is of it alone", name)
	}
	return out, nil
}

// devices checks those of the host's that a new machine is to have.
func (g *Manager) devices(c *checker, vm *ashlarv1.VirtualMachine, rec *store.VM) error {
	if len(vm.Devices) > hostcall.MaxHostDevices {
		c.bad(".devices", "has %d: at most %d", len(vm.Devices), hostcall.MaxHostDevices)
		return nil
	}
	for i, d := range vm.Devices {
		field := fmt.Sprintf(".devices[%d]", i)
		out, err := g.hostDevice(c, field, d)
		if err != nil {
			return err
		}
		if out.Name != "" && slices.ContainsFunc(rec.Devices, func(o store.HostDevice) bool { return o.Name == out.Name }) {
			c.bad(field+".device", "%s stands there twice", out.Name)
		}
		out.Number = i
		rec.Devices = append(rec.Devices, out)
	}
	if len(rec.Devices) > 0 && rec.BalloonBytes > 0 {
		c.bad(".balloon_bytes", "is %d: 0 with devices of the host's, which reach all of the memory by themselves, so that none can be given back", rec.BalloonBytes)
	}
	return nil
}

// checkDevices asks core whether the devices of rec could be given to it.
func (g *Manager) checkDevices(ctx context.Context, rec store.VM, also ...store.HostDevice) error {
	all := slices.DeleteFunc(slices.Clone(rec.Devices), func(d store.HostDevice) bool { return d.Phase != store.Ready })
	if all = append(all, also...); len(all) == 0 {
		return nil
	}
	call := hostcall.Call{Method: hostcall.GuestCheckDevices, ID: rec.UID}
	for _, d := range all {
		call.HostDevices = append(call.HostDevices, d.HostDevice)
	}
	_, err := g.ask(ctx, call)
	return refuse.Core(err, Prefix+rec.ID, nil)
}

// Start orders a start. What core can say against the devices at once is the answer.
func (g *Manager) Start(o Order) (*operation.Op, error) {
	if m, err := g.Find(o.Name); err == nil {
		m.mu.Lock()
		rec, begun := m.rec, m.alive()
		m.mu.Unlock()
		if !begun {
			if err := g.checkDevices(g.context(), rec); connect.CodeOf(err) == connect.CodeFailedPrecondition {
				return g.refusedAs(o, err)
			}
		}
	}
	return g.submit(kindStart, o)
}

// context ends with Run.
func (g *Manager) context() context.Context {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ctx == nil {
		return context.Background()
	}
	return g.ctx
}

// AttachDevice orders a device of the host's for a machine.
func (g *Manager) AttachDevice(ctx context.Context, o Order, d *ashlarv1.HostDevice) (*operation.Op, error) {
	m, err := g.Find(o.Name)
	if err != nil {
		return g.refusedAs(o, err)
	}
	c := &checker{root: "device"}
	out, err := g.hostDevice(c, "", d)
	if err == nil {
		err = refuse.Invalid(c.wrong...)
	}
	if err == nil {
		m.mu.Lock()
		rec := m.rec
		m.mu.Unlock()
		// The check wants numbers that differ, whatever they will be.
		numbered := out
		for slices.ContainsFunc(rec.Devices, func(o store.HostDevice) bool { return o.Number == numbered.Number }) {
			numbered.Number++
		}
		if numbered.Number < hostcall.MaxHostDevices && !hasDevice(rec, out.Name) {
			err = g.checkDevices(ctx, rec, numbered)
		}
	}
	if err != nil {
		return g.refusedAs(o, err)
	}
	o.NewDevice = &out
	return g.submit(kindAttachDevice, o)
}

// DetachDevice orders the end of a device of the host's in a machine.
func (g *Manager) DetachDevice(o Order, number int) (*operation.Op, error) {
	o.Device = hostcall.DeviceName(hostcall.VFIOKind, number)
	return g.submit(kindDetachDevice, o)
}

func hasDevice(rec store.VM, name string) bool {
	return slices.ContainsFunc(rec.Devices, func(d store.HostDevice) bool { return d.Name == name })
}

// mayHave refuses a device that the machine has or is getting, and any where it has a balloon.
// mu is held.
func (m *Machine) mayHave(d *store.HostDevice) error {
	getting := func(op *operation.Op) bool {
		n := op.Record().NewDevice
		return n != nil && n.Name == d.Name
	}
	switch {
	case hasDevice(m.rec, d.Name), slices.ContainsFunc(m.pendingOps(), getting):
		return refuse.Field("device.device", "%s has %s already", m.Name(), d.Name)
	case m.rec.BalloonBytes > 0:
		return refuse.Precondition(refuse.WrongState, m.Name(),
			fmt.Sprintf("%s gives memory back to the host (balloon_bytes), which one with devices of the host's cannot: set its balloon to 0 first", m.Name()))
	}
	return nil
}

// plugDevice makes core give a device to a guest that runs; the next start of another brings it.
func (m *Machine) plugDevice(d *store.HostDevice) error {
	device := d.HostDevice
	err := m.insist(m.g.ctx, hostcall.Call{Method: hostcall.GuestAttachDevice, ID: m.uid, NewDevice: &device}, m.Alive)
	var he *hostcall.Error
	if err != nil && m.hasEnded() && (!errors.As(err, &he) || len(he.Violations) == 0) {
		return nil
	}
	return err
}

// devicesProto is the recorded part of devices.
func devicesProto(rec store.VM) (all []*ashlarv1.HostDevice) {
	for _, d := range rec.Devices {
		if d.Phase == store.Ready {
			all = append(all, &ashlarv1.HostDevice{Device: devicePrefix + d.Name, Number: int32(d.Number), AllowNoReset: d.AllowNoReset, Rom: d.ROM})
		}
	}
	return all
}

// seeDevices adds what core sees of the devices of a guest that runs. mu is held.
func (m *Machine) seeDevices(p *ashlarv1.VirtualMachine) {
	for _, d := range p.Devices {
		i := slices.IndexFunc(m.seen.Devices, func(h hostcall.HeldDevice) bool { return h.Number == int(d.Number) })
		if i < 0 {
			continue
		}
		held := m.seen.Devices[i]
		d.Address, d.Fault = devicePrefix+held.Address, held.Fault
		if !held.FaultTime.IsZero() {
			d.FaultTime = timestamppb.New(held.FaultTime)
		}
	}
}
