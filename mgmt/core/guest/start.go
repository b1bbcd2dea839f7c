package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/ashlar-hv/ashlar/drivers/cgroup"
	"github.com/ashlar-hv/ashlar/mgmt/core/folder"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/processor"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

const (
	endTimeout = 2 * time.Second // from the end of the connection to that of the VMM
	maxVCPUs   = 128
	maxCmdline = 2047 // bytes, as the x86 boot protocol has it
	maxName    = 63   // bytes
	// fileMin is the least that a VMM may make its files grow to: its console
	// log is halved when it has protocol.LogLimit bytes.
	fileMin = 2 * protocol.LogLimit
)

// vmmMemory is how much the VMM of r may use, all in all.
func vmmMemory(r *record, use diskUse) int64 { return r.promised() + use.memory }

// vmmCPUs is how many CPUs' worth of time the VMM of r may take: that of its processors, as
// much again for its queues in the kernel and its disks, and two for itself.
func vmmCPUs(r *record) int64 { return 2*int64(r.VCPUs) + 2 }

// fileMax is how large a VMM may make its files.
func fileMax(use diskUse) int64 { return max(use.largest, fileMin) }

// check validates a guest as far as core can see.
func (m *Manager) check(g *hostcall.Guest) error {
	invalid := func(field, format string, args ...any) error {
		return &hostcall.Error{Code: hostcall.InvalidArgument, Field: "guest." + field, Message: fmt.Sprintf(format, args...)}
	}
	printable := func(s string) bool {
		return strings.IndexFunc(s, func(c rune) bool { return c < ' ' || c > '~' }) < 0
	}
	switch {
	case g.Name == "" || len(g.Name) > maxName || !printable(g.Name):
		return invalid("name", "A name has 1 to %d printable characters.", maxName)
	case g.VCPUs < 1 || g.VCPUs > maxVCPUs:
		return invalid("vcpus", "A guest has 1 to %d processors, not %d.", maxVCPUs, g.VCPUs)
	case g.MaxVCPUs != 0 && (g.MaxVCPUs < g.VCPUs || g.MaxVCPUs > maxVCPUs):
		return invalid("maxVcpus", "A guest with %d processors can come to have %d to %d, not %d.", g.VCPUs, g.VCPUs, maxVCPUs, g.MaxVCPUs)
	case g.CPU != nil && g.CPU.Model != "" && !slices.Contains(processor.Models(), g.CPU.Model):
		return invalid("cpu.model", "There is no CPU model %q: choose from %s.", g.CPU.Model, strings.Join(processor.Models(), ", "))
	case g.CPU != nil && g.CPU.HaltPollNs != nil && *g.CPU.HaltPollNs > protocol.HaltPollLimit:
		return invalid("cpu.haltPollNs", "The host polls for at most %d ns, not %d.", protocol.HaltPollLimit, *g.CPU.HaltPollNs)
	case g.MemoryBytes < memoryMin || g.MemoryBytes > memoryMax || g.MemoryBytes%memoryUnit != 0:
		return invalid("memoryBytes", "A guest has a multiple of 2 MiB of memory, 32 MiB to 1 TiB, not %d bytes.", g.MemoryBytes)
	case !balloonFits(g.BalloonBytes, g.MemoryBytes):
		return invalid("balloonBytes", "%s", balloonRule(g.MemoryBytes))
	case len(g.Disks) > folder.MaxDisks:
		return invalid("disks", "A guest has at most %d disks, not %d.", folder.MaxDisks, len(g.Disks))
	case len(g.Cmdline) > maxCmdline || !printable(g.Cmdline):
		return invalid("cmdline", "A kernel command line has at most %d printable characters.", maxCmdline)
	}
	if err := g.Backing.Check(g.MemoryBytes); err != nil {
		return refusal(err)
	}
	if c := g.CPU; c != nil {
		if _, err := processor.NewTopology(mostVCPUs(g), processor.Topology{Sockets: c.Sockets, Cores: c.Cores, Threads: c.Threads}); err != nil {
			return invalid("cpu", "%v.", err)
		}
	}
	if err := checkNodes(g); err != nil {
		return err
	}
	if err := checkPlacement(g); err != nil {
		return err
	}
	if err := checkPluggable(g); err != nil {
		return err
	}
	if err := checkDisks(g); err != nil {
		return err
	}
	if err := checkBoard(g.Board); err != nil {
		return err
	}
	if err := checkSerial(g); err != nil {
		return err
	}
	if err := checkNICs(g); err != nil {
		return err
	}
	if err := checkHostDevices(g); err != nil {
		return err
	}
	return m.c.Networks.Check(g.NICs)
}

