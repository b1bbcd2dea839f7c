package e2e

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// uidLength is that of the host's identifiers of guests.
const uidLength = 32

// TestSoakKills kills control, core and VMMs at random moments, while guests write and
// others come and go. Guests that are not killed go on, operations end, what was promised
// is kept, and nothing is left behind.
func TestSoakKills(t *testing.T) {
	s := newSoak(t, 4, 300)
	workers := 1 // that write all the time
	if *soakFull {
		workers = 2
	}
	h := newHost(t, options{})
	ctx := t.Context()
	all := make([]*worker, workers)
	for i := range all {
		all[i] = h.worker(t, ctx, fmt.Sprintf("worker-%d", i))
	}
	before := h.open(t)
	m, stop, stopped := newMess(h, s.seed), make(chan struct{}), make(chan struct{})
	go func() { defer close(stopped); m.work(ctx, stop) }()
	killed, kinds := map[string]int{}, []int(nil)
	killWorker := func() {
		w := all[s.rng.IntN(workers)]
		if w.killed = h.killVMM(t, w.uid); w.killed {
			killed["worker"]++
		}
	}
	for s.next() {
		s.pause(1500 * time.Millisecond)
		if len(kinds) == 0 {
			kinds = s.rng.Perm(4) // each as often as the others
		}
		kind := kinds[0]
		kinds = kinds[1:]
		switch kind {
		case 0:
			killed["control"] += h.kill9(t, "ashlar-control")
		case 1:
			killed["core"] += h.kill9(t, "ashlar-core")
		case 2:
			killWorker()
		default:
			n := h.killOtherVMM(t, s.rng.IntN(8), all)
			killed["other VMM"] += n
			if n == 0 { // none runs just now
				killWorker()
			}
		}
		for _, w := range all {
			w.well(t, m)
		}
		if m.err != nil {
			t.Fatal(m.err)
		}
	}
	close(stop)
	<-stopped
	t.Logf("killed %v while %d others were at work", killed, m.done)
	if m.err != nil {
		t.Fatal(m.err)
	}
	for _, w := range all {
		w.well(t, m)
	}
	m.kept(t)
	h.consistent(t)
	for _, w := range all {
		eventually(t, "the VMM of "+w.id+" has more descriptors", "false", func() string {
			return strconv.FormatBool(h.vmmFiles(t, w.uid) > w.files)
		})
	}
	if after := h.open(t); after.core > before.core+8 || after.control > before.control+8 {
		t.Errorf("descriptors of core and control: %+v, then %+v", before, after)
	}
}

// A worker is a guest that writes.
type worker struct {
	*witness
	uid    string
	since  time.Time
	files  int  // how many its VMM has open
	killed bool // its VMM was killed since it was looked at last
}

func (h *host) worker(t testing.TB, ctx context.Context, id string) *worker {
	t.Helper()
	h.create(t, id, testVM("", &v1.Disk{SizeBytes: 8 << 20}))
	h.boot(t, id)
	w := &worker{witness: h.witness(ctx, id, 0), uid: h.vm(t, id).Uid}
	h.logs(t, w.witness)
	w.since, w.files = h.vm(t, id).StartTime.AsTime(), h.vmmFiles(t, w.uid)
	return w
}

// well sees that a worker whose VMM lives goes on, and starts one again that was killed,
// while others wait: beside them it would take long in software emulation.
func (w *worker) well(t testing.TB, m *mess) {
	t.Helper()
	if w.killed {
		w.killed = false
		w.h.lost(t, w.id)
		m.turn.Lock()
		defer m.turn.Unlock()
		op, err := m.ended(t.Context(), "start of "+w.id, func(ctx context.Context) (*connect.Response[v1.Operation], error) {
			return w.h.VirtualMachines.StartVirtualMachine(ctx, connect.NewRequest(&v1.StartVirtualMachineRequest{Name: "virtualMachines/" + w.id}))
		})
		if err != nil || op.Error != nil {
			t.Fatalf("start of %s: %v, %v", w.id, op, err)
		}
		w.h.logs(t, w.witness)
		w.since, w.files = w.h.settled(t, w.id).StartTime.AsTime(), w.h.vmmFiles(t, w.uid)
		return
	}
	w.goesOn(t, 3)
	vm := w.h.settled(t, w.id)
	if vm.State != v1.VirtualMachine_STATE_RUNNING || !vm.StartTime.AsTime().Equal(w.since) {
		t.Fatalf("%s, which was not killed, is %v since %v (%v, %s), want it running since %v", w.id, vm.State, vm.StartTime.AsTime(), vm.StopReason, vm.StopMessage, w.since)
	}
}

