package render

import (
	"fmt"
	"strings"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// placement adds what is wanted of where a virtual machine is to be, and where it is.
func placement(r *Rows, vm *ashlarv1.VirtualMachine) {
	if p := vm.GetPlacement(); p != nil {
		r.Add("Placement:", wanted(p))
	}
	s := vm.GetObservedPlacement()
	if s == nil {
		return
	}
	r.Add("Placed:", s.GetReason())
	if len(s.GetNodes()) > 0 {
		r.Add("  Memory:", "on the host's "+counted("node", s.GetNodes()))
	}
	for i, n := range s.GetNumaNodes() {
		if len(n.GetNodes()) > 0 {
			r.Add(fmt.Sprintf("  NUMA node %d:", i), "on the host's "+counted("node", n.GetNodes()))
		}
	}
	for _, a := range s.GetAffinity() {
		r.Add("  "+counted("Processor", a.GetProcessors())+":", "on the host's "+counted("CPU", a.GetCpus()))
	}
	if len(s.GetEmulationCpus()) > 0 {
		r.Add("  Other threads:", "on the host's "+counted("CPU", s.GetEmulationCpus()))
	}
	if len(s.GetExclusiveCpus()) > 0 {
		r.Add("  Its own alone:", counted("CPU", s.GetExclusiveCpus()))
	}
}

// wanted is what is asked for in words.
func wanted(p *ashlarv1.Placement) string {
	var words []string
	if p.GetAuto() {
		words = append(words, "on one node of the host's choice")
	}
	if p.Node != nil {
		words = append(words, fmt.Sprintf("on node %d", p.GetNode()))
	}
	switch {
	case len(p.GetCpus()) > 0:
		words = append(words, "pinned to "+counted("CPU", p.GetCpus()))
	case p.GetPinCpus():
		words = append(words, "pinned")
	}
	if p.GetExclusiveCores() {
		words = append(words, "exclusive cores")
	}
	return strings.Join(words, ", ")
}

// guestCPUs adds who has the host's CPUs.
func guestCPUs(r *Rows, g *ashlarv1.GuestCpus) {
	if g == nil {
		return
	}
	r.Add("Control domain:", counted("CPU", g.GetReservedCpus()))
	r.Add("Shared:", fmt.Sprintf("%s, %d of at most %d processors", counted("CPU", g.GetSharedCpus()), g.GetProcessors(), g.GetMaxProcessors()))
	if len(g.GetExclusiveCpus()) > 0 {
		r.Add("Exclusive:", counted("CPU", g.GetExclusiveCpus()))
	}
}
