package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/client"
	"github.com/ashlar-hv/ashlar/qemu-tests/lab"
)

// problems of a guest, in one line.
func (h *host) problems(t testing.TB, id string) string {
	t.Helper()
	return strings.Join(h.vm(t, id).Problems, "; ")
}

// hostProblems are those of the host, in one line.
func (h *host) hostProblems(t testing.TB) string {
	t.Helper()
	r, err := h.Hosts.GetHost(within(t, time.Minute), connect.NewRequest(&v1.GetHostRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(r.Msg.Problems, "; ")
}

// eventually waits until look says want.
func eventually(t testing.TB, what, want string, look func() string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		got := look()
		if strings.Contains(got, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %q, want %q in it", what, got, want)
		}
	}
}

// fails has a guest do what it must not succeed with.
func (c *console) fails(command string) {
	c.t.Helper()
	name, _, _ := strings.Cut(command, " ")
	c.say(command)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if _, ok := c.look("ERR "+name, true, 200*time.Millisecond); ok {
			return
		}
		if line, ok := c.look("OK "+name, true, time.Millisecond); ok {
			c.t.Fatalf("guest %s: %s: %s, want an error", c.id, command, line)
		}
	}
	c.t.Fatalf("guest %s: no answer to %q", c.id, command)
}

// background has the host's shell run commands while it takes others.
func (h *host) background(t testing.TB, commands string) {
	t.Helper()
	h.shell(t, "{ "+commands+"; } >/dev/null 2>&1 & true")
}

// ready boots a guest and returns its console.
func (h *host) ready(t testing.TB, id string) *console {
	t.Helper()
	h.boot(t, id)
	c := h.console(t, id)
	c.expect("TESTGUEST ready", patience)
	return c
}

// tryCreate asks for a virtual machine once, and returns the error.
func (h *host) tryCreate(t testing.TB, id string) error {
	t.Helper()
	o := h.clientOptions(t)
	o.Retry = 0
	once, err := client.New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer once.Close()
	_, err = once.VirtualMachines.CreateVirtualMachine(within(t, time.Minute), connect.NewRequest(&v1.CreateVirtualMachineRequest{
		VirtualMachineId: id, VirtualMachine: testVM("", &v1.Disk{SizeBytes: 1 << 20}),
	}))
	return err
}

// TestFaults has a host meet one fault after the other, and one guest all of them. A guest
// whose VMM hangs from the beginning on is ended meanwhile; another one goes on through all
// of it. The full pool is what make test has of it, make soak has them all.
func TestFaults(t *testing.T) {
	h := newHost(t, options{disk: 400 << 20, memory: "2G"})
	bystander := testVM("", &v1.Disk{SizeBytes: 8 << 20})
	bystander.NetworkInterfaces = nil
	h.create(t, "steady", bystander)
	// Its disk has all of its room: what has to grow gets errors when the pool is full.
	h.shell(t, "dd if=/dev/zero of=/data/guests/"+h.vm(t, "steady").Uid+"/disk-0 bs=1048576 count=8 conv=notrunc")
	h.boot(t, "steady")
	steady := h.witness(t.Context(), "steady", 0)
	h.logs(t, steady)
	if *soakFull {
		hung := testVM("")
		hung.MemoryBytes, hung.NetworkInterfaces = 64<<20, nil
		h.create(t, "hung", hung)
		h.boot(t, "hung")
		h.shell(t, "kill -SIGSTOP $(cat /sys/fs/cgroup/guests/"+h.vm(t, "hung").Uid+"/cgroup.procs)")
	}
	hit := testVM("", &v1.Disk{SizeBytes: 64 << 20})
	hit.MemoryBytes = 512 << 20
	h.create(t, "hit", hit)
	for _, f := range []struct {
		name     string
		do       func(*testing.T, *host)
		soakOnly bool // as tests of packages of their own have it, too
	}{
		{"disk full", diskFull, false}, {"tap gone", tapGone, true}, {"clock jumps", clockJumps, false},
		{"VMM hangs", vmmHangs, true}, {"memory pressure", memoryPressure, false},
	} {
		if f.soakOnly && !*soakFull {
			continue
		}
		if !t.Run(f.name, func(t *testing.T) { f.do(t, h) }) {
			return
		}
		if f.name != "memory pressure" { // which may end more than one VMM
			steady.goesOn(t, 5)
		}
	}
	h.consistent(t)
}

// vmmHangs sees the end of the guest whose VMM was stopped at the beginning.
func vmmHangs(t *testing.T, h *host) {
	eventually(t, "hung", "did not answer", func() string { return h.vm(t, "hung").StopMessage })
	h.waitStopped(t, "hung", v1.VirtualMachine_STOP_REASON_LOST)
	h.boot(t, "hung")
}

