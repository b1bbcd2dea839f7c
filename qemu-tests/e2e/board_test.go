package e2e

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// again waits until a guest runs that was started after a time.
func (h *host) again(t testing.TB, id string, after time.Time) *v1.VirtualMachine {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		vm := h.vm(t, id)
		if vm.State == v1.VirtualMachine_STATE_RUNNING && vm.StartTime.AsTime().After(after) {
			return vm
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is %v (%v %s), want it running again", id, vm.State, vm.StopReason, vm.StopMessage)
		}
	}
}

// TestBoard has the drivers of a guest find what is on board, and uses it: a watchdog that is
// not fed resets the guest, which can tell so then, and a panic is noted.
func TestBoard(t *testing.T) {
	const cardReset = "32" // WDIOF_CARDRESET
	h := sharedHost(t)
	vm := testVM("panic=0")
	vm.NetworkInterfaces = nil
	vm.Watchdog, vm.SerialNumber = &v1.Watchdog{Action: v1.Watchdog_ACTION_RESET}, "RACK 7/2"
	h.create(t, "board", vm)
	t.Cleanup(func() { h.remove(t, "board") })
	h.boot(t, "board")
	c := h.console(t, "board")
	c.expect("TESTGUEST ready", patience)
	if got := c.ask("read /sys/class/dmi/id/product_serial"); got != "RACK 7/2" {
		t.Errorf("serial number in the guest = %q", got)
	}
	for driver, device := range map[string]string{"vmgenid": "ASHL0001:00", "pvpanic-mmio": "QEMU0001:00"} {
		if got := c.ask("list /sys/bus/platform/drivers/" + driver); !strings.Contains(got, device) {
			t.Errorf("driver %s has %q, want %s", driver, got, device)
		}
	}

	before := h.vm(t, "board").StartTime.AsTime()
	if got := c.ask("starve 2"); got != "0" {
		t.Errorf("the watchdog says %s of the first start", got)
	}
	if got := h.again(t, "board", before); got.StopReason != v1.VirtualMachine_STOP_REASON_WATCHDOG {
		t.Errorf("started again for %v (%s)", got.StopReason, got.StopMessage)
	}
	if text := h.mustCtl(t, "vm", "get", "board"); !strings.Contains(text, "Last run ended:  watchdog") {
		t.Errorf("vm get says\n%s", text)
	}
	c = h.console(t, "board")
	c.expect("TESTGUEST ready", patience)
	if got := c.ask("starve 2000"); got != cardReset {
		t.Errorf("the watchdog says %s after it has reset the guest", got)
	}

	c.say("crash")
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		vm = h.vm(t, "board")
		if vm.StopReason == v1.VirtualMachine_STOP_REASON_PANICKED {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after a panic it is %v (%v %s)", vm.State, vm.StopReason, vm.StopMessage)
		}
	}
	if vm.State != v1.VirtualMachine_STATE_RUNNING || !strings.Contains(vm.StopMessage, "panicked at ") {
		t.Errorf("after a panic it is %v (%s)", vm.State, vm.StopMessage)
	}
	h.killed(t, "ashlar-core")
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		text, err := h.ctl("vm", "list")
		if err == nil && strings.Contains(text, "running (panicked)") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("vm list says\n%s, %v", text, err)
		}
	}
	if n := h.counters(t, "board").Devices; n["watchdog.expiries"] != 0 || n["watchdog.reloads"] == 0 {
		t.Errorf("counters: %v", n)
	}
	h.mustCtl(t, "vm", "reset", "board")
	if vm := h.vm(t, "board"); vm.StopReason != 0 {
		t.Errorf("after a reset it is %v (%v %s)", vm.State, vm.StopReason, vm.StopMessage)
	}
	h.console(t, "board").expect("TESTGUEST ready", patience)
}

// TestPanicSwitchesOff has a guest that asks for it switched off when it panics.
func TestPanicSwitchesOff(t *testing.T) {
	h := sharedHost(t)
	h.upload(t, "guest-kernel", filepath.Join(top, "out/guest-bzImage"))
	h.upload(t, "testguest", testInitramfs())
	h.mustCtl(t, "vm", "create", "crash", "--memory", "128MiB", "--kernel", "guest-kernel", "--initramfs", "testguest",
		"--cmdline", "console=ttyS0 quiet", "--on-panic", "power-off", "--start")
	t.Cleanup(func() { h.remove(t, "crash") })
	c := h.console(t, "crash")
	c.expect("TESTGUEST ready", patience)
	c.say("crash")
	h.waitStopped(t, "crash", v1.VirtualMachine_STOP_REASON_PANICKED)
}

// TestBare: a guest that is bare works by its serial port and its disk, and has no other device.
func TestBare(t *testing.T) {
	h := sharedHost(t)
	h.upload(t, "guest-kernel", filepath.Join(top, "out/guest-bzImage"))
	h.upload(t, "testguest", testInitramfs())
	h.mustCtl(t, "vm", "create", "bare", "--memory", "128MiB", "--kernel", "guest-kernel", "--initramfs", "testguest",
		"--cmdline", "console=ttyS0 quiet", "--disk", "size=8MiB", "--hotplug-slots", "0", "--bare", "--start")
	t.Cleanup(func() { h.remove(t, "bare") })
	c := h.console(t, "bare")
	c.expect("TESTGUEST ready", patience)
	if got := c.ask("last /dev/vda"); got != "0" {
		t.Errorf("an empty disk has %q", got)
	}
	for name := range h.counters(t, "bare").Devices {
		if device, _, _ := strings.Cut(name, "."); device == "balloon" || device == "console" || device == "entropy" {
			t.Errorf("it counts %s", name)
		}
	}
	if !h.vm(t, "bare").Bare {
		t.Error("the API does not say that it is bare")
	}
	if out, err := h.ctl("vm", "balloon", "bare", "4MiB"); err == nil || !strings.Contains(out, "bare") {
		t.Errorf("balloon of a bare guest: %v\n%s", err, out)
	}
}
