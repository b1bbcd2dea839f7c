package guest

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/ashlar-hv/ashlar/drivers/cgroup"
	"github.com/ashlar-hv/ashlar/drivers/interrupt"
	"github.com/ashlar-hv/ashlar/drivers/topology"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/mgmt/core/placement"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// A CPUPolicy says what of the host's CPUs guests get.
type CPUPolicy struct {
	// Reserved are CPUs that the control domain keeps; without any it is for the host to
	// say (placement.Host.Reserve).
	Reserved []int
	// Overcommit is how many processors guests may have for each CPU that they share.
	Overcommit int
}

// Parts of the control group of a guest whose processors are pinned.
const (
	vcpuPart      = "vcpus"     // threads of processors
	emulationPart = "emulation" // all others, those of vhost too
)

// checkPlacement checks where a guest is to be, as far as that does not depend on others.
func checkPlacement(g *hostcall.Guest) error {
	p := g.Placement
	if p == nil {
		return nil
	}
	wrong := func(code hostcall.Code, field, format string, args ...any) error {
		return &hostcall.Error{Code: code, Field: "guest.placement." + field, Message: fmt.Sprintf(format, args...)}
	}
	for _, c := range p.CPUs {
		if c < 0 || c > protocol.MaxHostCPU {
			return wrong(hostcall.InvalidArgument, "cpus", "There is no CPU %d: 0 to %d.", c, protocol.MaxHostCPU)
		}
	}
	if p.Node == nil {
		return nil
	}
	switch {
	case p.Auto:
		return wrong(hostcall.InvalidArgument, "node", "A node is named, or chosen by the host: not both.")
	case len(g.NUMA) > 0:
		return wrong(hostcall.InvalidArgument, "node", "The guest has NUMA nodes, which have nodes of the host each: name them there.")
	}
	host, err := topology.Read()
	if err != nil {
		return err
	}
	if n, _ := host.Node(*p.Node); n.MemoryBytes == 0 {
		return wrong(hostcall.FailedPrecondition, "node", "The host has no NUMA node %d with memory: it %s.", *p.Node, haveNodes(host))
	}
	return nil
}

// shares are what the guest was promised of certain nodes of the host: nodes that name
// some.
func (r *record) shares() []protocol.NUMANode {
	if r.Placed != nil && len(r.Placed.Nodes) > 0 {
		return []protocol.NUMANode{{MemoryBytes: r.MemoryBytes + r.Plugged, HostNodes: r.Placed.Nodes}}
	}
	if protocol.Bound(r.NUMA) {
		return r.NUMA
	}
	return nil
}

// admitMore checks that the nodes that all of the guest's memory is of have so many bytes
// more for it. The caller holds m.mu.
func (m *Manager) admitMore(rec *record, bytes int64) error {
	if rec.Placed == nil || len(rec.Placed.Nodes) == 0 {
		return nil
	}
	host, err := topology.Read()
	if err != nil {
		return err
	}
	err = admitTo([]protocol.NUMANode{{MemoryBytes: uint64(bytes), HostNodes: rec.Placed.Nodes}}, host, m.taken())
	var e *hostcall.Error
	if errors.As(err, &e) {
		e.Field = "size"
	}
	return err
}

// nodesNear are the nodes of the host's devices that a guest is to have, as far as the
// firmware tells them. What is wrong with a device is said by who takes it.
func (m *Manager) nodesNear(devices []hostcall.HostDevice) []int {
	if len(devices) == 0 {
		return nil
	}
	inv, err := m.c.FindDevices()
	if err != nil {
		m.c.Log.Warn("placed without regard to devices", "error", err)
		return nil
	}
	var nodes []int
	for _, d := range devices {
		address, err := inv.Resolve(d.Name)
		if err != nil {
			continue
		}
		if found, err := inv.Read(address); err == nil && found.Node >= 0 && !slices.Contains(nodes, found.Node) {
			nodes = append(nodes, found.Node)
		}
	}
	return nodes
}