// diskFull fills the pool: a guest whose disk has to grow gets errors, nothing can be made,
// and what makes room can be done.
func diskFull(t *testing.T, h *host) {
	h.create(t, "victim", testVM("", &v1.Disk{SizeBytes: 8 << 20}))
	c := h.ready(t, "hit")
	c.ask("write /dev/vda 3 4")
	h.background(t, "dd if=/dev/zero of=/data/filler bs=1048576 count=1000; dd if=/dev/zero of=/data/filler2 bs=4096 count=1000")
	eventually(t, "problems of the host", "pool is full", func() string { return h.hostProblems(t) })
	eventually(t, "dd", "[]", func() string { return fmt.Sprint(h.pids(t, "dd")) })
	c.fails("write /dev/vda 5 16")
	eventually(t, "problems of the guest", "disk 0 got I/O errors, as the pool was full", func() string { return h.problems(t, "hit") })
	if err := h.tryCreate(t, "refused"); connect.CodeOf(err) != connect.CodeResourceExhausted || !strings.Contains(err.Error(), "delete") {
		t.Errorf("creating on a full pool gives %v, want RESOURCE_EXHAUSTED and what to do", err)
	}
	for _, program := range []string{"ashlar-control", "ashlar-core"} {
		h.killed(t, program)
	}
	if vm := h.inState(t, "hit", v1.VirtualMachine_STATE_RUNNING); len(vm.Problems) == 0 {
		t.Error("the problem of the guest was forgotten with core")
	}
	h.remove(t, "victim") // on the full pool
	h.shell(t, "rm /data/filler /data/filler2")
	eventually(t, "problems of the host", "none of the pool", func() string {
		if p := h.hostProblems(t); strings.Contains(p, "pool") {
			return p
		}
		return "none of the pool"
	})
	c = h.console(t, "hit")
	c.ask("write /dev/vda 5 16")
	c.ask("check /dev/vda 5 16")
}

// tapGone takes the tap of a guest away, which runs on and says so.
func tapGone(t *testing.T, h *host) {
	c := h.console(t, "hit")
	deleted := 0
	for _, name := range strings.Fields(h.shell(t, "ls /sys/class/net")) {
		if strings.HasPrefix(name, "gtap") { // the only guest that has one
			h.shell(t, "ip link delete "+name)
			deleted++
		}
	}
	if deleted != 1 {
		t.Fatalf("the host had %d taps, want one", deleted)
	}
	eventually(t, "problems of the guest", "network interface 0 has lost its tap", func() string { return h.problems(t, "hit") })
	c.ask("mem")
	h.stop(t, "hit", true)
	h.ready(t, "hit").ask("ping 10.88.0.1")
	if p := h.problems(t, "hit"); p != "" {
		t.Errorf("problems after another start: %s", p)
	}
}

// clockJumps sets the clock most of a day ahead, and back, while control that waits for a
// guest to stop dies: no operation waits for the time to come.
func clockJumps(t *testing.T, h *host) {
	set := func(at time.Time) { h.shell(t, "date -u "+at.UTC().Format("010215042006.05")) }
	t.Cleanup(func() { set(time.Now()) })
	for i, jump := range []time.Duration{20 * time.Hour, -20 * time.Hour} {
		if i > 0 {
			h.ready(t, "hit")
		}
		r, err := h.VirtualMachines.StopVirtualMachine(within(t, time.Minute), connect.NewRequest(&v1.StopVirtualMachineRequest{Name: "virtualMachines/hit"}))
		if err != nil {
			t.Fatal(err)
		}
		set(time.Now().Add(jump))
		h.killed(t, "ashlar-control")
		if err := h.done(t, r.Msg); err != nil {
			t.Errorf("stop, with the clock set by %v: %v", jump, err)
		}
		h.waitStopped(t, "hit", h.vm(t, "hit").StopReason)
	}
}

// memoryPressure takes the host's memory: the guest that has most of it is ended, and no
// program of the host's.
func memoryPressure(t *testing.T, h *host) {
	h.ready(t, "hit").ask("fill 400")
	programs := func() string {
		return fmt.Sprint(h.pids(t, "ashlar-core"), h.pids(t, "ashlar-control"))
	}
	before := programs()
	available := int64(0)
	for line := range strings.Lines(h.shell(t, "cat /proc/meminfo")) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "MemAvailable:" {
			available, _ = strconv.ParseInt(f[1], 10, 64)
		}
	}
	if available == 0 {
		t.Fatal("no MemAvailable")
	}
	// More than there is, and less than there is without the guest.
	mib := available>>10 + 200
	h.shell(t, fmt.Sprintf("mkdir -p /run/pressure; mount -t tmpfs -o size=%dm,nr_inodes=100 pressure /run/pressure", mib))
	defer h.shell(t, "umount /run/pressure")
	// What spins for a page must not keep the CPU from the guest that is ended, and has it.
	h.shell(t, "mkdir -p /sys/fs/cgroup/pressure; echo 1 > /sys/fs/cgroup/pressure/cpu.weight")
	h.background(t, fmt.Sprintf("gosh -c 'echo 0 > /sys/fs/cgroup/pressure/cgroup.procs && dd if=/dev/zero of=/run/pressure/f bs=4194304 count=%d'", mib/4))
	eventually(t, "hit", "no memory left", func() string { return h.vm(t, "hit").StopMessage })
	h.waitStopped(t, "hit", v1.VirtualMachine_STOP_REASON_LOST)
	if after := programs(); after != before {
		t.Errorf("the host's programs were %s and are %s", before, after)
	}
}

