package main

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

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

// On a disk that has not the room that the store wants to keep, control asks for it again
// from within the jail, and goes on without.
func TestStoreWithoutRoomConfined(t *testing.T) {
	d := newDaemon(t)
	d.core.Stop()
	if err := unix.Mount("tmpfs", d.core.Dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Fatalf("mount a small file system: %v: this test runs as root", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(d.core.Dir, unix.MNT_DETACH) })
	if err := d.core.Start(); err != nil {
		t.Fatal(err)
	}
	d.start()
	d.machine()
	d.alive()
}