// settled is a virtual machine as the API shows it once core has told what runs.
func (h *host) settled(t testing.TB, id string) *v1.VirtualMachine {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		r, err := again(t.Context(), "get "+id, func(ctx context.Context) (*connect.Response[v1.VirtualMachine], error) {
			return h.VirtualMachines.GetVirtualMachine(ctx, connect.NewRequest(&v1.GetVirtualMachineRequest{Name: "virtualMachines/" + id}))
		})
		if err != nil {
			t.Fatalf("get %s: %v", id, err)
		}
		switch r.Msg.State {
		case v1.VirtualMachine_STATE_RUNNING, v1.VirtualMachine_STATE_STOPPED, v1.VirtualMachine_STATE_PAUSED:
			return r.Msg
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is %v, and stays so", id, r.Msg.State)
		}
	}
}

// lost waits until the end of a VMM that was killed is known.
func (h *host) lost(t testing.TB, id string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		vm := h.settled(t, id)
		if vm.State == v1.VirtualMachine_STATE_STOPPED {
			if vm.StopReason != v1.VirtualMachine_STOP_REASON_LOST {
				t.Fatalf("%s, whose VMM was killed, stopped with %v (%s), want LOST", id, vm.StopReason, vm.StopMessage)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s, whose VMM was killed, is %v", id, vm.State)
		}
	}
}

// kill9 kills a program as soon as it is there, and says how many it were.
func (h *host) kill9(t testing.TB, program string) int {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if pids := h.pids(t, program); len(pids) > 0 {
			h.shell(t, "kill -9 "+pids[0])
			return 1
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not come back", program)
		}
	}
}

// killVMM kills the VMM of the guest that has that uid, if there is one.
func (h *host) killVMM(t testing.TB, uid string) bool {
	t.Helper()
	pids := strings.Fields(h.shell(t, "cat /sys/fs/cgroup/guests/"+uid+"/cgroup.procs"))
	if len(pids) == 0 {
		return false
	}
	if _, err := strconv.Atoi(pids[0]); err != nil {
		return false // cat says that it is not there
	}
	h.shell(t, "kill -9 "+pids[0])
	return true
}

// killOtherVMM kills the VMM of a guest that is no worker, if there is one.
func (h *host) killOtherVMM(t testing.TB, which int, all []*worker) int {
	t.Helper()
	var others []string
	for _, uid := range strings.Fields(h.shell(t, "ls /sys/fs/cgroup/guests")) {
		mine := len(uid) != uidLength // a file of the group
		for _, w := range all {
			mine = mine || uid == w.uid
		}
		if !mine {
			others = append(others, uid)
		}
	}
	if len(others) == 0 || !h.killVMM(t, others[which%len(others)]) {
		return 0
	}
	return 1
}

// vmmFiles is how many descriptors the VMM of a guest has.
func (h *host) vmmFiles(t testing.TB, uid string) int {
	t.Helper()
	return h.descriptors(t, "$(cat /sys/fs/cgroup/guests/"+uid+"/cgroup.procs)")
}

// descriptors is how many a process has.
func (h *host) descriptors(t testing.TB, pid string) int {
	t.Helper()
	out := h.shell(t, "ls /proc/"+pid+"/fd | wc -l")
	n, err := strconv.Atoi(strings.TrimSpace(out))
	if err != nil {
		t.Fatalf("descriptors of %s: %q", pid, out)
	}
	return n
}

