package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/qemu-tests/programs"
)

// loaded boots a guest whose last disk has Debian's programs.
func (h *host) loaded(t testing.TB, id string, cpus int32, disks ...*v1.Disk) *console {
	t.Helper()
	h.programs(t)
	vm := testVM("", append(disks, &v1.Disk{Image: "images/programs"})...)
	vm.Cpus = cpus
	return h.up(t, id, vm)
}

// programs uploads the disk with Debian's programs.
func (h *host) programs(t testing.TB) {
	t.Helper()
	image, err := programs.Image(func(s string) { t.Log(s) })
	if err != nil {
		t.Fatal(err)
	}
	h.upload(t, "programs", image)
}

// up starts a virtual machine for the time of a test.
func (h *host) up(t testing.TB, id string, vm *v1.VirtualMachine) *console {
	t.Helper()
	h.create(t, id, vm)
	t.Cleanup(func() { h.remove(t, id) })
	h.boot(t, id)
	return h.console(t, id)
}

// A load is a program that runs in a guest.
type load struct {
	h       *host
	c       *console
	counter string // of its guest, that shows how far it is
	start   int64  // what that was before
	last    *v1.VirtualMachineCounters
	command string // that it was started by, run or start
	end     string // what the guest says at a program's end
	left    int    // programs that have not ended
	out     string // what they printed, at their ends
}

// load starts a program of the disk that has them.
func (h *host) load(c *console, disk, counter, command string) *load {
	c.t.Helper()
	l := &load{h: h, c: c, counter: counter, last: h.counters(c.t, c.id), command: "run", end: "OK run", left: 1}
	l.start = l.last.Devices[counter]
	c.say("run /dev/" + disk + " " + command)
	return l
}

// ended looks whether the program, or all of them, have come to their end, and fails with one.
func (l *load) ended() bool {
	l.c.t.Helper()
	if out, ok := l.c.look(l.end, true, time.Millisecond); ok {
		l.left--
		l.out += strings.TrimPrefix(out, l.end)
	}
	if line, ok := l.c.look("ERR "+l.command, true, time.Millisecond); ok {
		l.c.t.Fatalf("guest %s: %s", l.c.id, line)
	}
	return l.left == 0
}

// reach waits until the counter has grown by n since the start, and is false at the
// program's end before that.
func (l *load) reach(n int64) bool {
	l.c.t.Helper()
	for deadline := time.Now().Add(patience); !l.ended(); time.Sleep(20 * time.Millisecond) {
		if l.last = l.h.counters(l.c.t, l.c.id); l.last.Devices[l.counter]-l.start >= n {
			return true
		}
		if time.Now().After(deadline) {
			l.c.t.Fatalf("%s of %s is %d after %d, want %d more", l.counter, l.c.id, l.last.Devices[l.counter], l.start, n)
		}
	}
	return false
}

// finish waits for the program's end.
func (l *load) finish() {
	l.c.t.Helper()
	for deadline := time.Now().Add(patience); !l.ended(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			l.c.t.Fatalf("a program on %s does not come to its end", l.c.id)
		}
	}
	l.last = l.h.counters(l.c.t, l.c.id)
}

// userExits are the exits of all of a guest's processors to its process on the host, for
// what the guest did.
func userExits(n *v1.VirtualMachineCounters) map[string]int64 {
	out := map[string]int64{}
	for _, cpu := range n.Cpus {
		for _, name := range []string{"user_io_exits", "user_mmio_exits", "user_other_exits"} {
			out[name] += cpu.Counters[name]
		}
	}
	return out
}

// A moment is one of a load: what the counters were, and how much the guest had said.
type moment struct {
	*v1.VirtualMachineCounters
	said int
}

// moment is that of the last counters.
func (l *load) moment() moment {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	return moment{l.last, l.c.text.Len()}
}

// noUserExits sees that no exit reached the guest's process between two moments of a load
// that has come to its end. It is false where the guest's kernel had something to say from the first
// on, each byte of which exits: then there is nothing to be seen.
func (l *load) noUserExits(before, after moment) bool {
	l.c.t.Helper()
	a, b := userExits(before.VirtualMachineCounters), userExits(after.VirtualMachineCounters)
	if maps.Equal(a, b) {
		return true
	}
	l.c.mu.Lock()
	said, _, _ := strings.Cut(l.c.text.String()[before.said:]+l.end, l.end)
	l.c.mu.Unlock()
	if said = strings.TrimSpace(said); said != "" {
		l.c.t.Logf("under load the guest %s says: %s", l.c.id, said)
		return false
	}
	l.c.t.Errorf("exits of %s to user space under load: %v, then %v; want none", l.c.id, a, b)
	return true
}

// fio has 4 jobs on 2 processors write so many MiB each at random, behind the first 4 of the
// disk, verify them in between and sync them at the end.
func fio(mib int64) string {
	return fmt.Sprintf("/usr/bin/fio --name=load --filename=/dev/vda --ioengine=libaio --direct=1 --rw=randwrite"+
		" --bs=4k --iodepth=8 --size=%dM --numjobs=4 --offset=4M --offset_increment=%[1]dM --cpus_allowed=0-1 --cpus_allowed_policy=split"+
		" --verify=crc32c --verify_backlog=32 --verify_fatal=1 --verify_state_save=0 --end_fsync=1 --group_reporting --eta=never", mib)
}

