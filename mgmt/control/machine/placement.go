package machine

import (
	"context"
	"fmt"
	"regexp"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// placement checks where a machine is to be, as far as that does not depend on the host.
func (c *checker) placement(vm *ashlarv1.VirtualMachine, rec *store.VM) {
	p := vm.Placement
	if p == nil {
		return
	}
	rec.Placement = &hostcall.Placement{Auto: p.Auto, Pin: p.PinCpus, CPUs: integers[int](p.Cpus), ExclusiveCores: p.ExclusiveCores}
	if p.Node != nil {
		node := int(*p.Node)
		rec.Placement.Node = &node
		switch {
		case node < 0 || node > protocol.MaxHostNode:
			c.bad(".placement.node", "is %d: 0 to %d", node, protocol.MaxHostNode)
		case p.Auto:
			c.bad(".placement.node", "stands beside auto: leave one of them out")
		case len(vm.NumaNodes) > 0:
			c.bad(".placement.node", "stands beside numa_nodes, which have host_nodes of their own: leave one of them out")
		}
	}
	if n := max(vm.Cpus, vm.MaxCpus); len(p.Cpus) > 0 && len(p.Cpus) != int(n) {
		c.bad(".placement.cpus", "has %d: one for each of the %d processors that there may be, or none", len(p.Cpus), n)
		return
	}
	seen := make(map[int32]bool)
	for i, cpu := range p.Cpus {
		field := fmt.Sprintf(".placement.cpus[%d]", i)
		switch {
		case cpu < 0 || cpu > protocol.MaxHostCPU:
			c.bad(field, "is %d: 0 to %d", cpu, protocol.MaxHostCPU)
		case seen[cpu]:
			c.bad(field, "%d stands there twice: each processor has a CPU of its own", cpu)
		}
		seen[cpu] = true
	}
}

// placementProto is what is wanted as clients see it.
func placementProto(p *hostcall.Placement) *ashlarv1.Placement {
	if p == nil {
		return nil
	}
	out := &ashlarv1.Placement{Auto: p.Auto, PinCpus: p.Pin, Cpus: integers[int32](p.CPUs), ExclusiveCores: p.ExclusiveCores}
	if p.Node != nil {
		node := int32(*p.Node)
		out.Node = &node
	}
	return out
}

var placementField = regexp.MustCompile(`^guest\.placement\.(node|cpus|exclusiveCores)$`)

// placedField turns a field of GuestStart that says where a guest is to be into that of
// VirtualMachine; "" for another.
func placedField(field string) string {
	p := placementField.FindStringSubmatch(field)
	if p == nil {
		return ""
	}
	return "placement." + map[string]string{"node": "node", "cpus": "cpus", "exclusiveCores": "exclusive_cores"}[p[1]]
}

// whereItIs asks where a machine is that runs; nil where that is not to be had.
func (m *Machine) whereItIs(ctx context.Context) *ashlarv1.PlacementStatus {
	if !m.Alive() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	msg, err := m.g.core.Do(ctx, hostcall.Call{Method: hostcall.GuestPlacement, ID: m.uid})
	if err != nil || msg.Placed == nil {
		m.g.log.Debug("placement of a guest not looked at", "vm", m.id, "error", err)
		return nil
	}
	d := msg.Placed
	out := &ashlarv1.PlacementStatus{Nodes: integers[int32](d.Nodes), EmulationCpus: integers[int32](d.Emulation),
		ExclusiveCpus: integers[int32](d.Exclusive), Reason: d.Why}
	for _, nodes := range d.HostNodes {
		out.NumaNodes = append(out.NumaNodes, &ashlarv1.PlacementStatus_HostNodes{Nodes: integers[int32](nodes)})
	}
	for _, a := range d.Affinity {
		out.Affinity = append(out.Affinity, &ashlarv1.PlacementStatus_Affinity{Processors: integers[int32](a.VCPUs), Cpus: integers[int32](a.CPUs)})
	}
	return out
}