// place decides where a guest is to be, beside those that run, and near those nodes. The
// caller holds m.mu.
func (m *Manager) place(rec *record, g *hostcall.Guest, near []int) error {
	host, err := topology.Read()
	if err != nil {
		return err
	}
	w := &placement.Wish{VCPUs: rec.VCPUs, Memory: int64(rec.MemoryBytes + rec.Plugged), NUMA: rec.NUMA, Near: near}
	if p := g.Placement; p != nil {
		w.Auto, w.Node, w.Pin, w.CPUs, w.Exclusive = p.Auto, p.Node, p.Pin, p.CPUs, p.ExclusiveCores
	}
	h := m.placementHost(host)
	for i := range h.Nodes {
		h.Nodes[i].FreeBytes = m.freeOn(host, h.Nodes[i].ID, rec.Pages)
	}
	if rec.Placed, err = placement.Decide(h, m.placed(), w); err != nil {
		return err
	}
	rec.NUMA = slices.Clone(rec.NUMA)
	for i := range rec.NUMA {
		rec.NUMA[i].HostNodes = rec.Placed.HostNodes[i]
	}
	return nil
}

// placed is where guests are that run. The caller holds m.mu.
func (m *Manager) placed() []*hostcall.Placed {
	var out []*hostcall.Placed
	for _, r := range m.running {
		if r.rec.Placed != nil {
			out = append(out, r.rec.Placed)
		}
	}
	return out
}

// placementHost is the host as decisions see it, but for free memory.
func (m *Manager) placementHost(host *topology.Host) *placement.Host {
	h := &placement.Host{Overcommit: m.c.CPUs.Overcommit}
	for _, n := range host.Nodes {
		h.Nodes = append(h.Nodes, placement.Node{ID: n.ID})
	}
	for _, c := range host.CPUs {
		h.CPUs = append(h.CPUs, placement.CPU{ID: c.ID, Node: c.Node, Siblings: c.Siblings})
	}
	h.Reserve(m.c.CPUs.Reserved)
	return h
}

// freeOn is how many bytes of memory for guests on such pages node id has. The caller
// holds m.mu.
func (m *Manager) freeOn(host *topology.Host, id int, pages protocol.Pages) int64 {
	n, _ := host.Node(id)
	if size := int64(pages.PoolSize()); size > 0 {
		i := slices.IndexFunc(n.Pools, func(p topology.Pool) bool { return p.PageBytes == size })
		if i < 0 {
			return 0
		}
		return n.Pools[i].Free * size
	}
	free := n.AvailableBytes - nodeReserve
	for _, u := range m.taken() {
		free -= u.left([]int{id})
	}
	return max(free, 0)
}

// ShareCPUs keeps the control domain's CPUs from guests, and lets guests take others for
// themselves. It puts interrupts where they are to be after what ended with the core before
// this one.
func (m *Manager) ShareCPUs() error {
	host, err := topology.Read()
	if err != nil {
		return err
	}
	h := m.placementHost(host)
	own := slices.DeleteFunc(slices.Clone(h.Guests), func(c int) bool { return slices.Contains(h.Reserved, c) })
	m.steer()
	return cgroup.Open(m.c.Cgroup).ShareCPUs(h.Guests, own)
}

// steer keeps the host's interrupts off the CPUs that guests have for themselves, and has
// those of devices that pinned guests have beside their processors. Where a device uses
// posted interrupts they go to processors by themselves, and no thread of the host has to.
func (m *Manager) steer() {
	m.steering.Lock()
	defer m.steering.Unlock()
	var devices []interrupt.Device
	var away []int
	m.mu.Lock()
	for id, r := range m.running {
		if p := r.rec.Placed; p != nil && p.Pinned && !r.over {
			away = append(away, p.Exclusive...)
			for _, h := range m.devices.Of(id) {
				devices = append(devices, interrupt.Device{Address: h.Address, CPUs: p.Emulation})
			}
		}
	}
	m.mu.Unlock()
	slices.Sort(away)
	if slices.Equal(away, m.away) && m.steered && len(devices) == 0 {
		return
	}
	host, err := topology.Read()
	if err != nil {
		m.c.Log.Error("interrupts stay where they are", "error", err)
		return
	}
	var online []int
	for _, c := range host.CPUs {
		online = append(online, c.ID)
	}
	stuck, err := m.c.Interrupts.Keep(online, away, devices)
	if err != nil {
		m.c.Log.Error("interrupts stay where they are", "error", err)
		return
	}
	if stuck > 0 && len(away) > 0 && !slices.Equal(away, m.away) {
		m.c.Log.Info("interrupts of the kernel's own choice stay on CPUs that are a guest's alone", "interrupts", stuck, "cpus", topology.FormatList(away))
	}
	m.away, m.steered = away, true
}

