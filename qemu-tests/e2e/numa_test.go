package e2e

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// onNodes is how much memory, in MiB, the guest with that UID has on the host's nodes 0 and 1.
func (h *host) onNodes(t testing.TB, uid string) (near, far int) {
	t.Helper()
	text := h.shell(t, "grep '^shmem ' /sys/fs/cgroup/guests/"+uid+"/memory.numa_stat")
	if _, err := fmt.Sscanf(strings.TrimSpace(text), "shmem N0=%d N1=%d", &near, &far); err != nil {
		t.Fatalf("memory.numa_stat says %q: %v", text, err)
	}
	return near >> 20, far >> 20
}

// farPool sets the size of the pool of 2 MiB pages of the host's node 1, and returns how
// many of it are free.
func (h *host) farPool(t testing.TB, pages string) string {
	t.Helper()
	const dir = "/sys/devices/system/node/node1/hugepages/hugepages-2048kB/"
	if pages != "" {
		// The kernel allocates what it finds in one piece at the moment, which may be fewer.
		eventually(t, "pages of node 1", " "+pages+" ", func() string {
			return " " + strings.TrimSpace(h.shell(t, "echo "+pages+" > "+dir+"nr_hugepages; cat "+dir+"nr_hugepages")) + " "
		})
	}
	return strings.TrimSpace(h.shell(t, "cat "+dir+"free_hugepages"))
}

// A guest of two nodes, the first on the host's second node, sees what it was promised,
// and has its memory where it was promised.
func TestNUMA(t *testing.T) {
	h := sharedHost(t)
	vm := testVM("loglevel=5")
	vm.Cpus, vm.MemoryBytes = 4, 384<<20
	vm.MemoryBacking = &v1.MemoryBacking{Populate: true}
	vm.NumaNodes = []*v1.NumaNode{
		{Cpus: []int32{0, 1}, MemoryBytes: 256 << 20, HostNodes: []int32{1}, Distances: []int32{10, 17}},
		{Cpus: []int32{2, 3}, MemoryBytes: 128 << 20, HostNodes: []int32{0}, Distances: []int32{42, 10}},
	}
	h.create(t, "numa", vm)
	t.Cleanup(func() { h.remove(t, "numa") })
	h.boot(t, "numa")
	// All of the memory, and the firmware's part of it, is there before the guest starts.
	if near, far := h.onNodes(t, h.vm(t, "numa").GetUid()); near != 128 || far != 256 {
		t.Errorf("%d MiB of the guest are on the host's node 0 and %d on node 1, want 128 and 256", near, far)
	}
	c := h.console(t, "numa")
	c.expect("TESTGUEST ready cpus=4", patience)
	const nodes = "read /sys/devices/system/node/"
	for file, want := range map[string]string{
		"online": "0-1", "node0/cpulist": "0-1", "node1/cpulist": "2-3", "node0/distance": "10 17", "node1/distance": "42 10",
	} {
		if got := c.ask(nodes + file); got != want {
			t.Errorf("the guest's %s is %q, want %q", file, got, want)
		}
	}
	for node, want := range map[string]int{"node0": 256 << 10, "node1": 128 << 10} {
		// The kernel keeps its own image and page structures out of it.
		if n := c.memTotal(node); n > want || n < want*7/8 {
			t.Errorf("the guest's %s has %d KiB, want most of %d", node, n, want)
		}
	}
	if got := c.ask("topology"); got != arranged(2, 2, 1) {
		t.Errorf("topology = %s, want a socket for each node", got)
	}
	if text := h.mustCtl(t, "vm", "logs", "numa"); strings.Contains(text, "WARNING: CPU") || strings.Contains(text, "not on the same node") {
		t.Errorf("the guest's kernel complains:\n%s", text)
	}
	if text := h.mustCtl(t, "vm", "get", "numa"); !strings.Contains(text, "CPUs 0-1, 256MiB, on the host's node 1, distances 10 17") {
		t.Errorf("ashlarctl says:\n%s", text)
	}
	h.stop(t, "numa", false)
}

// memTotal is how much memory, in KiB, the guest sees on a node of its own.
func (c *console) memTotal(node string) int {
	c.t.Helper()
	p := memTotal.FindStringSubmatch(c.ask("read /sys/devices/system/node/" + node + "/meminfo"))
	if p == nil {
		c.t.Fatalf("the guest's %s tells no MemTotal", node)
	}
	n, err := strconv.Atoi(p[1])
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

var memTotal = regexp.MustCompile(`MemTotal: (\d+) kB`)

// Processors and memory that come while a guest runs are of the nodes that they were given,
// and what is plugged in is taken from the host's node of the last one.
func TestNUMAComesAndGoes(t *testing.T) {
	h := sharedHost(t)
	vm := testVM("memhp_default_state=online")
	vm.Cpus, vm.MaxCpus, vm.MemoryBytes, vm.MaxMemoryBytes = 1, 4, 256<<20, 512<<20
	vm.MemoryBacking = &v1.MemoryBacking{Populate: true}
	vm.NumaNodes = []*v1.NumaNode{
		{Cpus: []int32{0, 2}, MemoryBytes: 160 << 20, HostNodes: []int32{0}},
		{Cpus: []int32{1, 3}, MemoryBytes: 96 << 20, HostNodes: []int32{1}},
	}
	h.create(t, "numa-grows", vm)
	t.Cleanup(func() { h.remove(t, "numa-grows") })
	h.boot(t, "numa-grows")
	c := h.console(t, "numa-grows")
	c.expect("TESTGUEST ready cpus=1", patience)
	before := c.memTotal("node1")
	h.mustCtl(t, "vm", "set-cpus", "numa-grows", "4")
	c.onlineCPUs("0-3")
	for file, want := range map[string]string{"node0/cpulist": "0,2", "node1/cpulist": "1,3"} {
		if got := c.ask("read /sys/devices/system/node/" + file); got != want {
			t.Errorf("the guest's %s is %q, want %q", file, got, want)
		}
	}
	h.mustCtl(t, "vm", "set-memory", "numa-grows", "512MiB")
	h.has(t, "numa-grows", exactly(512))
	for deadline := time.Now().Add(patience); c.memTotal("node1") != before+256<<10; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the guest's node 1 has %d KiB, %d before", c.memTotal("node1"), before)
		}
	}
	// It uses more than it began with: what it has free it gives back.
	c.say("fill 300")
	c.expect("OK fill", patience)
	if near, far := h.onNodes(t, h.vm(t, "numa-grows").GetUid()); near > 160 || far < 300-160 {
		t.Errorf("%d MiB of the guest are on the host's node 0 and %d on node 1, want at most 160, and the rest of 300", near, far)
	}
	c.ask("drop")
	h.mustCtl(t, "vm", "set-cpus", "numa-grows", "2", "--grace", "5m")
	c.onlineCPUs("0-1")
}

