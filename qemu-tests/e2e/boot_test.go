package e2e

import (
	"fmt"
	"path/filepath"
	"testing"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// TestELFKernel boots vmlinux by its PVH entry: alone, with four vCPUs, and with
// memory above 4 GiB.
func TestELFKernel(t *testing.T) {
	h := newHost(t, options{args: []string{"-m", "6G"}})
	h.upload(t, "vmlinux", filepath.Join(top, "out/guest-vmlinux"))
	for _, c := range []struct {
		name string
		cpus int32
		mib  int64
	}{
		{"one vCPU", 1, 128},
		{"four vCPUs and memory above 4 GiB", 4, 4096},
	} {
		t.Run(c.name, func(t *testing.T) {
			id := fmt.Sprintf("elf-%d", c.cpus)
			vm := testVM("")
			vm.Boot.Kernel = "images/vmlinux"
			vm.Cpus, vm.MemoryBytes = c.cpus, c.mib<<20
			h.create(t, id, vm)
			t.Cleanup(func() { h.remove(t, id) })
			h.boot(t, id)
			con := h.console(t, id)
			line := con.expect("TESTGUEST ready", patience)
			var cpus int32
			var mib int64
			if _, err := fmt.Sscanf(line, "TESTGUEST ready cpus=%d mem=%dMiB", &cpus, &mib); err != nil || cpus != c.cpus || mib < c.mib*3/4 || mib > c.mib {
				t.Errorf("the guest says %q (%v), want %d CPUs and about %d MiB", line, err, c.cpus, c.mib)
			}
			// The ACPI tables are found: without them there is no power button.
			h.stop(t, id, false)
			h.waitStopped(t, id, v1.VirtualMachine_STOP_REASON_POWERED_OFF)
		})
	}
}
