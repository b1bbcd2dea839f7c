package placement

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ashlar-hv/ashlar/drivers/topology"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// refuse makes the error of a refusal, about a field of guest.placement or another one.
func (p *plan) refuse(code hostcall.Code, field, format string, args ...any) error {
	return &hostcall.Error{Code: code, Field: "guest.placement." + field, Message: fmt.Sprintf(format, args...)}
}

// maxTold is how many nodes a refusal tells of.
const maxTold = 8

// free says what is free where.
func (p *plan) free() string {
	if len(p.h.Nodes) == 0 {
		return p.freeOn("the host", nil)
	}
	var parts []string
	for _, n := range p.h.Nodes[:min(len(p.h.Nodes), maxTold)] {
		parts = append(parts, p.freeOn(fmt.Sprintf("node %d", n.ID), []int{n.ID})+fmt.Sprintf(" and %d MiB", max(n.FreeBytes, 0)>>20))
	}
	if more := len(p.h.Nodes) - maxTold; more > 0 {
		parts = append(parts, fmt.Sprintf("%d more nodes are not told of", more))
	}
	return strings.Join(parts, "; ")
}

func (p *plan) freeOn(name string, nodes []int) string {
	shared := p.h.on(nodes, p.h.sharedCPUs(p.t))
	return fmt.Sprintf("%s has %d of %d cores free, %d CPUs that guests share", name, len(p.h.freeCores(nodes, p.t)), len(p.h.cores(nodes)), len(shared))
}

// checkCPUs checks the CPUs that are asked for.
func (p *plan) checkCPUs() error {
	list := p.w.CPUs
	if len(list) == 0 {
		return nil
	}
	if len(list) != p.w.VCPUs {
		return p.refuse(hostcall.InvalidArgument, "cpus", "%d CPUs for %d processors: name one for each.", len(list), p.w.VCPUs)
	}
	for i, c := range list {
		_, online := p.h.cpu(c)
		switch {
		case !online:
			return p.refuse(hostcall.FailedPrecondition, "cpus", "The host has no CPU %d that is online: it has %s.", c, topology.FormatList(p.h.all()))
		case slices.Contains(list[:i], c):
			return p.refuse(hostcall.InvalidArgument, "cpus", "CPU %d stands there twice: name one for each processor.", c)
		case !slices.Contains(p.h.Guests, c), p.w.Exclusive && slices.Contains(p.h.Reserved, c):
			return p.refuse(hostcall.FailedPrecondition, "cpus", "CPU %d is the control domain's: choose from %s.", c, topology.FormatList(without(p.h.Guests, p.h.Reserved)))
		case slices.Contains(p.t.exclusive, c):
			return p.refuse(hostcall.ResourceExhausted, "cpus", "CPU %d is another guest's alone: %s are shared.", c, topology.FormatList(p.h.sharedCPUs(p.t)))
		}
	}
	return nil
}

// takeCores takes the whole cores of the processors where that is asked for, as far as
// others can do without them.
func (p *plan) takeCores() error {
	if !p.w.Exclusive {
		return nil
	}
	p.d.Exclusive = p.whole(p.used)
	slices.Sort(p.d.Exclusive)
	for _, core := range p.coresOf(p.used) {
		if !p.h.isFree(core, p.t) {
			return p.refuse(hostcall.ResourceExhausted, "exclusiveCores", "The core of the CPUs %s is the control domain's, or another guest is pinned to it: %s.", topology.FormatList(core), p.free())
		}
	}
	if need := p.missed(slices.Concat(p.t.exclusive, p.d.Exclusive)); need != nil {
		return p.refuse(hostcall.ResourceExhausted, "exclusiveCores", "Threads of guests that have no core for themselves need one of the CPUs %s: ask for a core less, for another node, or stop a guest. Now %s.",
			topology.FormatList(need), p.free())
	}
	return nil
}

// limit refuses more processors than the CPUs that guests share may have.
func (p *plan) limit() error {
	cpus, vcpus := len(without(p.h.sharedCPUs(p.t), p.d.Exclusive)), p.t.shared
	if len(p.d.Exclusive) == 0 {
		vcpus += p.w.VCPUs
	}
	if most := cpus * p.h.Overcommit; vcpus > most {
		return &hostcall.Error{Code: hostcall.ResourceExhausted, Field: "guest.vcpus",
			Message: fmt.Sprintf("Guests would have %d processors on the %d CPUs that they share, %d for each are the limit (guestCPUs.overcommit of the host's configuration): that is %d, of which guests that run have %d. Ask for fewer, or stop another guest.",
				vcpus, cpus, p.h.Overcommit, most, p.t.shared)}
	}
	return nil
}

// beside decides where the threads run that are no processors: near these, and not on
// their CPUs where that can be.
func (p *plan) beside() {
	shared := without(p.h.sharedCPUs(p.t), p.d.Exclusive)
	if !p.d.Pinned {
		p.d.Emulation = p.near()
		if p.w.Node == nil && !p.w.Auto && len(p.d.Affinity) == 0 {
			p.say("Nothing was asked for: it runs on any CPU that guests share.")
		}
		return
	}
	switch {
	case len(p.d.Exclusive) > 0:
		p.say("Each processor has a CPU of its own, of %d cores that are the guest's alone.", len(p.coresOf(p.d.Exclusive)))
	case len(p.w.CPUs) > 0:
		p.say("Each processor has the CPU that was asked for.")
	default:
		p.say("Each processor has a CPU of its own, on the cores with the fewest pinned processors.")
	}
	free := without(shared, p.used)
	near := p.h.on(p.h.nodesOf(p.used), free)
	switch {
	case len(near) > 0:
		p.d.Emulation = near
		p.say("Its other threads run beside them.")
	case len(free) > 0:
		p.d.Emulation = free
		p.say("Its other threads run on another node: this one has no CPU left for them.")
	default:
		p.d.Emulation = shared
		p.say("Its other threads run on the same CPUs: there are no others.")
	}
}

// near are the CPUs of the nodes of a guest that is not pinned; none where it is of no
// certain node.
func (p *plan) near() []int {
	var out []int
	for _, a := range p.d.Affinity {
		out = append(out, a.CPUs...)
	}
	slices.Sort(out)
	out = slices.Compact(out)
	if len(out) == len(p.h.Guests) {
		return nil
	}
	return out
}

func (p *plan) coresOf(cpus []int) [][]int {
	return slices.DeleteFunc(p.h.cores(nil), func(core []int) bool { return !overlap(core, cpus) })
}