// openFiles is how many descriptors the host's programs have.
type openFiles struct{ core, control int }

func (h *host) open(t testing.TB) openFiles {
	t.Helper()
	return openFiles{core: h.descriptors(t, "$(pidof ashlar-core)"), control: h.descriptors(t, "$(pidof ashlar-control)")}
}

// consistent waits until the host has settled, and sees that it has what the API shows and
// nothing besides: folders, images, cgroups, run folders, taps and processes.
func (h *host) consistent(t testing.TB) {
	t.Helper()
	var wrong []string
	for deadline := time.Now().Add(patience); ; time.Sleep(500 * time.Millisecond) {
		if wrong = h.leftovers(t); len(wrong) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("left behind, or missing:\n%s", strings.Join(wrong, "\n"))
			return
		}
	}
}

// leftovers compares once.
func (h *host) leftovers(t testing.TB) (wrong []string) {
	t.Helper()
	ctx := within(t, patience)
	vms, err := h.VirtualMachines.ListVirtualMachines(ctx, connect.NewRequest(&v1.ListVirtualMachinesRequest{PageSize: 500}))
	if err != nil {
		return []string{err.Error()}
	}
	images, err := h.Images.ListImages(ctx, connect.NewRequest(&v1.ListImagesRequest{PageSize: 500}))
	if err != nil {
		return []string{err.Error()}
	}
	ops, err := h.Operations.ListOperations(ctx, connect.NewRequest(&v1.ListOperationsRequest{PageSize: 500}))
	if err != nil {
		return []string{err.Error()}
	}
	for _, op := range ops.Msg.Operations {
		if !op.Done {
			wrong = append(wrong, fmt.Sprintf("operation %v", op))
		}
	}
	folders, running, files := map[string]bool{}, map[string]bool{}, map[string]bool{}
	taps := 0
	for _, vm := range vms.Msg.VirtualMachines {
		folders[vm.Uid] = true
		switch vm.State {
		case v1.VirtualMachine_STATE_RUNNING, v1.VirtualMachine_STATE_PAUSED:
			running[vm.Uid] = true
			taps += len(vm.NetworkInterfaces)
		case v1.VirtualMachine_STATE_STOPPED:
		default:
			wrong = append(wrong, fmt.Sprintf("%s is %v", vm.Name, vm.State))
		}
	}
	for _, i := range images.Msg.Images {
		name := i.Uid
		if i.State != v1.Image_STATE_READY {
			name += ".part"
		}
		files[name] = true
	}
	for _, c := range []struct {
		where, list string
		want        map[string]bool
	}{
		{"/data/guests", "ls /data/guests", folders},
		{"/data/images", "ls /data/images", files},
		{"/run/ashlar/guests", "ls /run/ashlar/guests", running},
		{"/sys/fs/cgroup/guests", "ls /sys/fs/cgroup/guests", running},
	} {
		have := map[string]bool{}
		for _, name := range strings.Fields(h.shell(t, c.list)) {
			if c.where != "/sys/fs/cgroup/guests" || len(name) == uidLength { // else a file of the group
				have[name] = true
			}
		}
		for name := range have {
			if !c.want[name] {
				wrong = append(wrong, c.where+" has "+name)
			}
		}
		for name := range c.want {
			if !have[name] {
				wrong = append(wrong, c.where+" lacks "+name)
			}
		}
	}
	if n := strings.Count(h.shell(t, "ls /sys/class/net"), "gtap"); n != taps {
		wrong = append(wrong, fmt.Sprintf("%d taps, want %d", n, taps))
	}
	if n := len(h.pids(t, "ashlar-vmm")); n != len(running) {
		wrong = append(wrong, fmt.Sprintf("%d VMMs run, want %d", n, len(running)))
	}
	return wrong
}
