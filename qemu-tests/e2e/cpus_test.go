package e2e

import (
	"strings"
	"testing"
	"time"
)

// onlineCPUs brings all CPUs of the guest online until just these are.
func (c *console) onlineCPUs(want string) {
	c.t.Helper()
	got := ""
	for deadline := time.Now().Add(patience); got != want; time.Sleep(200 * time.Millisecond) {
		if got = c.ask("online"); got != want && time.Now().After(deadline) {
			c.t.Fatalf("CPUs %s of the guest are online, want %s; its kernel says:\n%s", got, want, c.ask("read /sys/devices/system/cpu/present"))
		}
	}
}

// TestProcessorsComeAndGo lets a busy guest grow from 1 of 4 processors to 3 and shrink to 2,
// which its kernel gives up; it survives a pause, and begins with 2 after a reset.
func TestProcessorsComeAndGo(t *testing.T) {
	h := sharedHost(t)
	vm := testVM("")
	vm.Cpus, vm.MaxCpus = 1, 4
	h.create(t, "grows", vm)
	t.Cleanup(func() { h.remove(t, "grows") })
	h.boot(t, "grows")
	c := h.console(t, "grows")
	if line := c.expect("TESTGUEST ready", patience); !strings.Contains(line, "cpus=1 ") {
		t.Errorf("the guest says %q, want 1 CPU", line)
	}
	if got := c.ask("read /sys/devices/system/cpu/possible"); got != "0-3" {
		t.Errorf("possible CPUs = %s, want 0-3", got)
	}
	c.ask("spin")
	h.mustCtl(t, "vm", "set-cpus", "grows", "3")
	c.onlineCPUs("0-2")
	h.mustCtl(t, "vm", "pause", "grows")
	if out, err := h.ctl("vm", "set-cpus", "grows", "2"); err == nil || !strings.Contains(out, "resume it") {
		t.Errorf("set-cpus of a paused guest: %v\n%s", err, out)
	}
	h.mustCtl(t, "vm", "resume", "grows")
	c.onlineCPUs("0-2")
	if n := len(h.counters(t, "grows").Cpus); n != 3 {
		t.Errorf("counters of %d processors, want 3", n)
	}

	h.mustCtl(t, "vm", "set-cpus", "grows", "2", "--grace", "5m")
	if vm := h.vm(t, "grows"); vm.Cpus != 2 || vm.PresentCpus != 2 || vm.MaxCpus != 4 {
		t.Errorf("after it gave one up: %d processors, %d present, of %d", vm.Cpus, vm.PresentCpus, vm.MaxCpus)
	}
	c.onlineCPUs("0-1")
	if list := h.mustCtl(t, "vm", "list"); !strings.Contains(list, " 2/4 ") {
		t.Errorf("list does not tell 2/4:\n%s", list)
	}
	h.mustCtl(t, "vm", "set-cpus", "grows", "3") // one that was given up comes again
	c.onlineCPUs("0-2")
	h.mustCtl(t, "vm", "set-cpus", "grows", "2", "--grace", "5m")
	h.mustCtl(t, "vm", "reset", "grows")
	if line := h.console(t, "grows").expect("TESTGUEST ready cpus=2", patience); !strings.Contains(line, "cpus=2 ") {
		t.Errorf("after a reset the guest says %q, want 2 CPUs", line)
	}
}