// TestDiskUnderLoad has fio write and verify on both queues of a disk while the guest is
// paused and resumed, and resets the guest in the midst of more.
func TestDiskUnderLoad(t *testing.T) {
	h := sharedHost(t)
	c := h.loaded(t, "fio", 2, &v1.Disk{SizeBytes: 512 << 20})
	c.expect("TESTGUEST ready", patience)
	c.ask("write /dev/vda 7 2")

	mib := int64(1)
	for !c.pausedFio(h, mib) {
		mib *= 4
	}
	// Of the disk with the programs one queue may do.
	queues := strings.Fields(c.ask("interrupts virtio0-req."))
	if len(queues) != 2 || slices.ContainsFunc(queues, func(q string) bool { return strings.HasSuffix(q, "=0") }) {
		t.Errorf("interrupts of the disk's queues: %s, want some from both", queues)
	}

	if l := h.load(c, "vdb", "disk0.writes", fio(4*mib)); !l.reach(100) {
		t.Fatalf("fio ended before the reset: %s", l.out)
	}
	h.mustCtl(t, "vm", "reset", "fio")
	c = h.console(t, "fio")
	c.expect("TESTGUEST ready", patience)
	c.ask("check /dev/vda 7 2")
}

// pausedFio pauses and resumes the guest while fio is at work, and is false where that was
// over too soon, or nothing was to be seen.
func (c *console) pausedFio(h *host, mib int64) bool {
	c.t.Helper()
	writes := 4 * mib << 20 / 4096
	l := h.load(c, "vdb", "disk0.writes", fio(mib))
	ok := l.reach(writes / 10)
	first := l.moment()
	for i := int64(1); i <= 4 && ok; i++ {
		ok = l.reach(writes / 8 * i)
		h.mustCtl(c.t, "vm", "pause", c.id)
		h.mustCtl(c.t, "vm", "resume", c.id)
	}
	ok = ok && l.last.Devices[l.counter]-l.start < writes
	last := l.moment()
	l.finish()
	ok = ok && l.noUserExits(first, last)
	if n := l.last.Devices; n[l.counter]-l.start != writes || n["disk0.reads"] < writes || n["disk0.errors"] != 0 || n["disk0.trapped_kicks"] != 0 {
		c.t.Errorf("fio has made of %d writes these, after %d: %v; it says: %s", writes, l.start, n, l.out)
	}
	return ok
}

// TestNetworkUnderLoad has iperf3 send and receive on four pairs of queues: a stream from each
// processor, whose queues these are.
func TestNetworkUnderLoad(t *testing.T) {
	h := sharedHost(t)
	server, client := h.loaded(t, "iperf-server", 1), h.loaded(t, "iperf-client", 4)
	address, _ := server.network()
	client.network()
	for i := range streams {
		server.serves(firstPort + i)
	}
	if got := client.ask("list /sys/class/net/eth0/queues"); got != "rx-0 rx-1 rx-2 rx-3 tx-0 tx-1 tx-2 tx-3" {
		t.Errorf("queues of the NIC: %s, want 4 pairs", got)
	}
	client.iperf3(h, address)
	for _, kind := range []string{"-input.", "-output."} {
		queues := strings.Fields(client.ask("interrupts " + kind))
		if len(queues) != streams || slices.ContainsFunc(queues, func(q string) bool { return strings.HasSuffix(q, "=0") }) {
			t.Errorf("interrupts of queues: %s, want some from each of %d", queues, streams)
		}
	}
}

// serves has iperf3 listen at a port.
func (c *console) serves(port int) {
	c.t.Helper()
	c.ask(fmt.Sprintf("start /dev/vda /usr/bin/iperf3 -4 -s -p %d", port))
	listening := fmt.Sprintf(":%04X 00000000:0000 0A", port)
	for deadline := time.Now().Add(patience); !strings.Contains(c.ask("read /proc/net/tcp"), listening); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("iperf3 does not listen at port %d", port)
		}
	}
}

const (
	streams   = 4
	firstPort = 5201
)

// iperf3 moves some MiB in both directions by streams from each processor, which go on until
// their guest ends. With -n and -i 0 iperf3 3.18 would wait for ever, on any machine: nothing
// wakes the thread that is to see that all is sent.
func (c *console) iperf3(h *host, address string) {
	c.t.Helper()
	const n = 1 << 20
	l := &load{h: h, c: c, last: h.counters(c.t, c.id), command: "start", end: "ENDED", left: 1}
	start := l.last.Devices
	for i := range streams {
		c.ask(fmt.Sprintf("start /dev/vda /usr/bin/iperf3 -c %s -p %d -A %d --bidir -t 3600 -i 0", address, firstPort+i, i))
	}
	for try := 1; ; try++ {
		var moments []moment
		for _, more := range []int64{0, n} {
			for _, counter := range []string{"nic0.tx_bytes", "nic0.rx_bytes"} {
				l.counter, l.start = counter, start[counter]+more
				if !l.reach(n) {
					c.t.Fatalf("iperf3 has ended: %s", l.out)
				}
			}
			moments = append(moments, l.moment())
		}
		if !l.noUserExits(moments[0], moments[1]) && try < 5 {
			start = l.last.Devices
			continue
		}
		for _, name := range []string{"nic0.kicks", "nic0.trapped_kicks", "nic0.interrupts", "nic0.errors"} {
			if a, b := moments[0].Devices[name], moments[1].Devices[name]; a != b {
				c.t.Errorf("%s: %d, then %d under load; want nothing of it in the guest's process", name, a, b)
			}
		}
		return
	}
}
