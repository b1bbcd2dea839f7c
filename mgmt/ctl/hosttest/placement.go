package hosttest

import ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"

// observePlacement has a guest that runs, and is to be somewhere, be on node 1: its
// processors on the CPUs from 4 on, beside other threads on CPU 2.
func observePlacement(vm *ashlarv1.VirtualMachine) {
	p := vm.GetPlacement()
	if p == nil || vm.GetState() != ashlarv1.VirtualMachine_STATE_RUNNING {
		return
	}
	s := &ashlarv1.PlacementStatus{Nodes: []int32{1}, EmulationCpus: []int32{2}, Reason: "Node 1 was chosen: no other has room."}
	for n := range vm.GetCpus() {
		s.Affinity = append(s.Affinity, &ashlarv1.PlacementStatus_Affinity{Processors: []int32{n}, Cpus: []int32{4 + n}})
		if p.GetExclusiveCores() {
			s.ExclusiveCpus = append(s.ExclusiveCpus, 4+n)
		}
	}
	vm.ObservedPlacement = s
}
