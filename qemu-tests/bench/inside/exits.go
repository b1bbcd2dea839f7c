package main

import (
	"fmt"
	"strings"
)

// exitKinds are KVM's counters of exits that are told apart. The first one counts all; what the others
// do not count are mostly writes of MSRs: timers, interrupts that were dealt with.
var exitKinds = []string{"exits", "halt_exits", "irq_exits", "irq_window_exits", "io_exits", "mmio_exits"}

// exits are how often all vCPUs of a guest have come back to KVM, by exitKinds.
type exits map[string]uint64

// all is all of them.
func (e exits) all() float64 { return float64(e[exitKinds[0]]) }

// since is what has come since before.
func (e exits) since(before exits) exits {
	out := make(exits)
	for name, n := range e {
		out[name] = n - before[name]
	}
	return out
}

// per is a text of how many there were of each kind for each of n.
func (e exits) per(n float64) string {
	var out []string
	for _, name := range exitKinds {
		out = append(out, fmt.Sprintf("%s %.2f", name, float64(e[name])/n))
	}
	return strings.Join(out, ", ")
}
