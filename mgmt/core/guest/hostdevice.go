package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ashlar-hv/ashlar/drivers/vfio"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostdevice"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"golang.org/x/sys/unix"
)

// devicePatience is how long a VMM may take to map all memory for a device: every page is
// allocated for it, and 64 MiB a second are the least there can be.
func devicePatience(memory uint64) time.Duration {
	return (&protocol.Backing{Populate: true}).PopulateTime(memory)
}

// checkHostDevices validates what is said of the host's devices in g, besides what they are.
func checkHostDevices(g *hostcall.Guest) error {
	if len(g.Devices) > 0 && g.BalloonBytes > 0 {
		return &hostcall.Error{Code: hostcall.InvalidArgument, Field: "guest.balloonBytes",
			Message: "A guest with devices of the host's gives no memory back: they reach all of it by themselves."}
	}
	return hostdevice.CheckNames("guest.devices", g.Devices)
}

// CheckDevices refuses devices that could not be given to a guest (hostcall.GuestCheckDevices).
func (m *Manager) CheckDevices(id string, devices []hostcall.HostDevice) error {
	return m.devices.Check(id, devices)
}

// DeviceOwners are the guests that have devices of the host's, by the addresses of these.
func (m *Manager) DeviceOwners() map[string]string { return m.devices.Owners() }

// NameOf is the name of a guest that runs, "" of others.
func (m *Manager) NameOf(id string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.running[id]; r != nil {
		return r.rec.Name
	}
	return ""
}

// heldDevices are the devices of the host's that a guest has.
func (m *Manager) heldDevices(id string) (out []hostcall.HeldDevice) {
	for _, h := range m.devices.Of(id) {
		out = append(out, hostcall.HeldDevice{Number: h.Number, Address: h.Address, Fault: h.Fault, FaultTime: h.FaultTime})
	}
	return out
}

// returnTime is how long the devices of a guest may take to go back to the host.
func (m *Manager) returnTime(id string) time.Duration {
	if len(m.devices.Of(id)) == 0 {
		return 0
	}
	return 2 * vfio.Patience
}

// hotSlots is how many slots a guest has: those that were asked for stay free at the start, and
// devices of the host's are in others, as far as there can be more, so that they can be
// taken away while it runs.
func hotSlots(g *hostcall.Guest) int {
	if g.HotplugSlots == 0 {
		return 0
	}
	return min(g.HotplugSlots+len(g.Devices), protocol.MaxHotplugSlots)
}

// gatherVFIO has the devices of g taken from the host, and opens them. A guest with slots can get some
// later, where the host could give any.
func (m *Manager) gatherVFIO(r *run, g *hostcall.Guest, spec *protocol.Spec, l *fileList) error {
	spec.HotplugSlots = r.rec.HotplugSlots
	if len(g.Devices) == 0 {
		if r.rec.VFIO {
			spec.VFIO = &protocol.VFIO{}
		}
		return nil
	}
	held, err := m.devices.Take(r.rec.ID, g.Devices, hostNodes(g.NUMA))
	if err != nil {
		return err
	}
	spec.VFIO = &protocol.VFIO{}
	byNode := !slices.ContainsFunc(held, func(h hostdevice.Held) bool { return vfio.Node(h.Address) == "" })
	var groups []int
	for i, h := range held {
		d, err := openHost(h, byNode, slices.Contains(groups, h.Group), l)
		if err != nil {
			return err
		}
		groups = append(groups, h.Group)
		d.Slot = i < r.rec.HotplugSlots-g.HotplugSlots
		spec.VFIO.Devices = append(spec.VFIO.Devices, d)
	}
	spec.VFIO.IOMMUFD, spec.VFIO.Container, err = openMemory(byNode, l)
	return err
}

// hostNodes are the host's NUMA nodes that memory is bound to, none where some is not.
func hostNodes(numa []protocol.NUMANode) (nodes []int) {
	for _, n := range numa {
		if len(n.HostNodes) == 0 {
			return nil
		}
		nodes = append(nodes, n.HostNodes...)
	}
	return nodes
}

