package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/ashlar-hv/ashlar/drivers/topology"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// A plan is a decision that is being taken.
type plan struct {
	h     *Host
	w     *Wish
	t     *taken
	d     *hostcall.Placed
	used  []int         // CPUs that processors decided on have
	given map[int]int64 // memory of nodes that parts decided on have
	why   []string
}

// A part is processors and memory that belong together: a node of the guest's, or all of it.
type part struct {
	index  int // of Wish.NUMA; -1 for all of it
	vcpus  []int
	memory int64
	nodes  []int // of the host's
}

// Decide decides where a guest is, beside those that run. Errors are hostcall.Error: they
// say what is free where. What a node that is named has of memory is not looked at.
func Decide(h *Host, running []*hostcall.Placed, w *Wish) (*hostcall.Placed, error) {
	p := &plan{h: h, w: w, t: h.taken(running), d: &hostcall.Placed{VCPUs: w.VCPUs, Pinned: w.pinned()}, given: make(map[int]int64)}
	if err := p.checkCPUs(); err != nil {
		return nil, err
	}
	for _, part := range p.parts() {
		if err := p.place(part); err != nil {
			return nil, err
		}
	}
	if err := p.takeCores(); err != nil {
		return nil, err
	}
	if err := p.limit(); err != nil {
		return nil, err
	}
	p.beside()
	p.d.Why = strings.Join(p.why, " ")
	return p.d, nil
}

func (w *Wish) pinned() bool { return w.Pin || w.Exclusive || len(w.CPUs) > 0 }

func (p *plan) say(format string, args ...any) { p.why = append(p.why, fmt.Sprintf(format, args...)) }

// parts are what is to be placed.
func (p *plan) parts() []part {
	if len(p.w.NUMA) > 0 {
		var out []part
		for i, n := range p.w.NUMA {
			out = append(out, part{i, n.VCPUs, int64(n.MemoryBytes), n.HostNodes})
		}
		return out
	}
	all := part{index: -1, memory: p.w.Memory}
	for v := range p.w.VCPUs {
		all.vcpus = append(all.vcpus, v)
	}
	if p.w.Node != nil {
		all.nodes = []int{*p.w.Node}
		p.say("Node %d was asked for.", *p.w.Node)
	}
	return []part{all}
}

// place decides about one part.
func (p *plan) place(part part) error {
	if p.w.Auto && len(part.nodes) == 0 {
		id, err := p.choose(part)
		if err != nil {
			return err
		}
		part.nodes = []int{id}
	}
	for _, id := range part.nodes {
		p.given[id] += part.memory / int64(len(part.nodes))
	}
	if part.index >= 0 {
		p.d.HostNodes = append(p.d.HostNodes, part.nodes)
	} else {
		p.d.Nodes = part.nodes
	}
	affinity, short := p.cpus(part, part.nodes)
	if short != "" {
		return p.refuse(hostcall.ResourceExhausted, "cpus", "%s %s: %s. Ask for fewer processors, for another node, or stop another guest.", at(part.nodes), short, p.free())
	}
	p.take(affinity)
	return nil
}

// at names nodes at the beginning of a sentence.
func at(nodes []int) string {
	if len(nodes) == 0 {
		return "The host"
	}
	return "The host's node " + topology.FormatList(slices.Sorted(slices.Values(nodes)))
}

// take notes affinity as decided.
func (p *plan) take(affinity []protocol.Affinity) {
	p.d.Affinity = append(p.d.Affinity, affinity...)
	if p.d.Pinned {
		for _, a := range affinity {
			p.used = append(p.used, a.CPUs...)
		}
	}
}

// choose finds the node for a part: one near the devices where there are some, with
// room for the part; of these one that this guest has nothing on, that has the fewest
// processors of guests for its CPUs, and the most memory.
func (p *plan) choose(part part) (int, error) {
	candidates := make([]Node, 0, len(p.h.Nodes))
	for _, n := range p.h.Nodes {
		if len(p.h.on([]int{n.ID}, p.h.Guests)) == 0 || len(p.w.Near) > 0 && !slices.Contains(p.w.Near, n.ID) {
			continue
		}
		if len(p.w.CPUs) > 0 && !slices.Equal(p.h.nodesOf(p.listed(part)), []int{n.ID}) {
			continue
		}
		if part.memory > n.FreeBytes-p.given[n.ID] {
			continue
		}
		if _, short := p.cpus(part, []int{n.ID}); short == "" {
			candidates = append(candidates, n)
		}
	}
	if len(candidates) == 0 {
		return 0, p.noNode(part)
	}
	load := func(n Node) float64 {
		return float64(p.t.onNode[n.ID]) / float64(len(p.h.on([]int{n.ID}, p.h.Guests)))
	}
	best := slices.MinFunc(candidates, func(a, b Node) int {
		return cmp.Or(
			cmp.Compare(min(p.given[a.ID], 1), min(p.given[b.ID], 1)),
			cmp.Compare(slices.Index(p.w.Near, a.ID), slices.Index(p.w.Near, b.ID)),
			cmp.Compare(load(a), load(b)), cmp.Compare(b.FreeBytes, a.FreeBytes), cmp.Compare(a.ID, b.ID))
	})
	switch {
	case len(p.w.Near) > 0:
		p.say("Node %d was chosen: it is that of a device of the guest's.", best.ID)
	case len(candidates) == 1:
		p.say("Node %d was chosen: no other has room.", best.ID)
	default:
		p.say("Node %d was chosen: of those with room it has the fewest processors of guests, then the most memory.", best.ID)
	}
	return best.ID, nil
}

