package e2e

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// counters are those of a guest.
func (h *host) counters(t testing.TB, id string) *v1.VirtualMachineCounters {
	t.Helper()
	r, err := h.VirtualMachines.GetVirtualMachineCounters(within(t, time.Minute), connect.NewRequest(&v1.GetVirtualMachineCountersRequest{
		Name: "virtualMachines/" + id,
	}))
	if err != nil {
		t.Fatalf("counters of %s: %v", id, err)
	}
	return r.Msg
}

// inState wants a guest to come into a state.
func (h *host) inState(t testing.TB, id string, want v1.VirtualMachine_State) *v1.VirtualMachine {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		vm := h.vm(t, id)
		if vm.State == want {
			return vm
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is %v (%v), want %v", id, vm.State, vm.StopReason, want)
		}
	}
}

// killed kills a program of the host's and waits until it is there again.
func (h *host) killed(t testing.TB, program string) {
	t.Helper()
	old := h.pids(t, program)
	if len(old) != 1 {
		t.Fatalf("%d of %s run, want one", len(old), program)
	}
	h.shell(t, "kill -9 "+old[0])
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		if now := h.pids(t, program); len(now) == 1 && now[0] != old[0] {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come back", program)
		}
	}
}

// standsStill sees that a paused guest does nothing for a while.
func (h *host) standsStill(t testing.TB, c *console) {
	t.Helper()
	time.Sleep(time.Second) // what it had printed before arrives
	acks, before := c.ack(), h.counters(t, c.id)
	time.Sleep(2 * time.Second)
	after := h.counters(t, c.id)
	if now := c.ack(); now != acks {
		t.Errorf("%s went from write %d to %d while it was paused", c.id, acks, now)
	}
	for _, name := range []string{"disk0.writes", "disk0.flushes", "disk0.kicks"} {
		if before.Devices[name] == 0 || before.Devices[name] != after.Devices[name] {
			t.Errorf("%s of a paused guest went from %d to %d, want it to stay where it is, not at 0", name, before.Devices[name], after.Devices[name])
		}
	}
	if a, b := before.Cpus[0].Counters["io_exits"], after.Cpus[0].Counters["io_exits"]; a != b {
		t.Errorf("io_exits of a paused guest went from %d to %d", a, b)
	}
}

// noneLost sees that the acknowledged writes on a console follow one another.
func (c *console) noneLost() {
	c.t.Helper()
	c.mu.Lock()
	text := c.text.String()
	c.mu.Unlock()
	last := 0
	for line := range strings.Lines(text[:strings.LastIndexByte(text, '\n')+1]) {
		s, ok := strings.CutPrefix(strings.TrimSpace(line), "ACK ")
		n, err := strconv.Atoi(s)
		if !ok || err != nil {
			continue
		}
		if last != 0 && n != last+1 {
			c.t.Errorf("%s: after write %d comes write %d", c.id, last, n)
		}
		last = n
	}
}

// TestPause pauses a guest that writes to its disk as fast as it can, kills the
// host's own programs under it, and lets it go on.
func TestPause(t *testing.T) {
	h := sharedHost(t)
	h.create(t, "paused", testVM("", &v1.Disk{SizeBytes: 8 << 20}))
	t.Cleanup(func() { h.remove(t, "paused") })
	h.boot(t, "paused")
	c := h.console(t, "paused")
	c.expect("TESTGUEST ready", patience)
	started := h.vm(t, "paused").StartTime.AsTime()
	c.say("log /dev/vda")
	c.waitAcks(20, patience)

	h.mustCtl(t, "vm", "pause", "paused")
	h.mustCtl(t, "vm", "wait", "paused", "--for", "paused", "--timeout", "30s")
	h.standsStill(t, c)
	h.mustCtl(t, "vm", "resume", "paused")
	c.waitAcks(c.ack()+20, patience)
	c.noneLost()

	h.mustCtl(t, "vm", "pause", "paused")
	vmm := h.pids(t, "ashlar-vmm")
	h.killed(t, "ashlar-core")
	h.inState(t, "paused", v1.VirtualMachine_STATE_PAUSED)
	h.killed(t, "ashlar-control")
	vm := h.inState(t, "paused", v1.VirtualMachine_STATE_PAUSED)
	if !vm.StartTime.AsTime().Equal(started) || !vm.DesiredRunning {
		t.Errorf("after the end of core and control the guest is %v, want it to have run since %v", vm, started)
	}
	if now := h.pids(t, "ashlar-vmm"); len(now) != 1 || len(vmm) != 1 || now[0] != vmm[0] {
		t.Errorf("the VMM was process %v and is %v", vmm, now)
	}
	c = h.console(t, "paused") // a paused guest shows what it has printed
	c.waitAcks(40, patience)
	h.standsStill(t, c)
	if out, err := h.ctl("vm", "nmi", "paused"); err == nil || !strings.Contains(out, "is paused: resume it") {
		t.Errorf("an NMI to a paused guest says %q (%v), want what to do", out, err)
	}
	h.mustCtl(t, "vm", "resume", "paused")
	c.waitAcks(c.ack()+20, patience)
	c.noneLost()

	h.mustCtl(t, "vm", "pause", "paused")
	h.stop(t, "paused", false) // which resumes it, so that it can
	h.waitStopped(t, "paused", v1.VirtualMachine_STOP_REASON_POWERED_OFF)
	h.boot(t, "paused")
	h.mustCtl(t, "vm", "pause", "paused")
	h.stop(t, "paused", true)
	h.waitStopped(t, "paused", v1.VirtualMachine_STOP_REASON_KILLED)
}

