package e2e

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/qemu-tests/shrink"
)

var (
	hostileTime = flag.Duration("hostile-time", 0, "attack for so long, with one seed after the other, and shrink what fails (make fuzz-guest)")
	hostileSeed = flag.Uint64("hostile-seed", 0, "the first seed of -hostile-time; 0: any")
)

const (
	// hostileSeedFixed is the seed of every run.
	hostileSeedFixed = 1
	// hostileSteps are those of a run in make test, out of a round of x.steps.
	hostileSteps = 24
	// hostileStepTime is how long one step may take: its waits are bounded in the guest.
	hostileStepTime = 6 * time.Minute
	// maxHostileMessages bounds what a VMM has to say of all attacks, in bytes, and
	// maxHostileHeap what it uses besides the guest's memory.
	maxHostileMessages = 32 << 10
	maxHostileHeap     = 32 << 20
)

// A hostile is the guest that attacks, seen from outside.
type hostile struct {
	h     *host
	t     *testing.T
	id    string
	uid   string
	c     *console
	vmm   string // its process
	steps int    // of a whole round
}

// hostileGuest creates that guest, with a device of each kind and a disk that is left alone.
func hostileGuest(t *testing.T, h *host) *hostile {
	t.Helper()
	archive := filepath.Join(base, "hostile.cpio")
	if err := packGuest("hostile", archive); err != nil {
		t.Fatal(err)
	}
	h.upload(t, "hostile", archive)
	vm := testVM("hugepages=1", &v1.Disk{SizeBytes: 8 << 20}, &v1.Disk{SizeBytes: 8 << 20})
	vm.Boot.Initramfs, vm.Vsock = "images/hostile", &v1.Vsock{}
	x := &hostile{h: h, t: t, id: "hostile"}
	h.create(t, x.id, vm)
	t.Cleanup(func() { h.remove(t, x.id) })
	x.uid = h.vm(t, x.id).Uid
	return x
}

// start starts it, or starts it anew.
func (x *hostile) start() {
	x.t.Helper()
	if x.vmm != "" {
		if x.h.vm(x.t, x.id).State != v1.VirtualMachine_STATE_STOPPED {
			x.h.stop(x.t, x.id, true)
		}
		x.h.waitStopped(x.t, x.id, x.h.vm(x.t, x.id).StopReason)
	}
	x.h.boot(x.t, x.id)
	x.c = x.h.console(x.t, x.id)
	line := x.c.expect("HOSTILE ready", patience)
	if _, err := fmt.Sscanf(line, "HOSTILE ready steps=%d", &x.steps); err != nil || x.steps == 0 {
		x.t.Fatalf("the guest says %q, %v", line, err)
	}
	for _, name := range []string{"net", "disk", "console", "entropy", "balloon", "vsock"} {
		if !strings.Contains(line, name) {
			x.t.Errorf("%q: no %s to attack", line, name)
		}
	}
	x.vmm = x.processes()
}

func (x *hostile) processes() string {
	return strings.TrimSpace(x.h.shell(x.t, "cat /sys/fs/cgroup/guests/"+x.uid+"/cgroup.procs"))
}

// attack has the guest make steps, and looks at it from outside then.
func (x *hostile) attack(command string) error {
	x.t.Helper()
	x.c.say(command)
	name, _, _ := strings.Cut(command, " ")
	for deadline := time.Now().Add(hostileStepTime); ; {
		if line, ok := x.c.look("OK "+name, true, 300*time.Millisecond); ok {
			x.t.Log(line)
			return x.sane()
		}
		if _, ok := x.c.look("STEP ", true, time.Millisecond); ok {
			deadline = time.Now().Add(hostileStepTime)
		}
		if line, ok := x.c.look("ERR ", true, time.Millisecond); ok {
			return errors.Join(errors.New(line), x.sane())
		}
		x.c.mu.Lock()
		ended, last := x.c.ended, x.c.text.String()
		x.c.mu.Unlock()
		if at := strings.LastIndex(last, "STEP "); at >= 0 {
			last = last[at:]
		}
		if ended != nil {
			return fmt.Errorf("the guest has ended (%v %s) in %s", ended.StopReason, ended.StopMessage, last)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("stuck in %s", last)
		}
	}
}

