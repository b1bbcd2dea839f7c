package e2e

import (
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// pool is the host's pool of pages of 2 MiB.
func (h *host) pool(t testing.TB) *v1.HugepagePool {
	t.Helper()
	r, err := h.Hugepages.GetHugepagePool(within(t, time.Minute), connect.NewRequest(&v1.GetHugepagePoolRequest{Name: "hugepagePools/2MiB"}))
	if err != nil {
		t.Fatal(err)
	}
	return r.Msg
}

// poolRefused sets the pool to what cannot be, and sees that it stays.
func (h *host) poolRefused(t testing.TB, want string, args ...string) {
	t.Helper()
	before := h.pool(t)
	text, err := h.ctl(append([]string{"hugepages", "set"}, args...)...)
	if err == nil || !strings.Contains(text, want) {
		t.Errorf("set %s: %v, want it to say %q:\n%s", args, err, want, text)
	}
	if after := h.pool(t); after.TotalPages != before.TotalPages || after.SurplusPages != 0 {
		t.Errorf("the pool was %v and is %v", before, after)
	}
}

// Pools that are made while the host runs serve guests, and are not taken from them.
func TestHugepagePools(t *testing.T) {
	h := sharedHost(t)
	h.create(t, "unused", testVM("")) // for its images
	h.remove(t, "unused")
	t.Cleanup(func() {
		h.remove(t, "pooled")
		h.mustCtl(t, "hugepages", "set", "2MiB", "0")
	})
	if text := h.mustCtl(t, "hugepages", "set", "2MiB", "40"); !strings.Contains(text, "2MiB   all   40     40    0         0        40") {
		t.Errorf("ashlarctl says:\n%s", text)
	}
	if p := h.pool(t); len(p.Nodes) != 2 || p.Nodes[0].TotalPages != 20 || p.Nodes[1].ConfiguredPages != 20 {
		t.Errorf("the pool is %v", p)
	}
	h.mustCtl(t, "vm", "create", "pooled", "--memory", "64MiB,pages=2MiB,populate=on", "--disk", "size=16MiB",
		"--kernel", "guest-kernel", "--initramfs", "testguest", "--cmdline", "console=ttyS0 quiet", "--start")
	c := h.console(t, "pooled")
	c.expect("TESTGUEST ready", patience)
	c.ask("write /dev/vda 3 2")
	c.ask("check /dev/vda 3 2")
	if n := h.counters(t, "pooled").Devices; n["disk0.registered"] == 0 || n["disk0.errors"] != 0 {
		t.Errorf("a disk of a guest on pages of a pool does not use registered memory: %v", n)
	}
	p := h.pool(t)
	if taken := p.TotalPages - p.FreePages + p.ReservedPages; taken != 32 || p.FreePages == 40 {
		t.Errorf("the guest has %d pages, want 32: %v", taken, p)
	}
	h.poolRefused(t, "Nothing has changed", "2MiB", "31")
	h.poolRefused(t, "Nothing has changed", "2MiB", "0", "--node", "0")
	h.poolRefused(t, "memory for", "2MiB", "1000000")
	h.poolRefused(t, "does not exist", "4MiB", "1")
	h.mustCtl(t, "hugepages", "set", "2MiB", "44")
	h.stop(t, "pooled", false)
	h.mustCtl(t, "hugepages", "set", "2MiB", "3", "--node", "1")
	if p := h.pool(t); p.TotalPages != 25 || p.FreePages != 25 || p.Nodes[0].TotalPages != 22 {
		t.Errorf("the pool is %v", p)
	}
}

// setPoolForBoot sets a pool that is to be there after a boot.
func (h *host) setPoolForBoot(t testing.TB) {
	t.Helper()
	h.mustCtl(t, "hugepages", "set", "2MiB", "16", "--node", "1")
}

// checkPoolAfterBoot sees that it is, when the API answers.
func (h *host) checkPoolAfterBoot(t testing.TB) {
	t.Helper()
	if p := h.pool(t); p.TotalPages != 16 || p.Nodes[1].TotalPages != 16 || p.Nodes[1].ConfiguredPages != 16 {
		t.Errorf("after a boot the pool is %v", p)
	}
}
