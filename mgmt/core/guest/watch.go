package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ashlar-hv/ashlar/drivers/cgroup"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

const (
	messagePoll = time.Second
	// maxMessages bounds, in bytes, what of a VMM's messages goes to core's log.
	maxMessages = 64 << 10
	// maxRunFiles bounds, in bytes, what a VMM may leave in its folder on the
	// run file system, which it shares with core and all other guests.
	maxRunFiles = 1 << 20
)

// watch waits for the end of the VMM of r, closing ended, and retires it.
func (m *Manager) watch(r *run, ended chan struct{}) {
	messages, done := make(chan struct{}), make(chan struct{})
	go func() { defer close(done); m.passMessages(r, messages) }()
	beating, stop := context.WithCancel(context.Background())
	go m.watchOver(beating, r)
	if err := r.wait(); err != nil {
		m.c.Log.Error("cannot wait for VMM", "guest", r.rec.ID, "error", err)
	}
	stop()
	close(messages)
	<-done
	r.end = m.endOf(r)
	close(ended)
	m.keepEnd(r)
	m.finish(r)
	m.retire(r)
}

// keepEnd keeps how r ended while its folder still says so: a core that ends in
// between loses nothing.
func (m *Manager) keepEnd(r *run) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.ran {
		m.noteEnd(r)
	}
}

// abandon undoes a start that failed.
func (m *Manager) abandon(r *run) {
	r.killed.Store(true)
	m.dropLog(r.rec.ID)
	if r.watched {
		if err := r.group.Kill(); err != nil {
			m.c.Log.Error("cannot kill VMM's group", "guest", r.rec.ID, "error", err)
			_ = r.cmd.Process.Kill()
		}
		<-r.gone
		return
	}
	m.cleanUp(r.rec)
	m.retire(r)
}

// keepLog puts the console log of a guest that has come to run into its place.
func (m *Manager) keepLog(r *run) {
	if err := m.c.Folders.KeepLog(r.rec.ID); err != nil {
		m.c.Log.Error("console log of guest is not in its place", "guest", r.rec.ID, "error", err)
	}
}

// dropLog removes the console log of a guest that has not come to run.
func (m *Manager) dropLog(id string) {
	if err := m.c.Folders.DropLog(id); err != nil {
		m.c.Log.Error("something of a guest is left behind", "guest", id, "error", err)
	}
}

// cleanUp removes all that a run has made outside its guest's folder.
func (m *Manager) cleanUp(rec record) {
	errs := []error{m.groupOf(rec.ID).Remove(killTimeout)}
	m.devices.Return(rec.ID) // nobody has them open any more
	for _, n := range rec.NICs {
		errs = append(errs, m.c.Networks.RemoveTap(rec.tap(n.Number)))
	}
	m.c.Networks.Deactivate(rec.NICs)
	errs = append(errs, os.RemoveAll(m.runPath(rec.ID)))
	if err := errors.Join(errs...); err != nil {
		m.c.Log.Error("something of a guest is left behind", "guest", rec.ID, "error", err)
	}
}

// passMessages copies what the VMM writes to its descriptor 2 to core's log,
// line by line, until end is closed.
func (m *Manager) passMessages(r *run, end <-chan struct{}) {
	f, err := os.Open(m.runPath(r.rec.ID, messageName))
	if err != nil {
		m.c.Log.Warn("cannot read VMM's messages", "guest", r.rec.Name, "error", err)
		return
	}
	defer f.Close()
	tick := time.NewTicker(messagePoll)
	defer tick.Stop()
	var l listener
	defer l.wait()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	buf, at, said := make([]byte, 4<<10), int64(0), 0
	if info, err := f.Stat(); err == nil && r.cmd == nil {
		at = info.Size() // the core before this one has logged it
	}
	for last := false; ; {
		for said < maxMessages {
			n, _ := f.ReadAt(buf, at)
			line := bytes.IndexByte(buf[:n], '\n') + 1
			if line == 0 && (n == len(buf) || last) {
				line = n
			}
			if line == 0 {
				break
			}
			m.c.Log.Info("VMM: "+clean(string(buf[:line])), "guest", r.rec.Name)
			at += int64(line)
			// A line costs more than its bytes: short ones count as long ones.
			if said += max(line, maxMessage); said >= maxMessages {
				m.c.Log.Warn("VMM says too much: the rest is left out", "guest", r.rec.Name)
			}
		}
		if last {
			return
		}
		select {
		case <-end:
			last = true
		case <-tick.C:
			m.stopFlood(r)
			m.listen(ctx, r, &l)
			m.steerDevices(r)
			m.moveHelpers(r)
		}
	}
}

