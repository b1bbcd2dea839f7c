package e2e

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// has waits until a guest has just so much memory, or what else is enough.
func (h *host) has(t testing.TB, id string, enough func(*v1.VirtualMachineMemory) bool) *v1.VirtualMachineMemory {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		r, err := h.VirtualMachines.GetVirtualMachineMemory(within(t, time.Minute), connect.NewRequest(&v1.GetVirtualMachineMemoryRequest{
			Name: "virtualMachines/" + id,
		}))
		if err != nil {
			t.Fatalf("memory of %s: %v", id, err)
		}
		if enough(r.Msg) {
			return r.Msg
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s has %d MiB (asked for %d)", id, r.Msg.ActualBytes>>20, r.Msg.TargetBytes>>20)
		}
	}
}

// exactly is a guest's having so many MiB.
func exactly(mib int64) func(*v1.VirtualMachineMemory) bool {
	return func(m *v1.VirtualMachineMemory) bool { return m.ActualBytes == mib<<20 }
}

// memoryMax is what the VMM of a guest may use, in MiB.
func (h *host) memoryMax(t testing.TB, id string) int64 {
	t.Helper()
	text := strings.TrimSpace(h.shell(t, fmt.Sprintf("cat /sys/fs/cgroup/guests/%s/memory.max", h.vm(t, id).Uid)))
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n >> 20
}

// sums listens, and answers each connection with the checksum of all that comes.
func sums(t testing.TB) net.Addr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			sum := crc32.NewIEEE()
			n, _ := io.Copy(sum, c) // a broken connection has another sum
			fmt.Fprintf(c, "%d:%08x\n", n, sum.Sum32())
			c.Close()
		}
	}()
	return l.Addr()
}

// patternSum is what sums says of the first bytes that the small guest's write has written.
func patternSum(seed uint64, bytes int) string {
	b := make([]byte, bytes)
	for o := 0; o < bytes; o += 8 {
		binary.LittleEndian.PutUint64(b[o:], seed<<32^uint64(o)*0x9e3779b97f4a7c15)
	}
	return fmt.Sprintf("%d:%08x", bytes, crc32.ChecksumIEEE(b))
}

// TestHotplugMemory has a guest of 128 MiB grow and shrink.
func TestHotplugMemory(t *testing.T) {
	const id = "grows"
	h := sharedHost(t)
	vm := testVM("memhp_default_state=online_movable", &v1.Disk{SizeBytes: 256 << 20})
	vm.MaxMemoryBytes = 640 << 20
	h.create(t, id, vm)
	t.Cleanup(func() { h.remove(t, id) })
	h.boot(t, id)
	c := h.console(t, id)
	c.expect("TESTGUEST ready", patience)
	total := func(c *console) int64 {
		n, err := strconv.ParseInt(c.ask("mem"), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n >> 20
	}
	before, most := total(c), h.memoryMax(t, id)

	h.mustCtl(t, "vm", "set-memory", id, "384MiB")
	h.has(t, id, exactly(384))
	// A block is plugged in before the guest's kernel takes it into use.
	for deadline := time.Now().Add(patience); total(c) != before+256; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the guest sees %d MiB, %d before", total(c), before)
		}
	}
	if got := h.memoryMax(t, id); got != most+258 { // with the tables for it
		t.Errorf("the VMM may use %d MiB, %d before", got, most)
	}
	// Its disk and its network reach what is plugged in: the cache of a disk is there first.
	c.ask("keep /dev/vda")
	c.say("write /dev/vda 3 64")
	c.expect("OK write", patience)
	if got, want := c.ask(fmt.Sprintf("send 10.0.2.2:%d /dev/vda 2", sums(t).(*net.TCPAddr).Port)), patternSum(3, 2<<20); got != want {
		t.Errorf("from the plugged memory came %s, want %s", got, want)
	}
	c.say("fill 150")
	c.expect("OK fill", patience)
	full := h.memory(t, id)
	if full < 150<<20 {
		t.Errorf("a guest that uses 150 MiB has %d bytes of the host's", full)
	}

	// It gives back what it can, goes on, and keeps what it was promised.
	h.mustCtl(t, "vm", "set-memory", id, "128MiB")
	m := h.has(t, id, func(m *v1.VirtualMachineMemory) bool { return m.ActualBytes < 384<<20 })
	if m.ActualBytes < 150<<20 {
		t.Errorf("a guest that uses 150 MiB has %d", m.ActualBytes>>20)
	}
	c.ask("drop")
	// Linux tries again in a minute, or when it is told something new.
	h.mustCtl(t, "vm", "set-memory", id, "130MiB")
	h.mustCtl(t, "vm", "set-memory", id, "128MiB")
	h.has(t, id, exactly(128))
	if got := h.memory(t, id); got > 128<<20 || full-got < 52<<20 {
		t.Errorf("the host has got %d bytes back, %d are left", full-got, got)
	}
	if got := h.memoryMax(t, id); got != most {
		t.Errorf("the VMM may use %d MiB again, %d before", got, most)
	}

	h.mustCtl(t, "vm", "pause", id)
	h.mustCtl(t, "vm", "set-memory", id, "256MiB")
	h.has(t, id, exactly(128)) // a paused guest takes nothing
	h.mustCtl(t, "vm", "resume", id)
	h.has(t, id, exactly(256))
	h.mustCtl(t, "vm", "reset", id)
	c = h.console(t, id)
	c.expect("TESTGUEST ready", patience)
	h.has(t, id, exactly(256))
	if text := h.mustCtl(t, "vm", "get", id); !strings.Contains(text, "128MiB, 128MiB plugged in, at most 640MiB") {
		t.Errorf("ashlarctl says:\n%s", text)
	}
	if n := h.counters(t, id).Devices; n["memory.plugged_bytes"] < 128<<20 || n["memory.failures"] != 0 {
		t.Errorf("counters: %v", n)
	}

	// A guest that helps itself to unplugged memory gets none.
	h.mustCtl(t, "vm", "set-memory", id, "128MiB")
	h.has(t, id, exactly(128))
	c.ask("unbind virtio_mem")
	// Where nothing ever was: what has just left may be the kernel's still.
	c.say(fmt.Sprintf("touch %#x 64", 5<<30+400<<20))
	h.waitStopped(t, id, v1.VirtualMachine_STOP_REASON_FAILED)
	if got := h.vm(t, id).StopMessage; !strings.Contains(got, "not plugged in") {
		t.Errorf("it has ended with %q", got)
	}
}
