package e2e

import (
	"strconv"
	"testing"
	"time"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// diskSize waits until the guest sees so many bytes on its first disk.
func (c *console) diskSize(want int) {
	c.t.Helper()
	got := ""
	for deadline := time.Now().Add(patience); got != strconv.Itoa(want/512); time.Sleep(100 * time.Millisecond) {
		if got = c.ask("read /sys/block/vda/size"); time.Now().After(deadline) {
			c.t.Fatalf("the guest sees %s sectors of 512 bytes, want %d", got, want/512)
		}
	}
}

// A disk grows while its guest runs and while it is paused; the guest writes up to its
// new end, and finds all of it after a restart.
func TestDiskGrowsWhileTheGuestRuns(t *testing.T) {
	h := sharedHost(t)
	h.create(t, "growing", testVM("", &v1.Disk{SizeBytes: 8 << 20}))
	t.Cleanup(func() { h.remove(t, "growing") })
	h.boot(t, "growing")
	c := h.console(t, "growing")
	c.expect("TESTGUEST ready", patience)
	c.diskSize(8 << 20)
	c.ask("write /dev/vda 3 8")

	h.mustCtl(t, "vm", "resize-disk", "growing", "0", "16MiB")
	c.diskSize(16 << 20)
	c.ask("check /dev/vda 3 8")
	c.ask("write /dev/vda 4 16")
	h.mustCtl(t, "vm", "pause", "growing")
	h.mustCtl(t, "vm", "resize-disk", "growing", "0", "24MiB")
	h.mustCtl(t, "vm", "resume", "growing")
	c.diskSize(24 << 20)
	c.ask("check /dev/vda 4 16")
	c.ask("write /dev/vda 5 24")
	if out, err := h.ctl("vm", "resize-disk", "growing", "0", "8MiB"); err == nil {
		t.Errorf("a disk has become smaller: %s", out)
	}
	if n := h.counters(t, "growing").Devices["disk0.errors"]; n != 0 {
		t.Errorf("%d requests failed", n)
	}

	h.stop(t, "growing", false)
	h.mustCtl(t, "vm", "resize-disk", "growing", "0", "32MiB")
	if n := h.vm(t, "growing").Disks[0].SizeBytes; n != 32<<20 {
		t.Errorf("the disk is recorded with %d bytes, want 32 MiB", n)
	}
	h.boot(t, "growing")
	c = h.console(t, "growing")
	c.expect("TESTGUEST ready", patience)
	c.diskSize(32 << 20)
	c.ask("check /dev/vda 5 24")
}

// A disk with limits waits for them, and loses nothing by it; the limits change while
// the guest runs, and are there at the next start.
func TestDiskLimits(t *testing.T) {
	h := sharedHost(t)
	h.create(t, "limited", testVM("", &v1.Disk{SizeBytes: 8 << 20, Limits: &v1.DiskLimits{BytesPerSecond: 8 << 20}}))
	t.Cleanup(func() { h.remove(t, "limited") })
	h.boot(t, "limited")
	c := h.console(t, "limited")
	c.expect("TESTGUEST ready", patience)
	throttled := func() int64 { return h.counters(t, "limited").Devices["disk0.throttled"] }

	c.ask("write /dev/vda 3 8")
	limited := throttled()
	for _, kind := range []string{"read", "write", "flush"} {
		var sum int64
		for _, n := range h.counters(t, "limited").Latencies["disk0."+kind].GetCounts() {
			sum += n
		}
		if sum == 0 {
			t.Errorf("no time of a %s has been counted", kind)
		}
	}
	if limited == 0 {
		t.Error("8 MiB at 8 MiB a second have not waited")
	}
	h.mustCtl(t, "vm", "limit-disk", "limited", "0", "--bps", "1MiB")
	c.paced("timed write /dev/vda 3 6", 6<<20, 1<<20, 1<<20/10)
	h.mustCtl(t, "vm", "limit-disk", "limited", "0")
	before := throttled()
	c.ask("check /dev/vda 3 8")
	c.ask("write /dev/vda 4 8")
	if n := throttled(); n != before {
		t.Errorf("%d requests have waited for limits that are no more", n-before)
	}
	h.mustCtl(t, "vm", "limit-disk", "limited", "0", "--bps", "4MiB", "--iops", "20", "--iops-burst", "1")
	h.mustCtl(t, "vm", "reset", "limited")
	c = h.console(t, "limited")
	c.expect("TESTGUEST ready", patience)
	c.ask("check /dev/vda 4 8")
	if throttled() == 0 {
		t.Error("the limits were not there at the next start")
	}
}