// TestResetNMIAndCounters turns the other knobs of a machine.
func TestResetNMIAndCounters(t *testing.T) {
	h := sharedHost(t)
	vm := testVM("", &v1.Disk{SizeBytes: 16 << 20})
	vm.Cpus = 2
	h.create(t, "knobs", vm)
	t.Cleanup(func() { h.remove(t, "knobs") })
	h.boot(t, "knobs")
	c := h.console(t, "knobs")
	c.expect("TESTGUEST ready", patience)

	if got := c.ask("nmis"); got != "0" {
		t.Errorf("the guest has met %s NMIs before the first", got)
	}
	for n := 1; n <= 2; n++ {
		h.mustCtl(t, "vm", "nmi", "knobs")
		got := ""
		for deadline := time.Now().Add(patience); got != strconv.Itoa(n) && time.Now().Before(deadline); {
			got = c.ask("nmis")
		}
		if got != strconv.Itoa(n) {
			t.Fatalf("after %d NMIs the guest has met %s", n, got)
		}
	}

	before := h.counters(t, "knobs")
	if got := c.ask("write /dev/vda 5 8"); got != "8" {
		t.Errorf("the guest's disk says %q", got)
	}
	after := h.counters(t, "knobs")
	grown := func(name string) int64 { return after.Devices[name] - before.Devices[name] }
	if n := grown("disk0.written_bytes"); n < 8<<20 || n > 9<<20 {
		t.Errorf("written_bytes has grown by %d for 8 MiB", n)
	}
	for _, name := range []string{"disk0.writes", "disk0.flushes", "disk0.kicks", "disk0.interrupts"} {
		if grown(name) <= 0 {
			t.Errorf("%s has grown by %d", name, grown(name))
		}
	}
	for _, name := range []string{"disk0.errors", "disk0.trapped_kicks"} {
		if n, ok := after.Devices[name]; !ok || n != 0 {
			t.Errorf("%s = %d, %v, want 0", name, n, ok)
		}
	}
	if after.Devices["nic0.tx_bytes"] == 0 || after.Devices["nic0.rx_packets"] == 0 { // of DHCP
		t.Errorf("the network interface has counted nothing: %v", after.Devices)
	}
	// KVM counts an injection that an exit undoes, and that it makes again, twice.
	if len(after.Cpus) != 2 || after.Cpus[0].Counters["nmi_injections"] < 2 || after.Cpus[1].Counters["nmi_injections"] != 0 || after.Cpus[1].Counters["exits"] == 0 {
		t.Errorf("counters of the processors: %v", after.Cpus)
	}
	var stats v1Counters
	if err := json.Unmarshal([]byte(h.mustCtl(t, "vm", "stats", "knobs", "-o", "json")), &stats); err != nil || stats.Devices["disk0.writes"] == "" {
		t.Errorf("ashlarctl vm stats: %v, %v", stats, err)
	}

	for _, paused := range []bool{false, true} {
		ran := h.vm(t, "knobs").StartTime.AsTime()
		if paused {
			h.mustCtl(t, "vm", "pause", "knobs")
		}
		h.mustCtl(t, "vm", "reset", "knobs")
		if vm := h.vm(t, "knobs"); vm.State != v1.VirtualMachine_STATE_RUNNING || !vm.StartTime.AsTime().After(ran) || !vm.DesiredRunning {
			t.Errorf("after a reset (paused before: %v) the guest is %v since %v, want it running anew", paused, vm.State, vm.StartTime.AsTime())
		}
		c = h.console(t, "knobs")
		c.expect("TESTGUEST ready", patience)
		if got := h.counters(t, "knobs").Devices["disk0.writes"]; got != 0 {
			t.Errorf("after a reset the disk has counted %d writes", got)
		}
	}
	c.ask("check /dev/vda 5 8") // disks keep what was written
}

// v1Counters are counters as ashlarctl writes them.
type v1Counters struct {
	Devices map[string]string `json:"devices"`
}

// TestHostPowerButtonWithAPausedGuest switches a host off that has a paused guest: the
// guest can switch itself off, also where core has been started anew meanwhile.
func TestHostPowerButtonWithAPausedGuest(t *testing.T) {
	h := newHost(t, options{})
	h.create(t, "sleeper", testVM(""))
	h.boot(t, "sleeper")
	h.console(t, "sleeper").expect("TESTGUEST ready", patience)
	h.mustCtl(t, "vm", "pause", "sleeper")
	h.killed(t, "ashlar-core")
	h.inState(t, "sleeper", v1.VirtualMachine_STATE_PAUSED)
	if err := h.Down(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	h.reboot(t)
	if out := h.mustCtl(t, "vm", "logs", "sleeper"); !strings.Contains(out, "TESTGUEST power button") {
		t.Errorf("the guest was not asked to power off:\n%s", out)
	}
	if vm := h.vm(t, "sleeper"); vm.State != v1.VirtualMachine_STATE_STOPPED {
		t.Errorf("after the host's reboot the guest is %v, want it stopped", vm.State)
	}
}
