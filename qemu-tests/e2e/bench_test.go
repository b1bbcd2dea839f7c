package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/qemu-tests/bench"
	"github.com/ashlar-hv/ashlar/qemu-tests/bench/figure"
)

// Options of BenchmarkHost.
var (
	rounds     = flag.Int("rounds", 5, "how often BenchmarkHost measures each side")
	parts      = flag.String("parts", "", "regular expression: measure these parts of qemu-tests/bench/inside only, or 'neighbours' alone; this and the next two leave out/bench.json alone")
	loads      = flag.String("loads", "", "regular expression: of the parts, only loads with such names")
	sides      = flag.String("sides", "", "regular expression: only sides with such names, of which ashlar is one")
	hostMemory = flag.String("host-memory", "10G", "memory of the host that BenchmarkHost compares VMMs on, of which pages of 1 GiB take much")
	repeatable = flag.Bool("repeatable", false, "measure BenchmarkHost in virtual time that counts instructions (QEMU's -icount)")
)

// A measure collects samples, of which Ashlar's own figures are made.
type measure struct {
	samples []figure.Sample
}

func (m *measure) add(name, unit string, v float64) {
	m.samples = append(m.samples, figure.Sample{Name: name, Unit: unit, Better: figure.Lower, Side: figure.Ours, Value: v})
}

// say shows how far the benchmark is.
func say(text string) { fmt.Println("bench:", text) }

// BenchmarkHost takes the figures of docs/SPECIFICATION.md: sizes, memory and times
// of the host, and the VMM against QEMU (qemu-tests/bench). It writes them to
// out/bench.json.
func BenchmarkHost(b *testing.B) {
	dir, err := os.MkdirTemp(base, "bench-")
	if err != nil {
		b.Fatal(err)
	}
	m := new(measure)
	if *parts == neighbours {
		say("booting the host, formatting its disk")
		m.neighbours(b, newHost(b, options{}))
		figures, err := figure.Figures(m.samples)
		figure.Table(os.Stdout, figures)
		if err != nil {
			b.Fatal(err)
		}
		return
	}
	disks, err := bench.Prepare(top, dir, say)
	if err != nil {
		b.Fatal(err)
	}
	say("booting the host, formatting its disk")
	h := newHost(b, options{})
	// The first boot formats the disk; the second is what a host's boots are like.
	h.down(b)
	h.Config.Repeatable = *repeatable
	if *parts == "" {
		say("booting the host again")
		h.reboot(b)
		m.files(b)
		m.boot(b, h)
		m.guests(b, h)
		m.neighbours(b, h)
		h.down(b)
	}
	h.Config.Args = append(h.Config.Args, disks.Args()...)
	h.Config.Memory = *hostMemory
	say("booting the host with QEMU's disk")
	h.reboot(b)
	ctx, cancel := context.WithTimeout(context.Background(), runLimit)
	defer cancel()
	samples, err := bench.Run(ctx, bench.Options{
		Rounds: *rounds, Only: *parts, Loads: *loads, Sides: *sides, Repeatable: *repeatable, Say: say,
		Shell: func(c string) (string, error) { return h.shell(b, c), nil },
		Reboot: func() {
			if err := h.Cut(); err != nil {
				b.Fatal(err)
			}
			h.reboot(b)
		},
	})
	figures, ferr := figure.Figures(append(m.samples, samples...))
	figure.Table(os.Stdout, figures)
	if *parts+*loads+*sides == "" {
		save(b, figures) // also where the run broke off: what came before it
	}
	if err := errors.Join(err, ferr); err != nil {
		b.Fatal(err)
	}
}

// runLimit is far more than the comparison takes anywhere.
const runLimit = 5 * time.Hour

// down switches the host off.
func (h *host) down(b testing.TB) {
	b.Helper()
	if err := h.Down(within(b, 90*time.Second)); err != nil {
		b.Fatal(err)
	}
}

// files measures what was built.
func (m *measure) files(b testing.TB) {
	for _, f := range []string{"ashlar.img", "bzImage", "initramfs.cpio.zst", "bin/ashlarctl"} {
		s, err := os.Stat(filepath.Join(top, "out", f))
		if err != nil {
			b.Fatal(err)
		}
		m.add("size of "+f, "MiB", float64(s.Size())/(1<<20))
	}
}

