package control_test

import (
	"testing"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

func TestPlacementRefused(t *testing.T) {
	l := newLab(t)
	node := func(n int32) *int32 { return &n }
	for _, tt := range []struct {
		field string
		p     *ashlarv1.Placement
		nodes bool
	}{
		{"node", &ashlarv1.Placement{Node: node(-1)}, false},
		{"node", &ashlarv1.Placement{Node: node(1024)}, false},
		{"node", &ashlarv1.Placement{Node: node(0), Auto: true}, false},
		{"node", &ashlarv1.Placement{Node: node(0)}, true},
		{"cpus", &ashlarv1.Placement{Cpus: []int32{1, 2, 3}}, false},
		{"cpus[1]", &ashlarv1.Placement{Cpus: []int32{1, 1024}}, false},
		{"cpus[1]", &ashlarv1.Placement{Cpus: []int32{1, 1}}, false},
	} {
		_, err := l.withBoard(func(vm *ashlarv1.VirtualMachine) {
			vm.Cpus, vm.Placement = 2, tt.p
			if tt.nodes {
				vm.NumaNodes = []*ashlarv1.NumaNode{{Cpus: []int32{0, 1}, MemoryBytes: vm.MemoryBytes}}
			}
		})
		wantError(t, err, connect.CodeInvalidArgument, "INVALID_FIELD", "virtual_machine.placement."+tt.field)
	}
}

// What is wanted stays, and reaches core; where it is is told of one that runs.
func TestPlacement(t *testing.T) {
	l := newLab(t)
	node := int32(1)
	want := &ashlarv1.Placement{Node: &node, PinCpus: true, Cpus: []int32{3}, ExclusiveCores: true}
	vm, err := l.withBoard(func(vm *ashlarv1.VirtualMachine) { vm.Cpus, vm.Placement = 1, want })
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, vm.Placement, protocmp.Transform()); d != "" || vm.ObservedPlacement != nil {
		t.Errorf("placement (-want +got):\n%s\nobserved before the start: %v", d, vm.ObservedPlacement)
	}
	l.restartControl()
	l.mustStart(vm.Name)
	spec, _ := l.core.Spec(vm.Uid)
	one := 1
	if d := cmp.Diff(&hostcall.Placement{Node: &one, Pin: true, CPUs: []int{3}, ExclusiveCores: true}, spec.Placement); d != "" {
		t.Errorf("core was told (-want +got):\n%s", d)
	}
	now := l.get(vm.Name)
	where := &ashlarv1.PlacementStatus{
		Nodes: []int32{1}, NumaNodes: []*ashlarv1.PlacementStatus_HostNodes{{Nodes: []int32{0}}, {Nodes: []int32{1}}},
		Affinity:      []*ashlarv1.PlacementStatus_Affinity{{Processors: []int32{0}, Cpus: []int32{1}}},
		EmulationCpus: []int32{0}, ExclusiveCpus: []int32{1}, Reason: "It was asked for.",
	}
	if d := cmp.Diff(where, now.ObservedPlacement, protocmp.Transform()); d != "" {
		t.Errorf("observed placement (-want +got):\n%s", d)
	}
	list, err := l.machines.ListVirtualMachines(ctxOf(t), req(&ashlarv1.ListVirtualMachinesRequest{}))
	if err != nil || len(list.Msg.VirtualMachines) != 1 {
		t.Fatalf("list = %v, %v", list, err)
	}
	if got := list.Msg.VirtualMachines[0]; got.Etag != now.Etag || got.ObservedPlacement != nil {
		t.Errorf("the list has %v, want etag %s and no observed placement", got, now.Etag)
	}
}
