package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// hugePages sets the size of the host's pool of 2 MiB pages.
func (h *host) hugePages(t testing.TB, n string) {
	t.Helper()
	if got := h.shell(t, "echo "+n+" > /proc/sys/vm/nr_hugepages; cat /proc/sys/vm/nr_hugepages"); strings.TrimSpace(got) != n {
		t.Fatalf("the pool has %s pages, want %s", got, n)
	}
}

// memoryLine is a line of the host's /proc/meminfo, without its unit.
func (h *host) memoryLine(t testing.TB, name string) int {
	t.Helper()
	f := strings.Fields(h.shell(t, "grep '^"+name+":' /proc/meminfo"))
	if len(f) < 2 {
		t.Fatalf("/proc/meminfo has no %s", name)
	}
	n, err := strconv.Atoi(f[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A guest of 128 MiB on the host's 64 huge pages; one that there are none for.
func TestHugePages(t *testing.T) {
	h := sharedHost(t)
	vm := testVM("")
	vm.MemoryBacking = &v1.MemoryBacking{Pages: v1.MemoryBacking_PAGES_2MIB}
	h.create(t, "huge", vm)
	t.Cleanup(func() {
		h.remove(t, "huge")
		h.hugePages(t, "0")
	})
	h.hugePages(t, "63")
	r, err := h.VirtualMachines.StartVirtualMachine(within(t, time.Minute), connect.NewRequest(&v1.StartVirtualMachineRequest{Name: "virtualMachines/huge"}))
	if err == nil {
		err = h.done(t, r.Msg)
	}
	if err == nil || !strings.Contains(err.Error(), "63 of its 63 pages of 2MiB free, 64 are asked for") {
		t.Errorf("start on a pool that is too small: %v", err)
	}
	h.hugePages(t, "64")
	h.boot(t, "huge")
	h.console(t, "huge").expect("TESTGUEST ready", patience)
	if text := h.mustCtl(t, "vm", "get", "huge"); !strings.Contains(text, "128MiB, pages of 2MiB from the pool") {
		t.Errorf("ashlarctl says:\n%s", text)
	}
	if free, promised := h.memoryLine(t, "HugePages_Free"), h.memoryLine(t, "HugePages_Rsvd"); free != promised || free == 64 {
		t.Errorf("%d pages are free and %d promised, want as many, and some in use", free, promised)
	}
	h.stop(t, "huge", false)
	if free := h.memoryLine(t, "HugePages_Free"); free != 64 {
		t.Errorf("%d pages are free when the guest is gone, want 64", free)
	}
}

// Transparent huge pages, allocated before the guest starts.
func TestPopulatedMemory(t *testing.T) {
	h := sharedHost(t)
	h.create(t, "unused", testVM("")) // for its images
	h.remove(t, "unused")
	before := h.memoryLine(t, "ShmemHugePages")
	h.mustCtl(t, "vm", "create", "populated", "--memory", "128MiB,pages=transparent,populate=on",
		"--kernel", "guest-kernel", "--initramfs", "testguest", "--cmdline", "console=ttyS0 quiet", "--start")
	t.Cleanup(func() { h.remove(t, "populated") })
	if got := h.memoryLine(t, "ShmemHugePages") - before; got < 120<<10 {
		t.Errorf("%d KiB of the guest's memory are huge pages, want nearly all of 128 MiB", got)
	}
	h.console(t, "populated").expect("TESTGUEST ready", patience)
	h.stop(t, "populated", false)
}

// A guest is on huge pages where nothing else is asked for, and on none where small ones are.
func TestDefaultPages(t *testing.T) {
	h := sharedHost(t)
	// The usual one is last: what it held may be counted for a while after it.
	for _, kind := range []v1.MemoryBacking_Pages{v1.MemoryBacking_PAGES_4KIB, v1.MemoryBacking_PAGES_UNSPECIFIED} {
		small, name := kind == v1.MemoryBacking_PAGES_4KIB, fmt.Sprintf("pages-%d", kind)
		vm := testVM("")
		vm.MemoryBacking = &v1.MemoryBacking{Pages: kind}
		h.create(t, name, vm)
		t.Cleanup(func() { h.remove(t, name) })
		before := h.memoryLine(t, "ShmemHugePages")
		h.boot(t, name)
		h.console(t, name).expect("TESTGUEST ready", patience)
		got := h.memoryLine(t, "ShmemHugePages") - before
		if small && got > 0 || !small && got < 16<<10 {
			t.Errorf("%d KiB of the guest's memory with %v are huge pages", got, kind)
		}
		h.stop(t, name, false)
	}
}