// stopFlood kills a VMM that fills the run file system.
func (m *Manager) stopFlood(r *run) {
	size := int64(0)
	for _, name := range []string{messageName, resultName} {
		if info, err := os.Stat(m.runPath(r.rec.ID, name)); err == nil {
			size += info.Size()
		}
	}
	if size <= maxRunFiles {
		return
	}
	m.c.Log.Error("VMM writes without end and is killed", "guest", r.rec.ID, "bytes", size)
	if err := r.group.Kill(); err != nil {
		m.c.Log.Error("cannot kill VMM", "guest", r.rec.ID, "error", err)
	}
}

// adoptAll takes over the guests that a core before this one has left, and
// clears away the remains of those that do not run.
func (m *Manager) adoptAll() error {
	entries, err := os.ReadDir(m.c.RunDir)
	if err != nil {
		return fmt.Errorf("adopt guests: %w", err)
	}
	// Side by side: core must not be kept waiting by each VMM that does not answer.
	var all sync.WaitGroup
	defer all.Wait()
	for _, e := range entries {
		if !hostcall.ValidID(e.Name()) {
			if err := os.RemoveAll(filepath.Join(m.c.RunDir, e.Name())); err != nil {
				return fmt.Errorf("adopt guests: %w", err)
			}
			continue
		}
		all.Go(func() { m.adopt(e.Name()) })
	}
	all.Wait()
	groups, err := os.ReadDir(m.c.Cgroup)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("adopt guests: %w", err)
	}
	for _, g := range groups {
		if !g.IsDir() || m.lookup(g.Name()) != nil {
			continue
		}
		all.Go(func() {
			if err := cgroup.Open(filepath.Join(m.c.Cgroup, g.Name())).Remove(killTimeout); err != nil {
				m.c.Log.Error("cgroup without a guest cannot be removed", "error", err)
			}
		})
	}
	return nil
}

// adopt takes over one guest, or clears it away.
func (m *Manager) adopt(id string) {
	b, err := os.ReadFile(m.runPath(id, recordName))
	var rec record
	if err == nil {
		rec, err = decodeRecord(b, id)
	}
	if err != nil || rec.PID == 0 {
		m.c.Log.Warn("guest was being started when core ended", "guest", id, "error", err)
		rec.ID = id
		m.cleanUp(rec)
		m.dropLog(id)
		return
	}
	r := &run{rec: rec, state: hostcall.Running, ran: true, group: m.groupOf(id),
		client: newClient(m.runPath(id, socketName)), gone: make(chan struct{})}
	r.process, err = adoptProcess(rec.PID, rec.StartTime)
	if err != nil {
		m.c.Log.Warn("guest has ended while core did not run", "guest", rec.Name, "id", id, "error", err)
		r.end = m.endOf(r)
		m.keepLog(r)
		m.keepEnd(r)
		m.finish(r)
		return
	}
	if !m.configured(r) {
		m.c.Log.Warn("guest was being started when core ended", "guest", rec.Name, "id", id)
		r.pidfd.Close()
		r.client.close()
		m.cleanUp(rec)
		m.dropLog(id)
		return
	}
	if err := m.c.Networks.Activate(rec.NICs); err != nil {
		m.c.Log.Warn("guest gets no addresses", "guest", rec.Name, "id", id, "error", err)
	}
	m.keepLog(r)
	m.boundAgain(r)
	m.mu.Lock()
	r.before = m.ended[id].Reason
	m.running[id] = r
	m.mu.Unlock()
	r.watched = true
	go m.watch(r, make(chan struct{}))
	m.c.Log.Info("guest adopted", "guest", rec.Name, "id", id, "pid", rec.PID)
}

// configured reports whether the VMM of r has its guest. One that does not
// answer is given the benefit of the doubt: its guest may well run.
func (m *Manager) configured(r *run) bool {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	response, _, err := r.client.call(ctx, protocol.Query, nil, nil)
	if err != nil {
		m.c.Log.Warn("adopted VMM does not answer", "guest", r.rec.Name, "error", err)
		return true
	}
	if response.Status != nil {
		r.notePanic(response.Status, time.Now())
		r.noteDisks(response.Status)
	}
	if response.Status != nil && response.Status.State == protocol.Paused {
		r.state = hostcall.Paused
	}
	m.learnVCPUs(r, response.Status)
	m.learnDevices(r, response.Status)
	return response.Status == nil || response.Status.State != protocol.Waiting
}