// A guest on nodes of a host whose firmware tells how fast memory is learns it for its own.
func TestNUMATellsHowFastMemoryIs(t *testing.T) {
	args := strings.Fields("-machine hmat=on -smp 1 -m 2G" +
		" -object memory-backend-ram,id=near,size=1536M -object memory-backend-ram,id=far,size=512M" +
		" -numa node,nodeid=0,memdev=near,cpus=0-0,initiator=0 -numa node,nodeid=1,memdev=far,initiator=0 -numa dist,src=0,dst=1,val=21")
	for target, n := range []struct{ latency, bandwidth int }{{20, 8 << 10}, {70, 3 << 10}} {
		to := fmt.Sprintf("hmat-lb,initiator=0,target=%d,hierarchy=memory,data-type=access-", target)
		args = append(args, "-numa", fmt.Sprintf("%slatency,latency=%d", to, n.latency), "-numa", fmt.Sprintf("%sbandwidth,bandwidth=%dM", to, n.bandwidth))
	}
	h := newHost(t, options{args: args})
	vm := testVM("")
	vm.Cpus, vm.MemoryBytes = 2, 256<<20
	vm.NumaNodes = []*v1.NumaNode{
		{Cpus: []int32{0, 1}, MemoryBytes: 128 << 20, HostNodes: []int32{0}}, {MemoryBytes: 128 << 20, HostNodes: []int32{1}},
	}
	h.create(t, "told", vm)
	h.boot(t, "told")
	c := h.console(t, "told")
	c.expect("TESTGUEST ready", patience)
	for file, want := range map[string]string{
		"node0/access0/initiators/read_latency": "20", "node0/access0/initiators/write_bandwidth": "8192",
		"node1/access0/initiators/write_latency": "70", "node1/access0/initiators/read_bandwidth": "3072",
	} {
		if got := c.ask("read /sys/devices/system/node/" + file); got != want {
			t.Errorf("the guest's %s is %s, want %s", file, got, want)
		}
	}
	h.stop(t, "told", false)
}

// What the host has not on the node that is asked for is refused, with what it has.
func TestNUMARefused(t *testing.T) {
	h := sharedHost(t)
	h.create(t, "unused", testVM("")) // for its images
	h.remove(t, "unused")
	t.Cleanup(func() {
		h.farPool(t, "0")
		h.remove(t, "refused")
	})
	start := func(memory string, numa ...string) (string, error) {
		args := []string{"vm", "create", "refused", "--cpus", "2", "--memory", memory,
			"--kernel", "guest-kernel", "--initramfs", "testguest", "--cmdline", "console=ttyS0 quiet", "--start"}
		for _, n := range numa {
			args = append(args, "--numa", n)
		}
		return h.ctl(args...)
	}
	h.farPool(t, "63")
	if text := h.mustCtl(t, "host", "topology"); !regexp.MustCompile(`(?s)Node 0: .* CPUs? 0.*Node 1: .*distances 21 10.*Pages of 2MiB: +63, 63 free`).MatchString(text) {
		t.Errorf("ashlarctl says of the host:\n%s", text)
	}
	for _, tt := range []struct{ memory, numa, want string }{
		{"128MiB", "nodes=2,host=0+5", "no NUMA node 5 with memory: it has 0-1."},
		{"1026MiB", "nodes=1,host=1", "NUMA node 1 has "},
		{"128MiB,pages=2MiB", "nodes=1,host=1", "NUMA node 1 has 63 of its 63 pages of 2MiB free, 64 are asked for"},
	} {
		text, err := start(tt.memory, tt.numa)
		if err == nil || !strings.Contains(text+err.Error(), tt.want) {
			t.Errorf("start of %s on %s: %v, want it to say %q:\n%s", tt.memory, tt.numa, err, tt.want, text)
		}
		h.remove(t, "refused")
	}
	// Pages of the pool of one node: they are allocated, all of them, and only there.
	h.farPool(t, "64")
	if text, err := start("128MiB,pages=2MiB", "nodes=1,host=1"); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if free := h.farPool(t, ""); free != "0" {
		t.Errorf("%s pages of node 1 are free, want none", free)
	}
	h.console(t, "refused").expect("TESTGUEST ready", patience)
	h.stop(t, "refused", true)
	if free := h.farPool(t, ""); free != "64" {
		t.Errorf("%s pages of node 1 are free when the guest is gone, want 64", free)
	}
}
