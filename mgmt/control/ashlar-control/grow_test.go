package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// The store becomes larger than the file that it began with, from within the jail.
func TestStoreGrowsConfined(t *testing.T) {
	d := newDaemon(t)
	d.start()
	d.machine()
	for i := range 60 {
		if _, err := d.machines.CreateVirtualMachine(ctxOf(t), req(&ashlarv1.CreateVirtualMachineRequest{
			VirtualMachineId: fmt.Sprintf("vm%d", i),
			VirtualMachine: &ashlarv1.VirtualMachine{Cpus: 1, MemoryBytes: 64 << 20,
				Boot: &ashlarv1.Boot{Kernel: "images/kernel", Cmdline: strings.Repeat("x", 2000)}},
		})); err != nil {
			t.Fatal(err)
		}
	}
	d.alive()
}
