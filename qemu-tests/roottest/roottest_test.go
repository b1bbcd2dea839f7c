package roottest

import (
	"context"
	"flag"
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

// TestAll runs all tests that need root.
func TestAll(t *testing.T) {
	const module = "github.com/ashlar-hv/ashlar/"
	out := filepath.Join("..", "..", "out")
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
	}
	// The test of the virtio devices runs a guest that uses them all.
	if devices := module + "vmm/virtio/internal/guesttest"; strings.Contains(devices, *only) {
		r.Files["guest-bzImage"] = filepath.Join(out, "guest-bzImage")
		r.Programs["bin/ashlar-vmm"] = module + "vmm/ashlar-vmm"
		r.Guests["virtio-guest.cpio"] = module + "vmm/virtio/internal/guest"
	}
	// The tests of core run it with real VMMs and a real guest kernel.
	if core := module + "mgmt/core/ashlar-core"; strings.Contains(core, *only) {
		r.Programs["bin/ashlar-core"] = core
		r.Programs["bin/ashlar-vmm"] = module + "vmm/ashlar-vmm"
		r.Files["guest-bzImage"] = filepath.Join(out, "guest-bzImage")
		r.Guests["guest.cpio"] = module + "qemu-tests/testguest"
	}
	r.Packages = slices.DeleteFunc(r.Packages, func(p string) bool { return !strings.Contains(p, *only) })
	if len(r.Packages) == 0 {
		t.Fatalf("-only %q: no package with tests for root has that in its path", *only)
	}
	for _, f := range append(slices.Collect(maps.Values(r.Files)), r.Kernel) {
		if _, err := os.Stat(f); err != nil {
			t.Fatalf("%v: make kernel guest-kernel builds it", err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	text, err := r.Do(ctx, t.TempDir())
	t.Logf("the machine said:\n%s", text)
	if err != nil {
		t.Fatal(err)
	}
}
