package hostdevice

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/ashlar-hv/ashlar/drivers/pci"
	"github.com/ashlar-hv/ashlar/drivers/vfio"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// Check refuses devices that could not be given to a guest, and lets those pass that another one
// has only as long as it runs.
func (s *Set) Check(guest string, want []hostcall.HostDevice) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	_, err := s.check(guest, want, true)
	return err
}

// CheckNames refuses what no device can be called, in the field.
func CheckNames(field string, want []hostcall.HostDevice) error {
	invalid := func(i int, f, wrong string) error {
		return &hostcall.Error{Code: hostcall.InvalidArgument, Field: fmt.Sprintf("%s[%d].%s", field, i, f), Message: fmt.Sprintf("The %s of a device %s.", f, wrong)}
	}
	if len(want) > hostcall.MaxHostDevices {
		return &hostcall.Error{Code: hostcall.InvalidArgument, Field: field,
			Message: fmt.Sprintf("A guest has at most %d devices of the host's, not %d.", hostcall.MaxHostDevices, len(want))}
	}
	for i, d := range want {
		if f, wrong := d.Check(); wrong != "" {
			return invalid(i, f, wrong)
		}
		for _, o := range want[:i] {
			if o.Number == d.Number {
				return invalid(i, "number", fmt.Sprintf("is %d twice: each has its own", d.Number))
			}
			if o.Name == d.Name {
				return invalid(i, "name", fmt.Sprintf("is %s twice: each is another one", d.Name))
			}
		}
	}
	return nil
}

// A checker collects what stands in the way of giving devices to a guest.
type checker struct {
	s     *Set
	inv   *pci.Inventory
	guest string
	// with are the addresses of all that the guest will have.
	with  []string
	wrong []hostcall.Violation
}

func (c *checker) refuse(r hostcall.Reason, device, format string, args ...any) {
	v := hostcall.Violation{Reason: r, Device: device, Message: fmt.Sprintf(format, args...)}
	if !slices.ContainsFunc(c.wrong, func(o hostcall.Violation) bool { return o.Reason == r && o.Device == device }) {
		c.wrong = append(c.wrong, v)
	}
}

// check finds the devices wanted, in their order, and says all that is wrong with them at once. With
// later, what another guest has is not wrong if it gives it up when it ends. The caller
// holds changing.
func (s *Set) check(guest string, want []hostcall.HostDevice, later bool) ([]*pci.Device, error) {
	if err := CheckNames("guest.devices", want); err != nil {
		return nil, err
	}
	inv, err := s.c.Find()
	if err != nil {
		return nil, err
	}
	c := &checker{s: s, inv: inv, guest: guest}
	found := make([]*pci.Device, len(want))
	for i, w := range want {
		if found[i], err = c.find(w); err != nil {
			return nil, err
		}
	}
	for _, h := range s.all() {
		if h.Guest != guest {
			continue
		}
		if i := slices.Index(c.with, h.Address); i >= 0 && !h.Idle && h.Number != want[i].Number {
			c.refuse(hostcall.Owned, h.Address, "The virtual machine has %s already.", h.Address)
		}
		c.with = append(c.with, h.Address)
	}
	remapped, err := vfio.Remapping()
	if err != nil {
		return nil, err
	}
	for i, d := range found {
		if d == nil {
			continue
		}
		c.host(d, remapped)
		c.one(d, want[i])
		c.owner(d.Address, later)
		if d.Group >= 0 {
			c.group(d, later)
		}
	}
	return found, hostcall.Refuse(c.wrong)
}

func missing(name string) hostcall.Violation {
	return hostcall.Violation{Reason: hostcall.DeviceMissing, Device: name,
		Message: fmt.Sprintf("The host has no device %s now: plug it in again, or take it out of the virtual machine.", name)}
}

// find finds a device; nil is one that was refused.
func (c *checker) find(w hostcall.HostDevice) (*pci.Device, error) {
	address, err := c.inv.Resolve(w.Name)
	var d *pci.Device
	if err == nil {
		d, err = c.inv.Read(address)
	}
	if errors.Is(err, fs.ErrNotExist) {
		c.wrong = append(c.wrong, missing(w.Name))
	} else if err != nil {
		c.refuse(hostcall.DeviceMissing, w.Name, "It is not certain which device %s is: %v. Name it by its path.", w.Name, err)
	}
	if err != nil {
		c.with = append(c.with, "")
		return nil, nil
	}
	if slices.Contains(c.with, address) {
		return nil, &hostcall.Error{Code: hostcall.InvalidArgument, Field: "guest.devices",
			Message: fmt.Sprintf("%s is the device %s, which is there by another name: name it once.", w.Name, address)}
	}
	c.with = append(c.with, address)
	return d, nil
}

