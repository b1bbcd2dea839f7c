package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A figure is a line of out/bench.json.
type figure struct {
	Name   string  `json:"name"`
	Unit   string  `json:"unit"`
	Better string  `json:"better"`
	Ours   float64 `json:"ours"`
}

// BenchmarkHost takes the figures of docs/SPECIFICATION.md: sizes, memory, and
// times as the lab shows them on this machine.
func BenchmarkHost(b *testing.B) {
	var all []figure
	add := func(name, unit string, v float64) {
		all = append(all, figure{name, unit, "lower", v})
		b.ReportMetric(v, strings.ReplaceAll(name, " ", "-")+"_"+unit)
	}
	for _, f := range []string{"ashlar.img", "bzImage", "initramfs.cpio.zst", "bin/ashlarctl"} {
		s, err := os.Stat(filepath.Join(top, "out", f))
		if err != nil {
			b.Fatal(err)
		}
		add("size of "+f, "MiB", float64(s.Size())/(1<<20))
	}
	h := newHost(b, options{})
	// The first boot formats the disk; the second is what a host's boots are like.
	if err := h.Down(within(b, 90*time.Second)); err != nil {
		b.Fatal(err)
	}
	h.reboot(b)
	m := regexp.MustCompile(`READY \S+ in ([0-9.]+) s`).FindStringSubmatch(h.Serial())
	if m == nil {
		b.Fatal("the host did not say how long its boot took")
	}
	add("kernel entry to API", "s", number(b, m[1]))
	add("idle host memory", "MiB", h.usedMemory(b))
	for _, name := range []string{"ashlar-core", "ashlar-control", "ashlar-vmm", "ashlar-netd"} {
		f := strings.Fields(h.shell(b, "wc -c /bin/"+name))
		if len(f) == 0 {
			b.Fatalf("wc says nothing of %s", name)
		}
		add("size of "+name, "MiB", number(b, f[0])/(1<<20))
	}
	for _, cpus := range []int32{1, 4} {
		id := fmt.Sprintf("bench-%d", cpus)
		vm := testVM("")
		vm.Cpus = cpus
		h.create(b, id, vm)
		start := time.Now()
		h.boot(b, id)
		h.console(b, id).expect("TESTGUEST ready", time.Minute)
		add(fmt.Sprintf("start call to guest ready with DHCP and %d vCPUs", cpus), "s", time.Since(start).Seconds())
		time.Sleep(2 * time.Second)
		add(fmt.Sprintf("VMM memory besides the guest's with %d vCPUs", cpus), "MiB", h.vmmMemory(b))
		h.stop(b, id, true)
	}
	out, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(top, "out/bench.json"), append(out, '\n'), 0o644); err != nil {
		b.Fatal(err)
	}
	for _, f := range all {
		fmt.Printf("%-60s %10.2f %s\n", f.Name, f.Ours, f.Unit)
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