// noNode says that no node has room for a part.
func (p *plan) noNode(part part) error {
	where := "No NUMA node of the host"
	if len(p.w.Near) > 0 {
		where = "The devices' NUMA node " + topology.FormatList(slices.Sorted(slices.Values(p.w.Near)))
		if len(p.h.Nodes) > 0 {
			where += " of the host"
		}
	}
	verb := "has"
	if len(p.w.Near) > 0 {
		verb = "does not have"
	}
	kind := ""
	switch {
	case p.w.Exclusive:
		kind = " on cores of their own"
	case p.d.Pinned:
		kind = " on CPUs of their own"
	}
	return p.refuse(hostcall.ResourceExhausted, "node", "%s %s room for %d processors%s and %d MiB: %s. Ask for less, name a node, or stop another guest.",
		where, verb, len(part.vcpus), kind, part.memory>>20, p.free())
}

// cpus decides where the processors of a part run that is on nodes, or says what these
// are short of.
func (p *plan) cpus(part part, nodes []int) ([]protocol.Affinity, string) {
	switch {
	case len(p.w.CPUs) > 0:
		return oneByOne(part.vcpus, p.listed(part)), ""
	case p.w.Exclusive:
		return p.wholeCores(part, nodes)
	case p.w.Pin:
		return p.pins(part, nodes)
	case len(nodes) == 0:
		return nil, ""
	}
	cpus := p.h.on(nodes, p.h.Guests)
	// A node of memory alone, or whose CPUs are all somebody's: its processors run anywhere.
	if len(without(cpus, p.t.exclusive)) == 0 || len(cpus) == len(p.h.Guests) {
		return nil, ""
	}
	return []protocol.Affinity{{VCPUs: part.vcpus, CPUs: cpus}}, ""
}

// listed are the CPUs that are asked for, of the processors of a part.
func (p *plan) listed(part part) []int {
	var out []int
	for _, v := range part.vcpus {
		out = append(out, p.w.CPUs[v])
	}
	return out
}

func oneByOne(vcpus, cpus []int) []protocol.Affinity {
	var out []protocol.Affinity
	for i, v := range vcpus {
		out = append(out, protocol.Affinity{VCPUs: []int{v}, CPUs: []int{cpus[i]}})
	}
	return out
}

// wholeCores gives a part free cores, as many as its processors need, one after the other:
// threads that follow each other are of the same core.
func (p *plan) wholeCores(part part, nodes []int) ([]protocol.Affinity, string) {
	var cpus []int
	after := slices.Concat(p.t.exclusive, p.whole(p.used))
	for _, core := range p.h.freeCores(nodes, p.t) {
		with := slices.Concat(after, core)
		if len(cpus) < len(part.vcpus) && !overlap(core, p.used) && p.missed(with) == nil {
			cpus, after = append(cpus, core...), with
		}
	}
	if len(cpus) < len(part.vcpus) {
		return nil, fmt.Sprintf("has too few cores that others can do without for %d processors", len(part.vcpus))
	}
	return oneByOne(part.vcpus, cpus), ""
}

// whole are all CPUs of the cores of cpus.
func (p *plan) whole(cpus []int) []int { return slices.Concat(p.coresOf(cpus)...) }

// missed are CPUs of which others need one, where exclusive are somebody's alone; nil
// where they can do without.
func (p *plan) missed(exclusive []int) []int {
	for _, need := range append(p.t.needs, p.h.Guests) {
		if subset(need, exclusive) {
			return need
		}
	}
	return nil
}

// pins gives each processor of a part a CPU of its own that it shares with as few pinned
// processors of others as can be, core by core; those of the control domain come last.
func (p *plan) pins(part part, nodes []int) ([]protocol.Affinity, string) {
	cores := p.h.cores(nodes)
	load := func(core []int) int {
		n := 0
		for _, c := range core {
			n += p.t.pins[c]
		}
		if overlap(core, p.h.Reserved) {
			n += 1 << 20
		}
		return n
	}
	slices.SortStableFunc(cores, func(a, b []int) int { return cmp.Compare(load(a), load(b)) })
	var cpus []int
	for _, core := range cores {
		for _, c := range core {
			if slices.Contains(p.h.Guests, c) && !slices.Contains(p.t.exclusive, c) && !slices.Contains(p.used, c) {
				cpus = append(cpus, c)
			}
		}
	}
	if len(cpus) < len(part.vcpus) {
		return nil, fmt.Sprintf("has %d CPUs that guests can be pinned to, too few for %d processors", len(cpus), len(part.vcpus))
	}
	return oneByOne(part.vcpus, cpus), ""
}