// giveBack lets interrupts come again to the CPUs that a guest had for itself.
func (m *Manager) giveBack(rec record) {
	if rec.Placed != nil && len(rec.Placed.Exclusive) > 0 {
		m.steer()
	}
}

// steerDevices steers what interrupts devices of a pinned guest have come to have: a guest
// asks for them when it likes.
func (m *Manager) steerDevices(r *run) {
	if p := m.recordOf(r).Placed; p != nil && p.Pinned && len(m.devices.Of(r.rec.ID)) > 0 {
		m.steer()
	}
}

// makeGroup makes the control group of the VMM of r, and returns the one that it is to be
// started in.
func (m *Manager) makeGroup(r *run, l cgroup.Limits) (*cgroup.Group, error) {
	p := r.rec.Placed
	l.Nodes, l.CPUs = p.Nodes, p.Emulation
	var vcpus []int // where these are pinned
	if p.Pinned {
		for _, a := range p.Affinity {
			vcpus = append(vcpus, a.CPUs...)
		}
		vcpus = append(vcpus, p.Exclusive...)
		slices.Sort(vcpus)
		vcpus = slices.Compact(vcpus)
		l.CPUs = slices.Compact(slices.Sorted(slices.Values(slices.Concat(vcpus, p.Emulation))))
	}
	group, err := cgroup.Create(m.c.Cgroup+"/"+r.rec.ID, l)
	if err != nil || !p.Pinned {
		return group, err
	}
	defer m.steer()
	err = group.Split(cgroup.Part{Name: vcpuPart, CPUs: vcpus, Exclusive: len(p.Exclusive) > 0}, cgroup.Part{Name: emulationPart, CPUs: p.Emulation})
	return group.Part(emulationPart), err
}

// addThreads says in spec where threads of processors of r run.
func (r *run) addThreads(spec *protocol.Spec, l *fileList) error {
	spec.Affinity = r.rec.Placed.Affinity
	if !r.rec.Placed.Pinned {
		return nil
	}
	f, err := r.group.Part(vcpuPart).Threads()
	if err != nil {
		return err
	}
	place := l.add(f)
	spec.VCPUGroup = &place
	return nil
}

// moveHelpers moves threads of KVM's own to those that are no processors: the thread that runs
// a processor first has one made (kvm-nx-lpage-recovery), which inherits its place.
func (m *Manager) moveHelpers(r *run) {
	if p := m.recordOf(r).Placed; p == nil || !p.Pinned {
		return
	}
	tids, err := r.group.Part(vcpuPart).ThreadIDs()
	if err != nil {
		return // the guest has ended
	}
	for _, tid := range tids {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", tid))
		if err != nil || !strings.HasPrefix(string(name), "kvm-") {
			continue
		}
		if err := r.group.Part(emulationPart).Move(tid); err != nil {
			m.c.Log.Warn("a thread of KVM's runs beside a processor", "guest", r.rec.Name, "error", err)
		}
	}
}

// Placed is where a guest is (hostcall.GuestPlacement).
func (m *Manager) Placed(id string) (*hostcall.Placed, error) {
	r, err := m.find(id)
	if err != nil {
		return nil, err
	}
	rec := m.recordOf(r)
	return rec.Placed, nil
}

// CPUs is who has the host's CPUs (hostcall.HostTopology).
func (m *Manager) CPUs() (hostcall.GuestCPUs, error) {
	host, err := topology.Read()
	if err != nil {
		return hostcall.GuestCPUs{}, err
	}
	h := m.placementHost(host)
	m.mu.Lock()
	defer m.mu.Unlock()
	return h.Use(m.placed()), nil
}
