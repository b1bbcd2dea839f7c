package machine

import (
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	inventory "github.com/ashlar-hv/ashlar/mgmt/control/device"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// SetLinks says how to find a link of the host by its name or a stable one. To be called
// before use.
func (g *Manager) SetLinks(find func(name string) (*ashlarv1.Link, error)) { g.findLink = find }

// function checks a virtual function that a machine is to have. An error is one that says
// nothing about the request.
func (g *Manager) function(c *checker, field string, f *ashlarv1.VirtualFunction) (*hostcall.VF, error) {
	out := &hostcall.VF{}
	mac := ""
	if f.MacAddress != "" {
		var wrong string
		if mac, wrong = parseMAC(f.MacAddress); wrong != "" {
			c.bad(field+".mac_address", "%s", wrong)
		}
	}
	var at, wrong string
	if out.VFSettings, at, wrong = inventory.ParseSettings(f); wrong != "" && at != "mac_address" {
		c.bad(field+"."+at, "%s", wrong)
	}
	out.MAC = mac
	if len(f.Links) == 0 || len(f.Links) > hostcall.MaxLinks {
		c.bad(field+".links", "has %d: name 1 to %d links of the host, as %seth1 or by stable names", len(f.Links), hostcall.MaxLinks, inventory.LinkPrefix)
		return out, nil
	}
	for i, name := range f.Links {
		place, err := g.place(c, fmt.Sprintf("%s.links[%d]", field, i), name)
		if err != nil {
			return out, err
		}
		if place != "" && slices.Contains(out.Links, place) {
			c.bad(fmt.Sprintf("%s.links[%d]", field, i), "%s stands there twice", name)
		}
		out.Links = append(out.Links, place)
	}
	return out, nil
}

// place finds where a link is plugged in; "" where what is wrong has been said.
func (g *Manager) place(c *checker, field, name string) (string, error) {
	l, err := g.findLink(name)
	switch code := connect.CodeOf(err); {
	case code == connect.CodeNotFound, code == connect.CodeInvalidArgument:
		c.bad(field, "is %.80q: the host has no link of that name; ListLinks tells which there are", name)
		return "", nil
	case err != nil:
		return "", err
	case l.TotalFunctions == 0:
		c.bad(field, "is %.80q, which cannot have virtual functions: it has no SR-IOV, or that is switched off in the firmware's setup", name)
		return "", nil
	}
	place := inventory.Place(l.StableNames)
	if place == "" {
		c.bad(field, "is %.80q: it has no name that stays and is of it alone", name)
	}
	return place, nil
}

// functionProto is the recorded part of a virtual function.
func functionProto(f *hostcall.VF) *ashlarv1.VirtualFunction {
	if f == nil {
		return nil
	}
	out := inventory.Settings(f.VFSettings)
	for _, place := range f.Links {
		out.Links = append(out.Links, inventory.LinkPrefix+place)
	}
	return out
}

// An address is a MAC address that a machine has or is to have.
type address struct {
	mac   *string
	field string // of a virtual machine
	place int    // among all that there may be: what is derived depends on it
}

// addresses are those of a record, which are its own.
func addresses(rec *store.VM) (all []address) {
	for i := range rec.NICs {
		all = append(all, address{&rec.NICs[i].MAC, fmt.Sprintf("network_interfaces[%d]", i), i})
	}
	for i := range rec.Devices {
		if f := rec.Devices[i].VF; f != nil {
			all = append(all, address{&f.MAC, fmt.Sprintf("devices[%d].virtual_function", i), hostcall.MaxNICs + i})
		}
	}
	return all
}

// ownAddresses makes the addresses of rec its own, so that they can be written to.
func ownAddresses(rec *store.VM) {
	rec.NICs, rec.Devices = slices.Clone(rec.NICs), slices.Clone(rec.Devices)
	for i := range rec.Devices {
		rec.Devices[i] = ownFunction(rec.Devices[i])
	}
}

func ownFunction(d store.HostDevice) store.HostDevice {
	if d.VF != nil {
		f := *d.VF
		d.VF = &f
	}
	return d
}

// newAddress is the address that an operation attaches, "" for none.
func newAddress(op store.Operation) string {
	switch {
	case op.NewNIC != nil:
		return op.NewNIC.MAC
	case op.NewDevice != nil && op.NewDevice.VF != nil:
		return op.NewDevice.VF.MAC
	}
	return ""
}

// nameFunction gives a virtual function that is attached its address, which is taken from then
// on. Manager.mu and mu are held.
func (m *Machine) nameFunction(d *store.HostDevice) error {
	*d = ownFunction(*d)
	if m.g.macs[d.VF.MAC] {
		return refuse.Field("device.virtual_function.mac_address", "%s is in use already: choose another one, or leave it empty", d.VF.MAC)
	}
	for try := 0; d.VF.MAC == ""; try++ {
		if mac := derivedMAC(m.uid, hostcall.MaxNICs+d.Number, try); !m.g.macs[mac] {
			d.VF.MAC = mac
		}
	}
	m.g.macs[d.VF.MAC] = true
	return nil
}

// vfFields are the fields of a virtual function in the API by those in a call.
var vfFields = map[string]string{
	".vf.mac": ".virtual_function.mac_address", ".vf.vlan": ".virtual_function.vlan", ".vf.qos": ".virtual_function.qos",
	".vf.maxRate": ".virtual_function.max_rate_mbps", ".vf.state": ".virtual_function.link_state",
}

// vfField turns the end of a field that is about a virtual function into that of the API.
func vfField(field string) string {
	before, _, ok := strings.Cut(field, ".vf")
	if !ok {
		return field
	}
	if to := vfFields[strings.TrimPrefix(field, before)]; to != "" {
		return before + to
	}
	return before + ".virtual_function.links"
}