// host refuses what the host as a whole cannot do.
func (c *checker) host(d *pci.Device, remapped bool) {
	switch {
	case d.Group < 0:
		c.refuse(hostcall.NoIOMMU, d.Address, "No IOMMU keeps %s to the memory of its guest: switch it on in the firmware's set-up (VT-d or AMD-Vi), and restart the host.", d.Address)
	case !remapped:
		c.refuse(hostcall.NoInterruptRemapping, d.Address, "The host does not remap interrupts, so that %s could raise those of others: switch interrupt remapping on in the firmware's set-up, and restart the host. The kernel is never told to do without.", d.Address)
	}
	if set := vfio.UnsafeAllowed(); len(set) > 0 {
		c.refuse(hostcall.NoInterruptRemapping, d.Address, "The kernel was told to do without interrupt remapping (%s): take that off its command line, and restart the host.", strings.Join(set, ", "))
	}
}

// hostUses are what the host uses devices for, in words.
var hostUses = map[pci.Use]string{
	pci.BootDisk:         "the host boots from a disk behind it",
	pci.DataDisk:         "the host's data disk is behind it",
	pci.ManagementNIC:    "the host is managed through it",
	pci.ManagementParent: "the host is managed through one of its virtual functions",
}

// one refuses what is wrong with a device by itself.
func (c *checker) one(d *pci.Device, w hostcall.HostDevice) {
	if d.Class>>16 == classBridge {
		c.refuse(hostcall.NotAssignable, d.Address, "%s is a bridge, which no guest can have: name the devices behind it.", d.Address)
	}
	if w.Vendor != 0 && (w.Vendor != d.Vendor || w.Device != d.Device) {
		c.refuse(hostcall.OtherDevice, d.Address, "At %s is %04x:%04x now and not %04x:%04x, which the virtual machine was given: detach it, and attach what you want it to have.", d.Address, d.Vendor, d.Device, w.Vendor, w.Device)
	}
	for _, u := range d.Uses {
		c.refuse(hostcall.UsedByHost, d.Address, "The host needs %s itself: %s. Choose another device.", d.Address, hostUses[u])
	}
	if d.SRIOV != nil && d.SRIOV.Enabled > 0 {
		c.refuse(hostcall.HasVFs, d.Address, "%s has %d virtual functions, which end with it: remove them first, or give one of them to the virtual machine.", d.Address, d.SRIOV.Enabled)
	}
	if len(d.ResetMethods) == 0 && !w.AllowNoReset {
		c.refuse(hostcall.NoReset, d.Address, "%s cannot be reset, so that nobody would know what one owner leaves it to do for the next: choose another device, or allow that (allow_no_reset), and it stays with the virtual machine until the host is restarted.", d.Address)
	}
}

// classBridge is the class of bridges, of 8 bits.
const classBridge = 0x06

// owner refuses a device that another guest has.
func (c *checker) owner(address string, later bool) {
	c.s.mu.Lock()
	h, held := c.s.held[address]
	c.s.mu.Unlock()
	if !held || h.Guest == c.guest {
		return
	}
	who := c.s.c.NameOf(h.Guest)
	if who == "" {
		who = h.Guest
	}
	switch {
	case h.NoReset:
		c.refuse(hostcall.Owned, address, "%s was given to the virtual machine %s and cannot be reset: it is free again when the host has been restarted.", address, who)
	case !later:
		c.refuse(hostcall.Owned, address, "%s is the virtual machine %s's: detach it there, or stop that one first.", address, who)
	}
}

// group refuses a device that cannot be told apart from what does not go to the same guest.
func (c *checker) group(d *pci.Device, later bool) {
	members := c.inv.Group(d.Group)
	for _, m := range members {
		if m.Bridge || slices.Contains(c.with, m.Address) {
			continue
		}
		why := "give it to the virtual machine, too"
		if len(m.Uses) > 0 {
			why = "but " + hostUses[m.Uses[0]] + ": plug one of the two in elsewhere"
		}
		c.refuse(hostcall.GroupShared, m.Address, "The IOMMU cannot tell %s from %s (group %d): %s.", d.Address, m.Address, d.Group, why)
		c.owner(m.Address, later)
	}
	if !d.Extended {
		c.refuse(hostcall.ACSMissing, d.Address, "Whether %s is kept from others cannot be told: its configuration space cannot be read.", d.Address)
	}
	// The kernel puts a bridge that does not isolate into the group of what is behind it; it
	// knows some that isolate without telling. Functions of the device itself are seen to above.
	for _, at := range d.NoACS {
		if at != d.Address && slices.ContainsFunc(members, func(m pci.Member) bool { return m.Address == at }) {
			c.refuse(hostcall.ACSMissing, at, "%s, on the way from %s to the root, lets devices reach others around the IOMMU (no Access Control Services): plug the device in elsewhere.", at, d.Address)
		}
	}
}
