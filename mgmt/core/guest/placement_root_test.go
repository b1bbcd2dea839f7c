//go:build roottest

package guest

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/ashlar-hv/ashlar/drivers/topology"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/thread"
	"golang.org/x/sys/unix"
)

// settleThreads makes the peer's threads for vCPUs, which do nothing.
func settleThreads(s *protocol.Spec, files []*os.File) error {
	for _, a := range s.Affinity {
		for range a.VCPUs {
			there := make(chan error)
			go func() {
				runtime.LockOSThread()
				var group *os.File
				if s.VCPUGroup != nil {
					group = files[*s.VCPUGroup]
				}
				there <- thread.Settle(group, a.CPUs)
				select {}
			}()
			if err := <-there; err != nil {
				return err
			}
		}
	}
	return nil
}

// allowed are the CPUs that a thread may run on.
func allowed(t *testing.T, tid string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/" + tid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "Cpus_allowed_list:")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}

// threads are those of a process, by the CPUs that they may run on.
func threads(t *testing.T, pid int) map[string][]int {
	t.Helper()
	out := make(map[string][]int)
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		cpus := allowed(t, fmt.Sprintf("%d/task/%d", pid, tid))
		out[cpus] = append(out[cpus], tid)
	}
	return out
}

// group is what is in a file of the group of guests, or of one below it.
func (b *bench) file(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{b.c.Cgroup}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// placed starts a guest without NICs at a place.
func (b *bench) placed(t *testing.T, n, vcpus int, p *hostcall.Placement) (string, error) {
	t.Helper()
	guest, g := b.create(t, n), b.guest(fmt.Sprintf("vm%d", n))
	g.NICs, g.VCPUs, g.Placement = nil, vcpus, p
	return guest, b.Start(t.Context(), guest, g)
}

// hostCPUs are the CPUs of the machine that the tests of many CPUs run on: two nodes, each
// with two cores of two threads.
func hostCPUs(t *testing.T) {
	t.Helper()
	host, err := topology.Read()
	if err != nil || len(host.CPUs) != 8 || len(host.Nodes) != 2 || !slices.Equal(host.CPUs[5].Siblings, []int{4, 5}) {
		t.Fatalf("the machine is another one: %+v, %v", host, err)
	}
	// Threads of a core and guests cannot both be emulated. The VMM of these tests runs no
	// guest: what core opens for it need not be KVM.
	if err := unix.Mknod("/dev/kvm", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))); err != nil && !errors.Is(err, unix.EEXIST) {
		t.Fatal(err)
	}
}

