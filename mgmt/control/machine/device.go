package machine

import (
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/operation"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// defaultSlots is how many hot-plug slots a new machine has where nothing is said.
const defaultSlots = 4

// slots checks how many hot-plug slots are asked for.
func (c *checker) slots(vm *ashlarv1.VirtualMachine, rec *store.VM) {
	rec.HotplugSlots = defaultSlots
	if vm.HotplugSlots == nil {
		return
	}
	if rec.HotplugSlots = int(*vm.HotplugSlots); rec.HotplugSlots < 0 || rec.HotplugSlots > protocol.MaxHotplugSlots {
		c.bad(".hotplug_slots", "is %d: 0 to %d", rec.HotplugSlots, protocol.MaxHotplugSlots)
	}
}

// numberDevices gives the devices of a record from before there were numbers theirs.
func numberDevices(rec *store.VM) {
	hostcall.Number(rec.Disks, func(d *store.Disk) *int { return &d.Number })
	hostcall.Number(rec.NICs, func(n *store.NIC) *int { return &n.Number })
}

// A device is what of a disk or NIC of a record both have.
type device struct {
	kind   hostcall.DeviceKind
	number int
	phase  store.Phase
}

func (d device) name() string { return hostcall.DeviceName(d.kind, d.number) }

// devices are those of rec, half-made and half-removed ones too.
func devices(rec store.VM) (all []device) {
	for _, d := range rec.Disks {
		all = append(all, device{hostcall.DiskKind, d.Number, d.Phase})
	}
	for _, n := range rec.NICs {
		all = append(all, device{hostcall.NICKind, n.Number, n.Phase})
	}
	for _, d := range rec.Devices {
		all = append(all, device{hostcall.VFIOKind, d.Number, d.Phase})
	}
	return all
}

// device finds one by its name. mu is held.
func (m *Machine) device(name string) (device, bool) {
	all := devices(m.rec)
	if i := slices.IndexFunc(all, func(d device) bool { return d.name() == name }); i >= 0 {
		return all[i], true
	}
	return device{}, false
}

// place is where the machine's disk of that number stands, -1 for none.
func place(disks []store.Disk, number int) int {
	return slices.IndexFunc(disks, func(d store.Disk) bool { return d.Number == number && d.Phase == store.Ready })
}

// kindWords are what the kinds of devices are called.
var kindWords = map[hostcall.DeviceKind]string{hostcall.DiskKind: "disk", hostcall.NICKind: "network interface", hostcall.VFIOKind: "device"}

// has says which devices of a kind there are. mu is held.
func (m *Machine) has(kind hostcall.DeviceKind) string {
	word := kindWords[kind]
	var numbers []string
	for _, d := range devices(m.rec) {
		if d.kind == kind && d.phase == store.Ready {
			numbers = append(numbers, fmt.Sprint(d.number))
		}
	}
	switch len(numbers) {
	case 0:
		return fmt.Sprintf("%s has no %s", m.Name(), word)
	case 1:
		return fmt.Sprintf("%s has %s %s only", m.Name(), word, numbers[0])
	}
	return fmt.Sprintf("%s has %ss %s", m.Name(), word, strings.Join(numbers, ", "))
}

// pendingOps are all that is under way or waits. mu is held.
func (m *Machine) pendingOps() (all []*operation.Op) {
	if m.current != nil {
		all = append(all, m.current)
	}
	return append(all, m.queue...)
}

// attaching is what an operation attaches, if it does.
func attaching(op store.Operation) (d device, ok bool) {
	switch {
	case op.NewDisk != nil:
		return device{kind: hostcall.DiskKind, number: op.NewDisk.Number}, true
	case op.NewNIC != nil:
		return device{kind: hostcall.NICKind, number: op.NewNIC.Number}, true
	case op.NewDevice != nil:
		return device{kind: hostcall.VFIOKind, number: op.NewDevice.Number}, true
	}
	return device{}, false
}

// taken are the numbers of a kind that a new device cannot have, each once. mu is held.
func (m *Machine) taken(kind hostcall.DeviceKind) (numbers []int) {
	all := devices(m.rec)
	for _, op := range m.pendingOps() {
		if d, ok := attaching(op.Record()); ok {
			all = append(all, d)
		}
	}
	for _, d := range all {
		if d.kind == kind && !slices.Contains(numbers, d.number) {
			numbers = append(numbers, d.number)
		}
	}
	return numbers
}

// free is the smallest number of a kind that a new device can have. mu is held.
func (m *Machine) free(kind hostcall.DeviceKind) (n int) {
	for taken := m.taken(kind); slices.Contains(taken, n); n++ {
	}
	return n
}

// canAttach refuses one more than there can be. mu is held.
func (m *Machine) canAttach(kind string, o Order) error {
	device, most, words := hostcall.DiskKind, maxDisks, "disks"
	switch kind {
	case kindAttachNIC:
		device, most, words = hostcall.NICKind, maxNICs, "network interfaces"
	case kindAttachDevice:
		if err := m.mayHave(o.NewDevice); err != nil {
			return err
		}
		device, most, words = hostcall.VFIOKind, hostcall.MaxHostDevices, "devices of the host"
	}
	if len(m.taken(device)) >= most {
		return refuse.New(connect.CodeResourceExhausted, refuse.LimitReached,
			fmt.Sprintf("%s has %d %s, the most there may be: detach one first", m.Name(), most, words))
	}
	return nil
}

// canDetach refuses what is not there or cannot be given up. mu is held.
func (m *Machine) canDetach(o Order, will stand) error {
	d, ok := m.device(o.Device)
	if !ok || d.phase != store.Ready {
		if kind, number, _ := hostcall.ParseDevice(o.Device); kind != hostcall.DiskKind {
			return refuse.Field(strings.ReplaceAll(kindWords[kind], " ", "_"), "is %d: %s", number, m.has(kind))
		}
		return m.noDisk(o.Disk)
	}
	for _, op := range m.pendingOps() {
		if rec := op.Record(); rec.Device == o.Device && (rec.Force || !o.Force) {
			return refuse.Precondition(refuse.WrongState, m.Name(), fmt.Sprintf("%s of %s is being detached by %s%s", o.Device, m.Name(), operation.Prefix, rec.ID))
		}
	}
	if will == paused && !o.Force {
		return refuse.Precondition(refuse.WrongState, m.Name(), m.Name()+" is paused and cannot give anything up: resume it, or detach with force")
	}
	return nil
}

// name gives what o attaches its number, and a NIC its address, which is taken from then
// on. Manager.mu and mu are held.
func (m *Machine) name(o *Order) error {
	if o.NewDisk != nil {
		d := *o.NewDisk
		d.Number = m.free(hostcall.DiskKind)
		o.NewDisk = &d
	}
	if o.NewDevice != nil {
		d := *o.NewDevice
		d.Number = m.free(hostcall.VFIOKind)
		o.NewDevice = &d
	}
	if o.NewNIC == nil {
		return nil
	}
	n := *o.NewNIC
	n.Number = m.free(hostcall.NICKind)
	if m.g.macs[n.MAC] {
		return refuse.Field("network_interface.mac_address", "%s is in use already: choose another one, or leave it empty", n.MAC)
	}
	for try := 0; n.MAC == ""; try++ {
		if mac := derivedMAC(m.uid, n.Number, try); !m.g.macs[mac] {
			n.MAC = mac
		}
	}
	m.g.macs[n.MAC] = true
	o.NewNIC = &n
	return nil
}

// unname lets go of the address of a NIC that has not come to be.
func (m *Machine) unname(op store.Operation) {
	if op.NewNIC == nil {
		return
	}
	m.g.mu.Lock()
	defer m.g.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.ContainsFunc(m.rec.NICs, func(n store.NIC) bool { return n.MAC == op.NewNIC.MAC }) {
		delete(m.g.macs, op.NewNIC.MAC)
	}
}

// willClone reports whether an operation is to make a disk from the image. mu is held.
func (m *Machine) willClone(imageID string) bool {
	return slices.ContainsFunc(m.pendingOps(), func(op *operation.Op) bool {
		d := op.Record().NewDisk
		return d != nil && d.Image == imageID
	})
}

// setPhase records where a device is.
func (m *Machine) setPhase(d device, phase store.Phase) error {
	return m.save(func(rec *store.VM) {
		rec.Disks, rec.NICs, rec.Devices = slices.Clone(rec.Disks), slices.Clone(rec.NICs), slices.Clone(rec.Devices)
		for i := range rec.Disks {
			if d.kind == hostcall.DiskKind && rec.Disks[i].Number == d.number {
				rec.Disks[i].Phase = phase
			}
		}
		for i := range rec.NICs {
			if d.kind == hostcall.NICKind && rec.NICs[i].Number == d.number {
				rec.NICs[i].Phase = phase
			}
		}
		for i := range rec.Devices {
			if d.kind == hostcall.VFIOKind && rec.Devices[i].Number == d.number {
				rec.Devices[i].Phase = phase
			}
		}
	})
}

// forgetDevice takes a device out of the record.
func (m *Machine) forgetDevice(d device) error {
	mac := ""
	err := m.save(func(rec *store.VM) {
		if d.kind == hostcall.DiskKind {
			rec.Disks = slices.DeleteFunc(slices.Clone(rec.Disks), func(o store.Disk) bool { return o.Number == d.number })
			return
		}
		if d.kind == hostcall.VFIOKind {
			rec.Devices = slices.DeleteFunc(slices.Clone(rec.Devices), func(o store.HostDevice) bool { return o.Number == d.number })
			return
		}
		rec.NICs = slices.DeleteFunc(slices.Clone(rec.NICs), func(o store.NIC) bool {
			if o.Number == d.number {
				mac = o.MAC
			}
			return o.Number == d.number
		})
	})
	if err == nil && mac != "" {
		m.g.mu.Lock()
		delete(m.g.macs, mac)
		m.g.mu.Unlock()
	}
	return err
}
