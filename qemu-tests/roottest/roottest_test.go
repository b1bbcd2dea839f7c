package roottest

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	filter = flag.String("filter", "", "run only these tests in the machine (a regular expression)")
	only   = flag.String("only", "", "run only the packages whose path contains this")
)

const module = "github.com/ashlar-hv/ashlar/"

// markedVMM is a VMM that tests can record (vmm/jail/jailtest).
const markedVMM = "-tags=marked " + module + "vmm/ashlar-vmm"

// forManyCPUs begins the names of tests that need a machine of many CPUs.
const forManyCPUs = "^TestCPUs"

// forDisk begins the names of tests that need a machine with a disk for them alone.
const forDisk = "^TestDisk(Wall|Fails)"

var out = filepath.Join("..", "..", "out")

// found is whether a package is what -only says.
var found bool

func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 && *only != "" && !found {
		fmt.Fprintf(os.Stderr, "FAIL: -only %q: no package with tests for root has that in its path\n", *only)
		code = 1
	}
	os.Exit(code)
}

// TestAll runs all tests that need root, but for those that need many CPUs.
func TestAll(t *testing.T) {
	r := Run{
		Kernel: filepath.Join(out, "bzImage"),
		Packages: []string{
			module + "vmm/jail",
			module + "vmm/memory",
			module + "initramfs/room",
			module + "initramfs/uevent",
			module + "vmm/vhost",
			module + "vmm/virtio/blk",
			module + "vmm/virtio/net",
			module + "vmm/virtio/vsock",
			module + "vmm/virtio/internal/guesttest",
			module + "drivers/cgroup",
			module + "drivers/network",
			module + "drivers/nic",
			module + "drivers/nic/dhcp",
			module + "drivers/firewall",
			module + "mgmt/core/network",
			module + "mgmt/core/guest",
			module + "mgmt/core/ashlar-core",
		},
		Programs: map[string]string{"bin/ashlar-netd": module + "mgmt/core/ashlar-netd"},
		Files:    map[string]string{},
		Guests:   map[string]string{},
		Filter:   *filter,
		Skip:     forManyCPUs + "|" + forDisk,
		Disk:     true, // some test gives it to a guest
	}
	// The test of the virtio devices runs a guest that uses them all.
	if devices := module + "vmm/virtio/internal/guesttest"; strings.Contains(devices, *only) {
		r.Files["guest-bzImage"] = filepath.Join(out, "guest-bzImage")
		r.Programs["bin/ashlar-vmm"] = module + "vmm/ashlar-vmm"
		r.Programs["bin/ashlar-vmm-marked"] = markedVMM
		r.Guests["virtio-guest.cpio"] = module + "vmm/virtio/internal/guest"
	}
	// The tests of core run it with real VMMs and a real guest kernel.
	if core := module + "mgmt/core/ashlar-core"; strings.Contains(core, *only) {
		r.Programs["bin/ashlar-core"] = core
		r.Programs["bin/ashlar-vmm"] = module + "vmm/ashlar-vmm"
		r.Files["guest-bzImage"] = filepath.Join(out, "guest-bzImage")
		r.Guests["guest.cpio"] = module + "qemu-tests/testguest"
	}
	run(t, r)
}

// TestManyCPUs runs the tests of where threads run. None of them runs a guest: more than one
// CPU is no place for that in software emulation (lab.Config).
func TestManyCPUs(t *testing.T) {
	if *filter != "" && !strings.Contains(*filter, "CPUs") {
		return // none of these is asked for
	}
	run(t, Run{
		Kernel:   filepath.Join(out, "bzImage"),
		Packages: []string{module + "drivers/cgroup", module + "drivers/interrupt", module + "mgmt/core/guest"},
		Programs: map[string]string{"bin/ashlar-netd": module + "mgmt/core/ashlar-netd"},
		Filter:   cmp.Or(*filter, forManyCPUs), ManyCPUs: true, Hardware: true,
	})
}

// TestDisk runs the tests of what a guest may do with a real disk, and of what happens when
// that fails.
func TestDisk(t *testing.T) {
	if *filter != "" && !strings.Contains(*filter, "Disk") {
		return // none of these is asked for
	}
	run(t, Run{
		Kernel:   filepath.Join(out, "bzImage"),
		Packages: []string{module + "drivers/cgroup", module + "mgmt/core/guest", module + "vmm/virtio/blk", module + "mgmt/control/store"},
		Programs: map[string]string{"bin/ashlar-netd": module + "mgmt/core/ashlar-netd"},
		Filter:   cmp.Or(*filter, forDisk), Disk: true,
	})
}

// run runs the packages of r that are asked for.
func run(t *testing.T, r Run) {
	t.Helper()
	r.Packages = slices.DeleteFunc(r.Packages, func(p string) bool { return !strings.Contains(p, *only) })
	if len(r.Packages) == 0 {
		return
	}
	found = true
	for _, f := range append(slices.Collect(maps.Values(r.Files)), r.Kernel) {
		if _, err := os.Stat(f); err != nil {
			t.Fatalf("%v: make kernel guest-kernel builds it", err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
	defer cancel()
	text, err := r.Do(ctx, t.TempDir())
	t.Logf("the machine said:\n%s", text)
	if err != nil {
		t.Fatal(err)
	}
}

// TestSRIOV runs the tests of virtual functions.
func TestSRIOV(t *testing.T) {
	run(t, Run{
		Kernel:   filepath.Join(out, "bzImage"),
		Packages: []string{module + "mgmt/core/sriov"},
		Filter:   *filter, Hardware: true, Controller: true,
	})
}

// TestBigBAR runs the test of a device with a large BAR.
func TestBigBAR(t *testing.T) {
	if *filter != "" && !strings.Contains(*filter, "Big") {
		return // it is not asked for
	}
	r := hardware("^TestBig")
	r.Packages, r.BigBAR = r.Packages[:1], true
	run(t, r)
}

// TestHardware runs the tests of devices that are given to guests.
func TestHardware(t *testing.T) { run(t, hardware("^Test(VFIO|HostDevice)")) }

func hardware(tests string) Run {
	return Run{
		Kernel:   filepath.Join(out, "bzImage"),
		Packages: []string{module + "vmm/virtio/internal/guesttest", module + "mgmt/core/hostdevice"},
		Programs: map[string]string{"bin/ashlar-vmm": module + "vmm/ashlar-vmm", "bin/ashlar-vmm-marked": markedVMM},
		Files:    map[string]string{"guest-bzImage": filepath.Join(out, "guest-bzImage")},
		Guests:   map[string]string{"virtio-guest.cpio": module + "vmm/virtio/internal/guest"},
		Filter:   cmp.Or(*filter, tests),
		Hardware: true,
	}
}
