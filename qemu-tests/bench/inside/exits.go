package main

import (
	"fmt"
	"os"
	"slices"
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
	for _, name := range slices.Concat(exitKinds, hostKinds) {
		if v, ok := e[name]; ok {
			out = append(out, fmt.Sprintf("%s %.2f", name, float64(v)/n))
		}
	}
	return strings.Join(out, ", ")
}

// hostKinds are what the host itself counts: switches between threads, timer interrupts of its
// CPUs, and all interrupts.
var hostKinds = []string{"switches", "timer interrupts", "interrupts"}

// hostCounts are so far those of hostKinds (proc_stat(5), proc_interrupts(5)).
func hostCounts() (exits, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return nil, err
	}
	irqs, err := os.ReadFile("/proc/interrupts")
	if err != nil {
		return nil, err
	}
	out := make(exits)
	for line := range strings.Lines(string(stat) + string(irqs)) {
		var n uint64
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		if _, err := fmt.Sscan(f[1], &n); err != nil {
			continue
		}
		switch f[0] {
		case "ctxt":
			out["switches"] = n
		case "intr":
			out["interrupts"] = n
		case "LOC:":
			for _, cpu := range f[1:] {
				if _, err := fmt.Sscan(cpu, &n); err == nil {
					out["timer interrupts"] += n
				}
			}
		}
	}
	if len(out) != len(hostKinds) {
		return nil, fmt.Errorf("/proc/stat and /proc/interrupts have not all of %q", hostKinds)
	}
	return out, nil
}
