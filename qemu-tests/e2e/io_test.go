package e2e

import (
	"strconv"
	"strings"
	"testing"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// io is a file of the io controller of a guest's control group.
func (h *host) io(t testing.TB, id, file string) string {
	t.Helper()
	return strings.TrimSpace(h.shell(t, "cat /sys/fs/cgroup/guests/"+h.vm(t, id).Uid+"/"+file))
}

// The control group of a guest bounds what all of its disks may do together, by their limits as they
// are, whoever dies meanwhile; what the guest writes counts there.
func TestDiskWall(t *testing.T) {
	h := sharedHost(t)
	h.create(t, "walled", testVM("", &v1.Disk{SizeBytes: 8 << 20, Limits: &v1.DiskLimits{BytesPerSecond: 8 << 20, BurstBytes: 2 << 20, OperationsPerSecond: 1000, BurstOperations: 100}}))
	t.Cleanup(func() { h.remove(t, "walled") })
	h.boot(t, "walled")
	holds := func(when, want string) {
		t.Helper()
		got := h.io(t, "walled", "io.max")
		if _, limits, _ := strings.Cut(got, " "); limits != want {
			t.Errorf("%s: io.max is %q, want %q", when, got, want)
		}
	}
	const at8 = "rbps=11534336 wbps=11534336 riops=8900 wiops=8900"
	holds("at first", at8)
	c := h.console(t, "walled")
	c.expect("TESTGUEST ready", patience)
	c.ask("write /dev/vda 3 8")
	written := 0
	for _, f := range strings.Fields(h.io(t, "walled", "io.stat")) {
		if s, ok := strings.CutPrefix(f, "wbytes="); ok {
			n, _ := strconv.Atoi(s)
			written += n
		}
	}
	if written < 8<<20 {
		t.Errorf("%d bytes count as written by the guest's group, of 8 MiB that it wrote and flushed", written)
	}

	h.mustCtl(t, "vm", "limit-disk", "walled", "0", "--bps", "20MiB", "--bps-burst", "10MiB")
	const at20 = "rbps=32505856 wbps=32505856 riops=max wiops=max"
	holds("with other limits", at20)
	h.mustCtl(t, "vm", "attach-disk", "walled", "--size", "8MiB")
	holds("with a disk without limits", "")
	h.killed(t, "ashlar-core")
	h.killed(t, "ashlar-control")
	h.mustCtl(t, "vm", "detach-disk", "walled", "1", "--delete-content", "--grace", "3m")
	holds("without that disk", at20)
	h.killed(t, "ashlar-core")
	holds("with another core", at20)
	h.mustCtl(t, "vm", "reset", "walled")
	holds("after a reset", at20)
	h.mustCtl(t, "vm", "limit-disk", "walled", "0")
	holds("without limits", "")
}
