package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// idleKernel is a multiboot 1 image (Multiboot 0.6.96, section 3.1) that halts with
// interrupts on, for ever.
func idleKernel() []byte {
	const magic, flags, load = 0x1badb002, 1 << 16, 1 << 20
	const size = 32 + 4
	sum := uint32(0)
	sum -= magic + flags
	var b bytes.Buffer
	for _, word := range []uint32{magic, flags, sum, load, load, load + size, load + size, load + 32} {
		_ = binary.Write(&b, binary.LittleEndian, word)
	}
	b.Write([]byte{0xfb, 0xf4, 0xeb, 0xfd}) // sti; hlt; jmp back
	return b.Bytes()
}

// threads are how many threads of a process of the host may run on which CPUs.
func (h *host) threads(t testing.TB, pid string) map[string]int {
	t.Helper()
	out := make(map[string]int)
	for line := range strings.Lines(h.shell(t, "grep -h Cpus_allowed_list /proc/"+pid+"/task/*/status")) {
		if f := strings.Fields(line); len(f) == 2 {
			out[f[1]]++
		}
	}
	return out
}

// guestCPUs are the CPUs that guests share.
func (h *host) guestCPUs(t testing.TB) string {
	t.Helper()
	return strings.TrimSpace(h.shell(t, "cat /sys/fs/cgroup/guests/cpuset.cpus.effective"))
}

// A guest is where it was promised: memory, the thread of its processor, and all others; the
// core is its own alone until it ends, whatever ends. Its host has four CPUs, of which the
// first is the control domain's, on two nodes: 0 and 1, 2 and 3.
func TestPlacement(t *testing.T) {
	h := newHost(t, options{cpus: 4})
	h.uploadBytes(t, "idle", idleKernel())
	h.farPool(t, "32")
	create := func(id string, args ...string) (string, error) {
		return h.ctl(append([]string{"vm", "create", id, "--memory", "64MiB,pages=2MiB", "--kernel", "idle", "--network", "default", "--start"}, args...)...)
	}
	if text, err := create("fast", "--placement", "auto", "--exclusive-cores"); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	check := func() {
		t.Helper()
		vm := h.inState(t, "fast", v1.VirtualMachine_STATE_RUNNING)
		if p := vm.ObservedPlacement; !slices.Equal(p.GetNodes(), []int32{1}) || !slices.Equal(p.GetExclusiveCpus(), []int32{2}) ||
			!slices.Equal(p.GetEmulationCpus(), []int32{3}) || !strings.Contains(p.GetReason(), "Node 1 was chosen: no other has room.") {
			t.Errorf("observed placement: %v", p)
		}
		if free := h.farPool(t, ""); free != "0" {
			t.Errorf("%s pages of node 1 are free, want none", free)
		}
		pids := h.pids(t, "ashlar-vmm")
		if len(pids) != 1 {
			t.Fatalf("VMMs %v, want one", pids)
		}
		// A thread of KVM's own is on the processor's CPU for a moment.
		for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
			got := h.threads(t, pids[0])
			if got["2"] == 1 && got["3"] >= 2 && len(got) == 2 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("threads of the VMM by their CPUs: %v\n%s", got, h.shell(t, "grep -H . /proc/"+pids[0]+"/task/*/comm"))
			}
		}
		for _, program := range []string{"init", "ashlar-core", "ashlar-control"} {
			for _, pid := range h.pids(t, program) {
				if got := h.threads(t, pid); got["0-1,3"] == 0 || len(got) != 1 {
					t.Errorf("threads of %s by their CPUs: %v", program, got)
				}
			}
		}
		if got := h.guestCPUs(t); got != "1,3" {
			t.Errorf("guests share the CPUs %s, want 1,3", got)
		}
		if text := h.shell(t, "cat /sys/fs/cgroup/guests/"+vm.GetUid()+"/vcpus/cpuset.cpus.partition"); strings.TrimSpace(text) != "isolated" {
			t.Errorf("the guest's core is no partition: %q", text)
		}
	}
	check()
	for _, tt := range []struct{ args, want string }{
		{"--placement auto --exclusive-cores", "node 0 has 1 of 2 cores free, 1 CPUs that guests share and 0 MiB; node 1 has 1 of 2 cores free"},
		{"--placement node=1", "NUMA node 1 has 0 of its 32 pages of 2MiB free"},
		{"--cpu-pinning 2", "CPU 2 is another guest's alone: 1,3 are shared."},
		{"--cpu-pinning 0", "CPU 0 is the control domain's"},
		{"--cpus 33", "32"},
	} {
		text, err := create("refused", strings.Fields(tt.args)...)
		if err == nil || !strings.Contains(text, tt.want) {
			t.Errorf("start with %s: %v, want it to say %q:\n%s", tt.args, err, tt.want, text)
		}
		h.remove(t, "refused")
	}
	h.killed(t, "ashlar-core")
	h.killed(t, "ashlar-control")
	h.connect(t)
	check()
	h.shell(t, "kill -9 "+h.pids(t, "ashlar-vmm")[0])
	h.waitStopped(t, "fast", v1.VirtualMachine_STOP_REASON_LOST)
	if got := h.guestCPUs(t); got != "1-3" {
		t.Errorf("guests share the CPUs %s when the guest is gone, want 1-3", got)
	}
	// A guest that ends while core is away gives its core back when core is there again.
	h.mustCtl(t, "vm", "start", "fast")
	check()
	h.shell(t, fmt.Sprintf("kill -9 %s %s", h.pids(t, "ashlar-core")[0], h.pids(t, "ashlar-vmm")[0]))
	h.waitStopped(t, "fast", v1.VirtualMachine_STOP_REASON_LOST)
	for deadline := time.Now().Add(patience); h.guestCPUs(t) != "1-3"; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("guests share the CPUs %s when core is there again, want 1-3", h.guestCPUs(t))
		}
	}
}