// openHost opens a device by its own file or that of its group, which opened says somebody has.
func openHost(h hostdevice.Held, byNode, opened bool, l *fileList) (protocol.VFIODevice, error) {
	d := protocol.VFIODevice{Number: h.Number, Address: h.Address, ROM: h.ROM, NoReset: h.NoReset}
	path := vfio.Node(h.Address)
	if !byNode {
		path = vfio.GroupNode(h.Group)
		if d.GroupID = h.Group; opened {
			return d, nil
		}
	}
	f, err := openDevice(path, unix.O_RDWR)
	if err != nil {
		return d, &hostcall.Error{Code: hostcall.Unavailable, Message: fmt.Sprintf("The device %s cannot be opened: %v.", h.Address, err)}
	}
	place := l.add(f)
	if byNode {
		d.File = &place
	} else {
		d.Group = &place
	}
	return d, nil
}

// openMemory opens what stands for a guest's memory as devices reach it.
func openMemory(byNode bool, l *fileList) (iommufd, container *protocol.File, err error) {
	path := vfio.Container
	if byNode {
		path = vfio.IOMMUFD
	}
	f, err := openDevice(path, unix.O_RDWR)
	if err != nil {
		return nil, nil, &hostcall.Error{Code: hostcall.Unavailable, Message: fmt.Sprintf("Devices cannot reach the guest's memory: %v.", err)}
	}
	place := l.add(f)
	if byNode {
		return &place, nil, nil
	}
	return nil, &place, nil
}

// canGive says whether the host can give devices to guests at all.
func canGive() bool {
	for _, path := range []string{vfio.IOMMUFD, vfio.Container} {
		if _, err := os.Stat(path); err == nil {
			return true
		}
	}
	return false
}

// AttachDevice gives a device of the host's to a guest (hostcall.GuestAttachDevice). Cut off at any
// point it can be done again.
func (m *Manager) AttachDevice(ctx context.Context, id string, d hostcall.HostDevice) error {
	if err := hostdevice.CheckNames("devices", []hostcall.HostDevice{d}); err != nil {
		return err
	}
	defer m.turns.take(id)()
	r, err := m.find(id)
	if err != nil {
		return err
	}
	if has, err := r.mayPlug(ctx, hostcall.DeviceName(hostcall.VFIOKind, d.Number)); has || err != nil {
		return err
	}
	rec := m.recordOf(r)
	if !rec.VFIO {
		return &hostcall.Error{Code: hostcall.FailedPrecondition,
			Message: "The guest was started when the host could give no devices away: stop it, attach the device, and start it."}
	}
	had := m.devices.Of(id)
	if _, err := m.devices.Take(id, []hostcall.HostDevice{d}, hostNodes(rec.NUMA)); err != nil {
		return err
	}
	err = m.plugHost(ctx, r, rec, had, d.Number)
	if refused(err) {
		err = errors.Join(err, m.devices.ReturnOne(id, d.Number))
	}
	m.tell(r)
	return err
}

// plugHost hands the device of that number, which is ready, to the VMM of r. It has had others.
func (m *Manager) plugHost(ctx context.Context, r *run, rec record, had []hostdevice.Held, number int) error {
	held := m.devices.Of(rec.ID)
	i := slices.IndexFunc(held, func(h hostdevice.Held) bool { return h.Number == number })
	if i < 0 {
		return errEnded
	}
	h := held[i]
	l := new(fileList)
	defer l.close()
	byNode := vfio.Node(h.Address) != ""
	opened := slices.ContainsFunc(had, func(o hostdevice.Held) bool { return o.Group == h.Group })
	d, err := openHost(h, byNode, opened, l)
	if err != nil {
		return err
	}
	request := protocol.Request{Method: protocol.AttachVFIO, NewVFIO: &protocol.NewVFIO{Device: d}}
	if request.NewVFIO.IOMMUFD, request.NewVFIO.Container, err = openMemory(byNode, l); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout+devicePatience(rec.MemoryBytes+rec.MaxPlugged))
	defer cancel()
	if _, _, err := r.client.do(ctx, request, l.files); err != nil {
		return hostRefusal(err, []protocol.VFIODevice{d})
	}
	return nil
}