// TestFaultsOfTheDisk has the data disk fail to read, fail to write, and be pulled out. The
// host says so, keeps answering, and has everything again after a boot with a good disk.
func TestFaultsOfTheDisk(t *testing.T) {
	h := newHost(t, options{plug: true})
	h.create(t, "reader", testVM("", &v1.Disk{SizeBytes: 16 << 20}))
	c := h.ready(t, "reader")
	c.ask("write /dev/vda 9 8")

	h.failDisk(t, "read")
	c.fails("check /dev/vda 9 8")
	eventually(t, "problems of the guest", "disk 0 got I/O errors, as the host's data disk fails", func() string { return h.problems(t, "reader") })
	h.healDisk(t)
	c.ask("check /dev/vda 9 8")

	h.failDisk(t, "write")
	c.fails("write /dev/vda 4 8")
	_ = h.tryCreate(t, "written") // until then nothing of the file system's own need be written
	eventually(t, "problems of the host", "data disk fails", func() string { h.shell(t, "sync"); return h.hostProblems(t) })
	h.answersWithoutDisk(t)
	h.healDisk(t)
	if err := h.Cut(); err != nil { // what is shut down cannot be switched off in order
		t.Fatal(err)
	}
	h.reboot(t)
	h.consistent(t)
	c = h.ready(t, "reader")
	c.ask("write /dev/vda 6 8")

	if _, err := h.QMP("device_del", map[string]string{"id": lab.DiskID}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "problems of the host", "is gone", func() string { return h.hostProblems(t) })
	c.fails("write /dev/vda 7 8")
	h.answersWithoutDisk(t)
	if err := h.Down(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	h.reboot(t)
	h.consistent(t)
	c = h.ready(t, "reader")
	c.ask("check /dev/vda 6 8")
}

// failDisk has all requests of a kind (read or write) that the host makes of its data disk
// fail from now on.
func (h *host) failDisk(t testing.TB, kind string) {
	t.Helper()
	_, err := h.QMP("blockdev-add", map[string]any{"driver": "blkdebug", "node-name": "failing", "image": lab.DiskNode,
		"inject-error": []map[string]any{{"event": "none", "iotype": kind, "errno": 5, "once": false}}})
	if err == nil {
		err = h.setDisk("failing")
	}
	if err != nil {
		t.Fatal(err)
	}
}

// healDisk undoes failDisk.
func (h *host) healDisk(t testing.TB) {
	t.Helper()
	err := h.setDisk(lab.DiskNode)
	if err == nil {
		_, err = h.QMP("blockdev-del", map[string]any{"node-name": "failing"})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// setDisk puts another backend below the data disk.
func (h *host) setDisk(node string) error {
	_, err := h.QMP("qom-set", map[string]any{"path": "/machine/peripheral/" + lab.DiskID, "property": "drive", "value": node})
	return err
}

// answersWithoutDisk sees that the API answers with errors that say what to do, also after
// control and core were killed.
func (h *host) answersWithoutDisk(t testing.TB) {
	t.Helper()
	unavailable := func(when string) {
		t.Helper()
		eventually(t, "creating "+when, "unavailable", func() string {
			err := h.tryCreate(t, "unwritten")
			if err == nil {
				t.Fatalf("a virtual machine is created %s without a disk", when)
			}
			if !strings.Contains(err.Error(), "problem") && !strings.Contains(err.Error(), "store") {
				return "without what to do: " + err.Error()
			}
			return err.Error()
		})
		if p := h.hostProblems(t); !strings.Contains(p, "data disk") {
			t.Errorf("problems of the host %s: %q", when, p)
		}
	}
	unavailable("at first")
	h.killed(t, "ashlar-control")
	unavailable("after control has come back")
	h.killed(t, "ashlar-core")
	eventually(t, "problems of the host", "data disk", func() string {
		r, err := h.Hosts.GetHost(within(t, time.Minute), connect.NewRequest(&v1.GetHostRequest{}))
		if err != nil {
			return err.Error()
		}
		return strings.Join(r.Msg.Problems, "; ")
	})
}