// sane is what must hold of the VMM.
func (x *hostile) sane() error {
	var errs []error
	if now := x.processes(); now != x.vmm {
		errs = append(errs, fmt.Errorf("the VMM was process %q and is %q", x.vmm, now))
	}
	group := "/sys/fs/cgroup/guests/" + x.uid + "/"
	used := x.h.shell(x.t, "cat "+group+"memory.events "+group+"memory.stat")
	for name, limit := range map[string]int{"oom": 0, "oom_kill": 0, "anon": maxHostileHeap} {
		if n, err := strconv.Atoi(field(used, name)); err != nil || n > limit {
			errs = append(errs, fmt.Errorf("%s of the VMM's memory is %q, want %d at most", name, field(used, name), limit))
		}
	}
	if n := len(x.messages()); n > maxHostileMessages {
		errs = append(errs, fmt.Errorf("the VMM has said %d bytes, want %d at most", n, maxHostileMessages))
	}
	return errors.Join(errs...)
}

// field is the value behind a name that begins a line.
func field(text, name string) string {
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// TestHostileGuest has a guest attack all of its devices, with a seed that is always the same and
// one that is not, while another goes on with its work. With -hostile-time it goes on for so long.
func TestHostileGuest(t *testing.T) {
	h := sharedHost(t)
	h.create(t, "neighbour", testVM("", &v1.Disk{SizeBytes: 8 << 20}))
	t.Cleanup(func() { h.remove(t, "neighbour") })
	h.boot(t, "neighbour")
	beside := h.console(t, "neighbour")
	beside.expect("TESTGUEST ready", patience)
	beside.ask("write /dev/vda 5 1")
	x := hostileGuest(t, h)
	x.start()
	core := h.pids(t, "ashlar-core")

	if *hostileTime > 0 {
		x.fuzz()
	} else {
		x.once(hostileSeedFixed, hostileSteps)
		x.once(rand.Uint64(), hostileSteps/2)
	}
	beside.ask("check /dev/vda 5 1")
	beside.ask("ping 10.88.0.1")
	if now := h.pids(t, "ashlar-core"); strings.Join(now, " ") != strings.Join(core, " ") {
		t.Errorf("core was process %v and is %v", core, now)
	}
}

// once makes the first steps of a seed.
func (x *hostile) once(seed uint64, steps int) {
	x.t.Helper()
	x.t.Logf("seed %d, %d steps; make fuzz-guest SEED=%d begins with them", seed, steps, seed)
	if err := x.attack(fmt.Sprintf("attack %d %d", seed, steps)); err != nil {
		x.t.Fatalf("seed %d: %v\nthe VMM says:\n%s", seed, err, x.messages())
	}
}

func (x *hostile) messages() string {
	return x.h.shell(x.t, "cat /run/ashlar/guests/"+x.uid+"/messages")
}

// fuzz makes a whole round of each seed until its time is over or something fails, which it
// shrinks.
func (x *hostile) fuzz() {
	seed := *hostileSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	for deadline := time.Now().Add(*hostileTime); time.Now().Before(deadline); seed++ {
		x.t.Logf("seed %d", seed)
		err := x.attack(fmt.Sprintf("attack %d %d", seed, x.steps))
		if err == nil {
			continue
		}
		x.t.Errorf("seed %d: %v\nthe VMM says:\n%s", seed, err, x.messages())
		x.shrink(seed, err)
		return
	}
}

// shrink looks for the fewest steps of a seed that fail, up to the one that just did, each time in
// a fresh guest. What failed last is kept in out/.
func (x *hostile) shrink(seed uint64, failure error) {
	steps := make([]int, x.c.step()+1)
	for i := range steps {
		steps[i] = i
	}
	name := filepath.Join(top, "out", fmt.Sprintf("hostile-%d.txt", seed))
	keep := func(command string, err error) {
		report := fmt.Sprintf("%s\n%v\nThe VMM says:\n%s", command, err, x.messages())
		if err := os.WriteFile(name, []byte(report), 0o644); err != nil {
			x.t.Error(err)
		}
	}
	keep(fmt.Sprintf("attack %d %d", seed, len(steps)), failure)
	steps = shrink.Steps(steps, func(part []int) bool {
		x.start()
		command := fmt.Sprintf("replay %d %s", seed, strings.Trim(strings.ReplaceAll(fmt.Sprint(part), " ", ","), "[]"))
		err := x.attack(command)
		x.t.Logf("%s: %v", command, err)
		if err != nil {
			keep(command, err)
		}
		return err != nil
	})
	x.t.Errorf("steps of seed %d that fail: %v; see %s", seed, steps, name)
}

// step is the number of the last step on the console.
func (c *console) step() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	text := c.text.String()
	n := 0
	if at := strings.LastIndex(text, "STEP "); at >= 0 {
		_, _ = fmt.Sscanf(text[at:], "STEP %d", &n) // what was cut off is step 0
	}
	return n
}
