package machine

import (
	"regexp"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// numa checks the NUMA nodes, where processors and memory are right by themselves.
func (c *checker) numa(vm *ashlarv1.VirtualMachine, rec *store.VM) {
	if len(vm.NumaNodes) == 0 || vm.Cpus < 1 || max(vm.Cpus, vm.MaxCpus) > maxCPUs || vm.MemoryBytes < minMemory {
		return
	}
	for _, n := range vm.NumaNodes {
		rec.NUMA = append(rec.NUMA, protocol.NUMANode{
			// What is negative is too much.
			MemoryBytes: uint64(n.GetMemoryBytes()), VCPUs: integers[int](n.GetCpus()),
			HostNodes: integers[int](n.GetHostNodes()), Distances: integers[int](n.GetDistances()),
		})
	}
	threads := int(vm.Processor.GetThreads())
	if err := protocol.CheckNUMA(rec.NUMA, int(max(vm.Cpus, vm.MaxCpus)), threads, uint64(vm.MemoryBytes), rec.Backing); err != nil {
		c.bad("."+numaField(err.Field), "%s", err.Message)
	}
}

// integers are those of a list in another type.
func integers[To, From int | int32](list []From) []To {
	var out []To
	for _, n := range list {
		out = append(out, To(n))
	}
	return out
}

// numaProto is nodes as clients see them.
func numaProto(nodes []protocol.NUMANode) []*ashlarv1.NumaNode {
	var out []*ashlarv1.NumaNode
	for _, n := range nodes {
		out = append(out, &ashlarv1.NumaNode{
			Cpus: integers[int32](n.VCPUs), MemoryBytes: int64(n.MemoryBytes),
			HostNodes: integers[int32](n.HostNodes), Distances: integers[int32](n.Distances),
		})
	}
	return out
}

var (
	guestNode = regexp.MustCompile(`^(?:guest\.)?numa(\[\d{1,2}\])?(?:\.(vcpus|memoryBytes|hostNodes|distances))?$`)
	nodeLeaf  = map[string]string{"vcpus": ".cpus", "memoryBytes": ".memory_bytes", "hostNodes": ".host_nodes", "distances": ".distances"}
)

// numaField turns a field of GuestStart or of a VMM's Spec that is one of nodes into that
// of VirtualMachine; "" for another.
func numaField(field string) string {
	p := guestNode.FindStringSubmatch(field)
	if p == nil {
		return ""
	}
	return "numa_nodes" + p[1] + nodeLeaf[p[2]]
}