// boot measures the host that has just booted.
func (m *measure) boot(b testing.TB, h *host) {
	said := regexp.MustCompile(`READY \S+ in ([0-9.]+) s`).FindStringSubmatch(h.Serial())
	if said == nil {
		b.Fatal("the host did not say how long its boot took")
	}
	m.add("kernel entry to API", "s", number(b, said[1]))
	m.add("idle host memory", "MiB", h.usedMemory(b))
	for _, name := range []string{"ashlar-core", "ashlar-control", "ashlar-vmm", "ashlar-netd"} {
		f := strings.Fields(h.shell(b, "wc -c /bin/"+name))
		if len(f) == 0 {
			b.Fatalf("wc says nothing of %s", name)
		}
		m.add("size of "+name, "MiB", number(b, f[0])/(1<<20))
	}
}

// settle is how long a guest runs before its VMM's memory is looked at: what only the start took is
// given back 15 s after it.
const settle = 16 * time.Second

// guests measures guests that are started over the API, with a network card, and with all their vCPUs
// running.
func (m *measure) guests(b testing.TB, h *host) {
	for _, cpus := range []int32{1, 4} {
		say(fmt.Sprintf("a guest over the API, %d vCPUs", cpus))
		id := fmt.Sprintf("bench-%d", cpus)
		vm := testVM("")
		vm.Cpus = cpus
		h.create(b, id, vm)
		start := time.Now()
		h.boot(b, id)
		h.console(b, id).expect("TESTGUEST ready", patience)
		m.add(fmt.Sprintf("start call to guest ready with DHCP and %d vCPUs", cpus), "s", time.Since(start).Seconds())
		time.Sleep(settle)
		m.add(fmt.Sprintf("VMM memory with a network card (PSS), %d vCPUs", cpus), "MiB", h.vmmMemory(b))
		h.stop(b, id, true)
	}
}

// save writes out/bench.json.
func save(b testing.TB, figures []figure.Figure) {
	out, err := json.MarshalIndent(figures, "", "  ")
	if err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(top, "out/bench.json"), append(out, '\n'), 0o644); err != nil {
		b.Fatal(err)
	}
}

func number(b testing.TB, s string) float64 {
	b.Helper()
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		b.Fatal(err)
	}
	return v
}

// usedMemory is what an idle host holds, kernel, programs and the files in its
// root together, in MiB: MemTotal less MemFree, and less the free pages on the
// lists of each CPU, which MemFree leaves out. The rescue shell is part of it
// here, some 15 MiB that other hosts do not hold.
func (h *host) usedMemory(b testing.TB) float64 {
	b.Helper()
	kb := map[string]float64{}
	for line := range strings.Lines(h.shell(b, "cat /proc/meminfo")) {
		if f := strings.Fields(line); len(f) >= 2 {
			kb[strings.TrimSuffix(f[0], ":")] = number(b, f[1])
		}
	}
	if kb["MemTotal"] == 0 || kb["MemFree"] == 0 {
		b.Fatalf("/proc/meminfo has no MemTotal or no MemFree: %v", kb)
	}
	return (kb["MemTotal"]-kb["MemFree"])/1024 - h.listedPages(b)*float64(os.Getpagesize())/(1<<20)
}

// listedPages is how many free pages lie on the lists of each CPU (pagesets in
// /proc/zoneinfo).
func (h *host) listedPages(b testing.TB) float64 {
	b.Helper()
	var sum float64
	lists := 0
	for line := range strings.Lines(h.shell(b, "cat /proc/zoneinfo")) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "count:" {
			sum += number(b, f[1])
			lists++
		}
	}
	if lists == 0 {
		b.Fatal("/proc/zoneinfo shows no list of a CPU")
	}
	return sum
}

// vmmMemory is the PSS of the one VMM without its guest's memory, in MiB.
func (h *host) vmmMemory(b testing.TB) float64 {
	b.Helper()
	pids := h.pids(b, "ashlar-vmm")
	if len(pids) != 1 {
		b.Fatalf("%d VMMs run, want 1", len(pids))
	}
	var sum float64
	guest := false
	for line := range strings.Lines(h.shell(b, "cat /proc/"+pids[0]+"/smaps")) {
		f := strings.Fields(line)
		switch {
		case len(f) >= 5 && strings.Contains(f[0], "-") && len(f[1]) == 4:
			guest = strings.Contains(line, "/memfd:")
		case len(f) == 3 && f[0] == "Pss:" && !guest:
			sum += number(b, f[1])
		}
	}
	return sum / 1024
}
