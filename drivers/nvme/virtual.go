package nvme

import (
	"fmt"
	"slices"
)

// Optional admin commands, in the field of Identify Controller at 256 (figure 275).
const (
	regID        = 78
	regOptional  = 256
	canNamespace = 1 << 3
	canVirtual   = 1 << 7
)

// Actions of Virtualization Management, and resources (section 5.28).
const (
	actPrimary = 1 // how much the primary controller keeps from its next reset on
	actOffline = 7
	actAssign  = 8
	actOnline  = 9
)

// A resource is queues or interrupts, as in CRT and in Virtualization Management.
type resource int

const (
	queues     resource = 0
	interrupts resource = 1
)

var resources = []resource{queues, interrupts}

func (r resource) String() string {
	return map[resource]string{queues: "queues", interrupts: "interrupts"}[r]
}

// least is what a controller that works has of a resource: an administration queue and one
// for reading and writing.
func (r resource) least() int { return map[resource]int{queues: 2, interrupts: 1}[r] }

// A Secondary is the controller of a virtual function (figure 287).
type Secondary struct {
	ID       int
	Online   bool
	Function int // of the virtual functions, from 1 on; 0 where there is none
	// Queues and Interrupts are those that it has been assigned.
	Queues, Interrupts int
}

// A flexible resource is what may be shared out (figure 286).
type flexible struct {
	has     bool
	total   int // that there are
	primary int // what the primary controller has of them
	most    int // for one secondary controller
	grain   int
}

func primaryOf(p page) map[resource]flexible {
	out := map[resource]flexible{}
	for r, at := range map[resource]int{queues: 32, interrupts: 64} {
		out[r] = flexible{
			has: p[4]>>r&1 == 1, total: p.u32(at), primary: p.u16(at + 8),
			most: p.u16(at + 12), grain: max(p.u16(at+14), 1),
		}
	}
	return out
}

// secondaries reads a list of them, which may be anything.
func secondariesOf(p page) []Secondary {
	const first, size, most = 32, 32, 127
	var out []Secondary
	for i := range min(int(p[0]), most) {
		e := p[first+i*size:][:size]
		out = append(out, Secondary{ID: e.u16(0), Online: e[4]&1 == 1, Function: e.u16(8), Queues: e.u16(10), Interrupts: e.u16(12)})
	}
	return out
}

// Secondaries are the controllers of its virtual functions, which need not exist.
func (c *Controller) Secondaries() ([]Secondary, error) {
	var out []Secondary
	for next := 0; ; {
		p, err := c.identify(cnsSecondaries, uint16(next), 0)
		if err != nil {
			return nil, err
		}
		more := secondariesOf(p)
		if len(more) == 0 {
			return out, nil
		}
		for _, s := range more {
			if s.ID < next { // each page goes on behind the last one
				return out, nil
			}
			next = s.ID + 1
			out = append(out, s)
		}
		if next > 0xffff {
			return out, nil
		}
	}
}

// Virtual reports whether it can share out queues and interrupts.
func (c *Controller) Virtual() (bool, error) {
	p, err := c.identify(cnsController, 0, 0)
	if err != nil {
		return false, err
	}
	return p.u16(regOptional)&canVirtual != 0, nil
}

// A TooFew error says that there are not enough queues or interrupts.
type TooFew struct {
	Resource string
	Can      int // for so many functions
}

// Error says for how many functions there are enough.
func (e *TooFew) Error() string {
	return fmt.Sprintf("the NVMe controller has %s for %d virtual functions", e.Resource, e.Can)
}

// share is how much of a resource each of n functions gets.
func (f flexible) share(r resource, n int) (int, error) {
	each := f.total / n
	if f.most > 0 {
		each = min(each, f.most)
	}
	each -= each % f.grain
	if each < r.least() {
		need := (r.least() + f.grain - 1) / f.grain * f.grain
		return 0, &TooFew{r.String(), f.total / need}
	}
	return each, nil
}

// Share takes all secondary controllers offline, and shares out the queues and interrupts that can be evenly to
// the first n of them: before the virtual functions are made. What the primary controller has
// of these it gives up, and is reset for it.
func (c *Controller) Share(n int) error {
	p, err := c.identify(cnsPrimary, 0, 0)
	if err != nil {
		return err
	}
	all, err := c.Secondaries()
	if err != nil {
		return err
	}
	if len(all) < n {
		return &TooFew{"controllers", len(all)}
	}
	flexibles := primaryOf(p)
	each := map[resource]int{}
	for r, f := range flexibles {
		if !f.has || n == 0 {
			continue
		}
		if each[r], err = f.share(r, n); err != nil {
			return err
		}
	}
	for _, s := range all {
		if err := c.withdraw(s, flexibles); err != nil {
			return err
		}
	}
	if n == 0 {
		return nil
	}
	if err := c.release(flexibles); err != nil {
		return err
	}
	for _, s := range byFunction(all)[:n] {
		for _, r := range resources {
			if flexibles[r].has {
				if err := c.virtualize(s.ID, r, actAssign, each[r]); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// byFunction has the controllers in the order of their virtual functions.
func byFunction(all []Secondary) []Secondary {
	out := slices.Clone(all)
	slices.SortStableFunc(out, func(a, b Secondary) int { return a.Function - b.Function })
	return out
}

// withdraw takes a controller offline, and away from it what it has.
func (c *Controller) withdraw(s Secondary, flexibles map[resource]flexible) error {
	if s.Online {
		if err := c.virtualize(s.ID, queues, actOffline, 0); err != nil {
			return err
		}
	}
	for r, have := range map[resource]int{queues: s.Queues, interrupts: s.Interrupts} {
		if have > 0 && flexibles[r].has {
			if err := c.virtualize(s.ID, r, actAssign, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// release has the primary controller give up what can be shared out.
func (c *Controller) release(flexibles map[resource]flexible) error {
	given := false
	for _, r := range resources {
		if f := flexibles[r]; f.has && f.primary > 0 {
			if err := c.virtualize(0, r, actPrimary, 0); err != nil {
				return err
			}
			given = true
		}
	}
	if !given {
		return nil
	}
	return c.Reset()
}

// Online brings the controller of the virtual function of that number, from 0 on, online.
// One that is so already is as it should be.
func (c *Controller) Online(function int) error {
	all, err := c.Secondaries()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(s Secondary) bool { return s.Function == function+1 })
	if i < 0 {
		return fmt.Errorf("bring NVMe function %d online: no controller is that of this function", function)
	}
	if all[i].Online {
		return nil
	}
	return c.virtualize(all[i].ID, queues, actOnline, 0)
}

// virtualize is Virtualization Management; the primary controller is any number to it.
func (c *Controller) virtualize(id int, r resource, action, n int) error {
	_, err := c.do(fmt.Sprintf("virtualization management, action %d of controller %d: %d %s", action, id, n, r),
		command{opcode: opVirtualize, cdw10: uint32(id)<<16 | uint32(r)<<8 | uint32(action), cdw11: uint32(n)}, nil)
	return err
}