// Start starts the guest id and returns when it runs. When it cannot be
// started, nothing is left behind.
func (m *Manager) Start(ctx context.Context, id string, g *hostcall.Guest) error {
	number(g)
	if err := m.check(g); err != nil {
		return err
	}
	if m.c.Allowed != nil {
		if err := m.c.Allowed(); err != nil {
			return err
		}
	}
	defer m.turns.take(id)()
	if !m.c.Folders.Exists(id) {
		return folder.NotFound(id)
	}
	m.settleAll(ctx)
	r, err := m.reserve(id, g)
	if err != nil {
		return err
	}
	if err := m.bring(ctx, r, g); err != nil {
		m.abandon(r)
		return err
	}
	m.c.Log.Info("guest runs", "guest", r.rec.Name, "id", id, "pid", r.rec.PID, "uid", r.rec.uid())
	return nil
}

// reserve puts a new run into the table if there is room for it.
func (m *Manager) reserve(id string, g *hostcall.Guest) (*run, error) {
	near := m.nodesNear(g.Devices)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running[id] != nil {
		return nil, &hostcall.Error{Code: hostcall.FailedPrecondition, Message: "The guest runs already."}
	}
	if m.closed {
		return nil, &hostcall.Error{Code: hostcall.Unavailable, Message: "The host is shutting down."}
	}
	rec := record{ID: id, Name: g.Name, MemoryBytes: g.MemoryBytes, Pages: g.Backing.Kind(), VCPUs: mostVCPUs(g), NUMA: g.NUMA, HotplugSlots: hotSlots(g), Rates: ratesOf(g), Started: time.Now().UTC()}
	rec.plug(g)
	rec.VFIO = len(g.Devices) > 0 || rec.HotplugSlots > 0 && canGive()
	if err := m.admit(&rec); err != nil {
		return nil, err
	}
	if err := m.place(&rec, g, near); err != nil {
		return nil, err
	}
	if err := m.admitToNodes(&rec); err != nil {
		return nil, err
	}
	var err error
	if rec.Slot, err = m.slot(); err != nil {
		return nil, err
	}
	if g.Vsock {
		rec.CID = m.cid(id)
	}
	r := &run{
		rec:    rec,
		state:  hostcall.Starting,
		client: newClient(m.runPath(id, socketName)),
		group:  m.groupOf(id),
		gone:   make(chan struct{}),
	}
	r.before = m.ended[id].Reason
	m.running[id] = r
	m.c.Notify(m.statusOf(r))
	return r, nil
}

// bring makes what the run needs, starts the VMM and configures it.
func (m *Manager) bring(ctx context.Context, r *run, g *hostcall.Guest) error {
	if err := m.prepare(r, g); err != nil {
		return err
	}
	spec, files, err := m.gather(r, g)
	defer files.close()
	if err != nil {
		return err
	}
	disks := files.disks(spec)
	use, err := useOf(disks)
	if err != nil {
		return err
	}
	if err := m.spawn(r, use, disks); err != nil {
		return err
	}
	ended := make(chan struct{})
	r.watched = true
	go m.watch(r, ended)
	if r.killed.Load() {
		return &hostcall.Error{Code: hostcall.FailedPrecondition, Message: "The guest was killed while it was being started."}
	}
	if err := r.addThreads(spec, files); err != nil {
		return err
	}
	return m.configure(ctx, r, spec, files, ended)
}

// prepare writes down the run, and gives its NICs their addresses.
func (m *Manager) prepare(r *run, g *hostcall.Guest) error {
	dir := m.runPath(r.rec.ID)
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		return fmt.Errorf("prepare guest: %w", err)
	}
	nics, err := m.c.Networks.Assign(r.rec.ID, g.NICs)
	if err != nil {
		return err
	}
	for i := range nics {
		nics[i].Number = g.NICs[i].Number
	}
	if err := m.c.Folders.SetInterfaces(r.rec.ID, nics); err != nil {
		return err
	}
	if err := m.c.Networks.Activate(nics); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r.rec.NICs, r.rec.Leased = nics, make([]string, len(nics))
	return m.writeRecord(r.rec)
}

