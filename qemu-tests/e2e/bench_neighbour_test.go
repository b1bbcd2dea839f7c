package e2e

import (
	"fmt"
	"strings"
	"testing"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/qemu-tests/bench/figure"
)

// neighbours is the part of BenchmarkHost that is this file, as -parts has it.
const neighbours = "neighbours"

// latencyRounds is how often a neighbour's latencies are taken for each figure.
const latencyRounds = 50

// hogs are what a guest beside the measured one takes, each by a command.
var hogs = []struct{ name, command string }{
	{"CPU", "hog cpu all"}, {"memory", "hog memory 256"}, {"disk", "hog disk /dev/vda"}, {"network", "hog network 10.88.0.1"},
}

// neighbours measures what a guest waits for its disk, its network and its timer, beside
// another one that takes what it can get, against what it waits alone.
func (m *measure) neighbours(b testing.TB, h *host) {
	quiet := testVM("", &v1.Disk{SizeBytes: 8 << 20})
	h.create(b, "quiet", quiet)
	h.boot(b, "quiet")
	c := h.console(b, "quiet")
	c.expect("TESTGUEST ready", patience)
	var alone []map[string]float64
	for range *rounds {
		alone = append(alone, c.latencies(b))
	}
	for _, hog := range hogs {
		say("a guest beside a hog of " + hog.name)
		vm := testVM("", &v1.Disk{SizeBytes: 16 << 20})
		vm.Cpus, vm.MemoryBytes = 2, 512<<20
		id := "hog-" + strings.ToLower(hog.name)
		h.create(b, id, vm)
		h.boot(b, id)
		other := h.console(b, id)
		other.expect("TESTGUEST ready", patience)
		other.ask(hog.command)
		for round := range *rounds {
			beside := c.latencies(b)
			for _, what := range []string{"disk", "network", "timer"} {
				s := figure.Sample{Name: fmt.Sprintf("a neighbour's %s beside a hog of %s", what, hog.name), Unit: "ms", Better: figure.Lower, Round: round}
				s.Side, s.Value = figure.Ours, beside[what]
				m.samples = append(m.samples, s)
				s.Side, s.Value = "alone", alone[round][what]
				m.samples = append(m.samples, s)
			}
		}
		h.remove(b, id)
	}
	h.remove(b, "quiet")
}

// latencies are the medians that a guest has measured, in milliseconds.
func (c *console) latencies(b testing.TB) map[string]float64 {
	out := map[string]float64{}
	for _, f := range strings.Fields(c.ask(fmt.Sprintf("latency /dev/vda 10.88.0.1 %d", latencyRounds))) {
		what, values, _ := strings.Cut(f, "=")
		median, _, _ := strings.Cut(values, ",")
		out[what] = number(b, median) / 1000
	}
	return out
}