// hostField is the field of a Spec or NewVFIO that a VMM has a word to say against a device about.
var hostField = regexp.MustCompile(`^(?:vfio\.devices\[(\d{1,2})\]|newVfio\.device)`)

// hostRefusal is refusal where it may be about one of these devices. VFIO says EPERM of an interrupt
// that nobody remaps: it is the last to look.
func hostRefusal(err error, devices []protocol.VFIODevice) error {
	var e *protocol.Error
	if !errors.As(err, &e) {
		return refusal(err)
	}
	f := hostField.FindStringSubmatch(e.Field)
	if f == nil {
		return refusal(err)
	}
	i, _ := strconv.Atoi(f[1]) // "" is 0
	if i >= len(devices) {
		return refusal(err)
	}
	v := hostcall.Violation{Reason: hostcall.NotAssignable, Device: devices[i].Address}
	switch {
	case strings.Contains(e.Message, unix.EPERM.Error()):
		v.Reason = hostcall.NoInterruptRemapping
		v.Message = fmt.Sprintf("The kernel does not let %s have its interrupts or memory without isolation: switch interrupt remapping on in the firmware's set-up, and restart the host.", v.Device)
	case e.Code == protocol.ResourceExhausted:
		return refusal(err)
	default:
		v.Message = fmt.Sprintf("The guest cannot have %s: %s.", v.Device, clean(e.Message))
	}
	return hostcall.Refuse([]hostcall.Violation{v})
}

// dropHost gives a device back to the host that its guest does not have.
func (m *Manager) dropHost(id string, r *run, number int) error {
	if err := m.devices.ReturnOne(id, number); err != nil {
		return err
	}
	m.tell(r)
	return nil
}

// tell tells how a guest is that runs.
func (m *Manager) tell(r *run) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r != nil && m.running[r.rec.ID] == r {
		m.c.Notify(m.statusOf(r))
	}
}

// faults are the events of devices in words.
var faults = map[protocol.DeviceEventKind]string{
	protocol.DeviceError:     "it has reported an error",
	protocol.DeviceRequested: "the host wants it back",
	protocol.DeviceGone:      "it is gone",
}

// learnDevices notes what a VMM tells of the host's devices, where that is new. A VMM may be in its
// guest's hands: it can say what it likes of the devices that its guest has, and of those alone.
func (m *Manager) learnDevices(r *run, s *protocol.Status) {
	if s == nil || len(s.DeviceEvents) > protocol.MaxDeviceEvents {
		return
	}
	news := false
	for _, e := range s.DeviceEvents {
		words, known := faults[e.Kind]
		m.mu.Lock()
		fresh := e.Seq > r.rec.DeviceEvent
		if fresh {
			r.rec.DeviceEvent = e.Seq
		}
		m.mu.Unlock()
		if !known || !fresh {
			continue
		}
		if message := clean(e.Message); message != "" {
			words += ": " + message
		}
		at := e.Time
		if at.Before(r.rec.Started) || at.After(time.Now()) {
			at = time.Now()
		}
		news = m.deviceFault(r.rec.ID, e.Address, words, at) || news
	}
	if !news {
		return
	}
	m.mu.Lock()
	if !r.over {
		if err := m.writeRecord(r.rec); err != nil {
			m.c.Log.Warn("events of a guest's devices may be told again", "guest", r.rec.ID, "error", err)
		}
	}
	m.mu.Unlock()
	m.tell(r)
}

// deviceFault notes what has happened to a device of a guest, and reports whether it is new.
func (m *Manager) deviceFault(id, address, words string, at time.Time) bool {
	if !m.devices.Fault(id, address, words, at) {
		return false
	}
	m.c.Log.Warn("a device of the host's in a guest: "+words, "device", address, "guest", m.NameOf(id))
	return true
}

// DeviceEvent notes what the kernel says has happened to a device, where a guest has it: that it has
// been taken out, or has met an error that it tries to recover from.
func (m *Manager) DeviceEvent(address, words string) {
	id := m.devices.Owners()[address]
	r := m.lookup(id)
	if r != nil && m.deviceFault(id, address, words, time.Now()) {
		m.tell(r)
	}
}