// spawn starts the VMM process in its cgroup, which is bounded by what its disks may do.
func (m *Manager) spawn(r *run, use diskUse, disks []*os.File) error {
	id := r.rec.ID
	if err := r.group.Remove(killTimeout); err != nil { // of an earlier life, if any
		return err
	}
	group, err := m.makeGroup(r, cgroup.Limits{
		MemoryMax: vmmMemory(&r.rec, use), Hugetlb: r.rec.pooled(), PIDsMax: int64(protocol.Threads(r.rec.VCPUs)), CPUWeight: 100, CPUMax: vmmCPUs(&r.rec)})
	if err == nil {
		err = setWall(r.group, wall(r.rec.Rates), disks)
	}
	if err != nil {
		return err
	}
	listen, err := listenAt(m.runPath(id, socketName))
	if err != nil {
		return err
	}
	defer listen.Close()
	result, err := os.OpenFile(m.runPath(id, resultName), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("make result file: %w", err)
	}
	defer result.Close()
	messages, err := os.OpenFile(m.runPath(id, messageName), os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("make message file: %w", err)
	}
	defer messages.Close()
	if r.process, err = startVMM(m.c.VMM, r.rec.uid(), group, listen, result, messages); err != nil {
		return err
	}
	return m.noteProcess(r, fileMax(use))
}

// noteProcess writes down which process the VMM is, and sets its limits: no file that it
// writes to grows beyond limit bytes.
func (m *Manager) noteProcess(r *run, limit int64) error {
	pid := r.cmd.Process.Pid
	began, err := startTime(pid)
	if err == nil {
		err = limitFiles(pid, limit)
	}
	if err == nil && (r.rec.Pages.PoolSize() > 0 || r.rec.VFIO) {
		err = letLock(pid)
	}
	if err == nil {
		err = sacrifice(pid)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r.rec.PID, r.rec.StartTime = pid, began
	if err == nil {
		err = m.writeRecord(r.rec)
	}
	if err != nil {
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
	}
	return err
}

// configure hands the VMM everything and waits until the guest runs.
func (m *Manager) configure(ctx context.Context, r *run, spec *protocol.Spec, files *fileList, ended <-chan struct{}) error {
	patience := configureTimeout + spec.Backing.PopulateTime(spec.MemoryBytes)
	if spec.VFIO != nil && len(spec.VFIO.Devices) > 0 {
		patience += devicePatience(spec.MemoryBytes)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, extra, err := r.client.call(ctx, protocol.Configure, spec, files.files)
	for _, f := range extra {
		f.Close()
	}
	var said *protocol.Error
	if errors.As(err, &said) && spec.VFIO != nil {
		return hostRefusal(err, spec.VFIO.Devices)
	}
	if err != nil {
		return m.whyNot(r, err, ended)
	}
	m.keepLog(r)
	m.ranNow(r, spec.VCPUs)
	return nil
}

// ranNow notes that the guest of r has come to run, with so many processors. It may be over already.
func (m *Manager) ranNow(r *run, vcpus int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r.ran = true
	if m.running[r.rec.ID] == r {
		r.state, r.vcpus = hostcall.Running, vcpus
		m.c.Notify(m.statusOf(r))
		return
	}
	m.noteEnd(r)
	m.c.Notify(r.end)
}

// whyNot finds the best reason why a VMM did not come to run its guest.
func (m *Manager) whyNot(r *run, err error, ended <-chan struct{}) error {
	var refused *protocol.Error
	if errors.As(err, &refused) {
		return refusal(err)
	}
	// The connection ends a moment before the process does.
	select {
	case <-ended:
		out := &hostcall.Error{Code: hostcall.Internal, Message: strings.TrimSpace("The VMM could not start the guest. " + r.end.Message)}
		if r.starved {
			out.Code, out.Field = hostcall.ResourceExhausted, "guest.memoryBytes"
		}
		return out
	case <-time.After(endTimeout):
		return refusal(err)
	}
}