// interruptsOn are how many of the host's interrupts may come to any of cpus.
func interruptsOn(t *testing.T, cpus ...int) (n int) {
	t.Helper()
	files, err := filepath.Glob("/proc/irq/*/smp_affinity_list")
	if err != nil || len(files) == 0 {
		t.Fatal("there are no interrupts", err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		list, err := topology.ParseList(string(b))
		if err != nil {
			t.Fatal(err)
		}
		if overlap(list, cpus) {
			n++
		}
	}
	return n
}

// TestCPUsExclusive has a guest with cores of its own, which are taken from everybody, also
// over the end of core, and given back when it has ended.
func TestCPUsExclusive(t *testing.T) {
	hostCPUs(t)
	b := newBench(t)
	before := interruptsOn(t, 2, 3)
	node := 0
	guest, err := b.placed(t, 1, 2, &hostcall.Placement{Node: &node, ExclusiveCores: true})
	if err != nil {
		t.Fatal(err)
	}
	shared, err := b.placed(t, 2, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		d, err := b.Placed(guest)
		if err != nil || !slices.Equal(d.Exclusive, []int{2, 3}) || !slices.Equal(d.Nodes, []int{0}) || d.Why == "" {
			t.Fatalf("Placed = %+v, %v", d, err)
		}
		for _, f := range []struct{ path, want string }{
			{guest + "/vcpus/cpuset.cpus.partition", "isolated"},
			{guest + "/vcpus/cpuset.cpus.effective", "2-3"},
			{guest + "/emulation/cpuset.cpus.effective", topology.FormatList(d.Emulation)},
			{guest + "/cpuset.mems.effective", "0"},
			{shared + "/cpuset.cpus.effective", "4-7"},
			{"cpuset.cpus.effective", "4-7"},
		} {
			if got := b.file(t, f.path); got != f.want {
				t.Errorf("%s is %q, want %q", f.path, got, f.want)
			}
		}
		vmm := threads(t, b.status(t, guest).PID)
		if len(vmm["2"]) != 1 || len(vmm["3"]) != 1 || len(vmm) != 3 || len(vmm[topology.FormatList(d.Emulation)]) == 0 {
			t.Errorf("threads of the VMM by their CPUs: %v", vmm)
		}
		for _, tid := range []string{"1", "self"} { // init, and core
			if got := allowed(t, tid); got != "0-1,4-7" {
				t.Errorf("process %s may run on CPUs %s", tid, got)
			}
		}
		if n := interruptsOn(t, 2, 3); n > before/2 {
			t.Errorf("%d interrupts come to the guest's cores, were %d", n, before)
		}
	}
	check()
	if _, err := b.placed(t, 3, 1, &hostcall.Placement{CPUs: []int{3}}); code(err) != hostcall.ResourceExhausted {
		t.Errorf("Start on another guest's core: %v", err)
	}
	b.lookup(guest).client.close()
	b.lookup(shared).client.close()
	dirs := b.Manager.c
	b.Manager.c.RunDir, b.Manager.c.EndDir, b.Manager.c.Cgroup = t.TempDir(), t.TempDir(), t.TempDir()
	b.c = dirs
	b.restart(t)
	check()
	if err := syscall.Kill(b.status(t, guest).PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.wait(t, guest, hostcall.Stopped)
	if got := b.file(t, "cpuset.cpus.effective"); got != "2-7" {
		t.Errorf("guests have the CPUs %s when the guest is gone, want 2-7", got)
	}
	if n := interruptsOn(t, 2, 3); n != before {
		t.Errorf("%d interrupts come to the cores, were %d", n, before)
	}
}

// TestCPUsLostWithCore has a guest end while core is away: its cores come back with core.
func TestCPUsLostWithCore(t *testing.T) {
	hostCPUs(t)
	b := newBench(t)
	before := interruptsOn(t, 4, 5, 6, 7)
	guest, err := b.placed(t, 1, 3, &hostcall.Placement{CPUs: []int{4, 6, 2}, ExclusiveCores: true})
	if code(err) != hostcall.ResourceExhausted {
		t.Errorf("Start on the last cores of guests: %v", err)
	}
	if err := b.Delete(guest); err != nil {
		t.Fatal(err)
	}
	if guest, err = b.placed(t, 1, 2, &hostcall.Placement{CPUs: []int{4, 6}, ExclusiveCores: true}); err != nil {
		t.Fatal(err)
	}
	if got := b.file(t, guest, "vcpus/cpuset.cpus.effective"); got != "4-7" {
		t.Errorf("the guest has CPUs %s, want whole cores: 4-7", got)
	}
	pid := b.status(t, guest).PID
	b.lookup(guest).client.close()
	dirs := b.Manager.c
	b.Manager.c.RunDir, b.Manager.c.EndDir, b.Manager.c.Cgroup = t.TempDir(), t.TempDir(), t.TempDir()
	b.c = dirs
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); b.file(t, guest, "cgroup.events") != "populated 0\nfrozen 0"; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the VMM does not end")
		}
	}
	b.restart(t)
	if s := b.status(t, guest); s.State != hostcall.Stopped {
		t.Errorf("status = %+v", s)
	}
	if got := b.file(t, "cpuset.cpus.effective"); got != "2-7" {
		t.Errorf("guests have the CPUs %s when the guest is gone, want 2-7", got)
	}
	if n := interruptsOn(t, 4, 5, 6, 7); n != before {
		t.Errorf("%d interrupts come to the cores, were %d", n, before)
	}
}

