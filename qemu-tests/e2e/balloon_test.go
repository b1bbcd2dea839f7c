package e2e

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// memory is how much of the host's memory is behind a guest's own, in bytes: pages of
// the file that is its memory, without the host's cache of its disks.
func (h *host) memory(t testing.TB, id string) int64 {
	t.Helper()
	text := h.shell(t, fmt.Sprintf("grep '^shmem ' /sys/fs/cgroup/guests/%s/memory.stat", h.vm(t, id).Uid))
	_, value, _ := strings.Cut(strings.TrimSpace(text), " ")
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		t.Fatalf("memory of %s: %q: %v", id, text, err)
	}
	return n
}

// gives waits until a guest gives back just so much.
func (h *host) gives(t testing.TB, id string, bytes int64) *v1.VirtualMachineBalloon {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		r, err := h.VirtualMachines.GetVirtualMachineBalloon(within(t, time.Minute), connect.NewRequest(&v1.GetVirtualMachineBalloonRequest{
			Name: "virtualMachines/" + id,
		}))
		if err != nil {
			t.Fatalf("balloon of %s: %v", id, err)
		}
		if r.Msg.ActualBytes == bytes {
			return r.Msg
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s gives back %d bytes (asked for %d), want %d", id, r.Msg.ActualBytes, r.Msg.TargetBytes, bytes)
		}
	}
}

// TestBalloon asks a guest that uses all of its memory, for the cache of its disk, for
// a quarter of it.
func TestBalloon(t *testing.T) {
	const asked, enough = 64 << 20, 56 << 20
	h := sharedHost(t)
	vm := testVM("", &v1.Disk{SizeBytes: 256 << 20})
	vm.MemoryBytes = 256 << 20
	h.create(t, "balloon", vm)
	t.Cleanup(func() { h.remove(t, "balloon") })
	h.boot(t, "balloon")
	c := h.console(t, "balloon")
	c.expect("TESTGUEST ready", patience)
	c.ask("keep /dev/vda")
	c.say("write /dev/vda 3 250")
	c.expect("OK write", patience)
	full := h.memory(t, "balloon")
	if full < 200<<20 {
		t.Fatalf("a guest that has used all of its memory has %d bytes of the host's", full)
	}

	h.mustCtl(t, "vm", "balloon", "balloon", "64MiB")
	b := h.gives(t, "balloon", asked)
	given := h.memory(t, "balloon")
	if full-given < enough {
		t.Errorf("the host has got %d bytes for a balloon of %d (%d of %d are left)", full-given, asked, given, full)
	}
	if given < 100<<20 {
		t.Errorf("%d bytes are left: the guest has given more than it was asked for", given)
	}
	t.Logf("memory of the guest: %d, with the balloon %d; %v", full, given, b)
	n := h.counters(t, "balloon").Devices
	if n["balloon.inflated_bytes"] < asked || n["balloon.reported_bytes"] == 0 || n["balloon.failures"] != 0 || n["balloon.trapped_kicks"] != 0 {
		t.Errorf("counters: %v", n)
	}
	// What the guest says of itself comes at once, or the next time.
	for deadline := time.Now().Add(patience); b.StatisticsTime == nil && time.Now().Before(deadline); time.Sleep(time.Second) {
		b = h.gives(t, "balloon", asked)
	}
	if total := b.Statistics["total_bytes"]; total < 128<<20 || total > 256<<20 || b.Statistics["cache_bytes"] == 0 {
		t.Errorf("statistics = %v", b)
	}

	h.mustCtl(t, "vm", "pause", "balloon")
	h.mustCtl(t, "vm", "balloon", "balloon", "0")
	h.gives(t, "balloon", asked) // a paused guest takes nothing
	h.mustCtl(t, "vm", "resume", "balloon")
	h.gives(t, "balloon", 0)
	c.say("check /dev/vda 3 250") // which fills its memory again
	c.expect("OK check", patience)
	if again := h.memory(t, "balloon"); again-given < enough {
		t.Errorf("the guest has taken %d bytes of %d back", again-given, asked)
	}

	h.mustCtl(t, "vm", "balloon", "balloon", "64MiB")
	h.gives(t, "balloon", asked)
	h.mustCtl(t, "vm", "reset", "balloon")
	h.console(t, "balloon").expect("TESTGUEST ready", patience)
	h.gives(t, "balloon", asked)
	var shown struct {
		ActualBytes string `json:"actualBytes"`
	}
	if err := json.Unmarshal([]byte(h.mustCtl(t, "vm", "balloon", "balloon", "-o", "json")), &shown); err != nil || shown.ActualBytes != strconv.Itoa(asked) {
		t.Errorf("ashlarctl vm balloon: %v, %v", shown, err)
	}
}