// cookies waits until cookies can be told apart: the kernel shows them hashed, and all of
// them as 0 until it has random numbers for that.
func cookies(t *testing.T) {
	t.Helper()
	if _, err := unix.Getrandom(make([]byte, 1), 0); err != nil {
		t.Fatal(err)
	}
	shown := make(chan bool)
	go func() {
		runtime.LockOSThread() // not undone: the thread ends with the cookie
		err := unix.Prctl(unix.PR_SCHED_CORE, unix.PR_SCHED_CORE_CREATE, 0, unix.PR_SCHED_CORE_SCOPE_THREAD, 0)
		deadline := time.Now().Add(20 * time.Second)
		for err == nil && cookie(t, unix.Gettid()) == 0 && time.Now().Before(deadline) {
			time.Sleep(10 * time.Millisecond)
		}
		shown <- err == nil && time.Now().Before(deadline)
	}()
	if !<-shown {
		t.Fatal("the kernel has no core scheduling cookies, or does not show them")
	}
}

// cookie is the core scheduling cookie of a thread.
func cookie(t *testing.T, tid int) (c uint64) {
	t.Helper()
	if err := unix.Prctl(unix.PR_SCHED_CORE, unix.PR_SCHED_CORE_GET, uintptr(tid), unix.PR_SCHED_CORE_SCOPE_THREAD, uintptr(unsafe.Pointer(&c))); err != nil {
		t.Errorf("read core scheduling cookie: %v", err)
	}
	return c
}

// TestCPUsCookies looks at the cookies of two guests: all threads of one have the same, no
// other guest's has it, and the host's have none.
func TestCPUsCookies(t *testing.T) {
	hostCPUs(t)
	cookies(t)
	b := newBench(t)
	var seen []uint64
	for n, p := range []*hostcall.Placement{nil, {Pin: true}} {
		guest, err := b.placed(t, n, 2, p)
		if err != nil {
			t.Fatal(err)
		}
		pid := b.status(t, guest).PID
		of := make(map[uint64]int)
		for _, tids := range threads(t, pid) {
			for _, tid := range tids {
				of[cookie(t, tid)]++
			}
		}
		if len(of) != 1 || of[0] > 0 {
			t.Errorf("cookies of guest %d and how many threads have them: %v", n, of)
		}
		seen = append(seen, slices.Collect(maps.Keys(of))...)
	}
	if len(seen) != 2 || seen[0] == seen[1] {
		t.Errorf("cookies of the guests: %v", seen)
	}
	for _, tids := range threads(t, os.Getpid()) {
		for _, tid := range tids {
			// The first thread does not end with its goroutine, which may have made a cookie.
			if c := cookie(t, tid); c != 0 && tid != os.Getpid() {
				t.Errorf("a thread of core has cookie %d", c)
			}
		}
	}
}

// TestCPUsPinned has processors that share their CPUs with others, and other threads beside
// them.
func TestCPUsPinned(t *testing.T) {
	hostCPUs(t)
	b := newBench(t)
	guest, err := b.placed(t, 1, 2, &hostcall.Placement{Auto: true, Pin: true})
	if err != nil {
		t.Fatal(err)
	}
	d, err := b.Placed(guest)
	if err != nil || len(d.Nodes) != 1 || len(d.Affinity) != 2 {
		t.Fatalf("Placed = %+v, %v", d, err)
	}
	vmm := threads(t, b.status(t, guest).PID)
	for _, a := range d.Affinity {
		if got := vmm[topology.FormatList(a.CPUs)]; len(got) != 1 {
			t.Errorf("threads on CPUs %v: %v", a.CPUs, got)
		}
		if overlap(a.CPUs, d.Emulation) {
			t.Errorf("other threads may run on CPUs %v, as a processor does", d.Emulation)
		}
	}
	if len(vmm) != 3 || len(vmm[topology.FormatList(d.Emulation)]) == 0 {
		t.Errorf("threads of the VMM by their CPUs: %v", vmm)
	}
	if got := b.file(t, "cpuset.cpus.effective"); got != "2-7" {
		t.Errorf("guests have the CPUs %s, want 2-7", got)
	}
	// Beyond what the six CPUs of guests may have.
	if _, err := b.placed(t, 2, 6*16, nil); code(err) != hostcall.ResourceExhausted {
		t.Errorf("Start of more processors than there may be: %v", err)
	}
}
