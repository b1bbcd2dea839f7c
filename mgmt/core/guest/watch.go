package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ashlar-hv/ashlar/drivers/cgroup"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

const (
	messagePoll = time.Second
	// maxMessages bounds, in bytes, what of a VMM's messages goes to core's log.
	maxMessages = 64 << 10
)

// watch waits for the end of the VMM of r, closing ended, and retires it.
func (m *Manager) watch(r *run, ended chan struct{}) {
	messages, done := make(chan struct{}), make(chan struct{})
	go func() { defer close(done); m.passMessages(r, messages) }()
	if err := r.wait(); err != nil {
		m.c.Log.Error("cannot wait for VMM", "guest", r.rec.ID, "error", err)
	}
	close(messages)
	<-done
	r.end = m.endOf(r)
	close(ended)
	m.finish(r)
	m.retire(r)
}

// abandon undoes a start that failed.
func (m *Manager) abandon(r *run) {
	r.killed.Store(true)
	if r.watched {
		if err := r.group.Kill(); err != nil {
			m.c.Log.Error("cannot kill VMM", "guest", r.rec.ID, "error", err)
		}
		<-r.gone
		return
	}
	m.cleanUp(r.rec)
	m.retire(r)
}

// cleanUp removes all that a run has made outside its guest's folder.
func (m *Manager) cleanUp(rec record) {
	errs := []error{m.groupOf(rec.ID).Remove(killTimeout)}
	for i := range rec.NICs {
		errs = append(errs, m.c.Networks.RemoveTap(rec.tap(i)))
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
	buf, at := make([]byte, 4<<10), int64(0)
	if info, err := f.Stat(); err == nil && r.cmd == nil {
		at = info.Size() // the core before this one has logged it
	}
	for last := false; ; {
		for at < maxMessages {
			n, _ := f.ReadAt(buf, at)
			line := bytes.IndexByte(buf[:n], '\n') + 1
			if line == 0 && (n == len(buf) || last) {
				line = n
			}
			if line == 0 {
				break
			}
			m.c.Log.Info("VMM: "+clean(string(buf[:line])), "guest", r.rec.Name)
			if at += int64(line); at >= maxMessages {
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
		}
	}
}

// adoptAll takes over the guests that a core before this one has left, and
// clears away the remains of those that do not run.
func (m *Manager) adoptAll() error {
	entries, err := os.ReadDir(m.c.RunDir)
	if err != nil {
		return fmt.Errorf("adopt guests: %w", err)
	}
	for _, e := range entries {
		if !hostcall.ValidID(e.Name()) {
			if err := os.RemoveAll(filepath.Join(m.c.RunDir, e.Name())); err != nil {
				return fmt.Errorf("adopt guests: %w", err)
			}
			continue
		}
		m.adopt(e.Name())
	}
	groups, err := os.ReadDir(m.c.Cgroup)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("adopt guests: %w", err)
	}
	for _, g := range groups {
		if !g.IsDir() || m.running[g.Name()] != nil {
			continue
		}
		if err := cgroup.Open(filepath.Join(m.c.Cgroup, g.Name())).Remove(killTimeout); err != nil {
			m.c.Log.Error("cgroup without a guest cannot be removed", "error", err)
		}
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
	if err != nil {
		m.c.Log.Warn("guest was being started when core ended", "guest", id, "error", err)
		m.cleanUp(record{ID: id})
		return
	}
	r := &run{rec: rec, state: hostcall.Running, ran: true, group: m.groupOf(id),
		client: newClient(m.runPath(id, socketName)), gone: make(chan struct{})}
	r.process, err = adoptProcess(rec.PID, rec.StartTime)
	if rec.PID == 0 || err != nil {
		m.c.Log.Warn("guest has ended while core did not run", "guest", rec.Name, "id", id, "error", err)
		r.end = m.endOf(r)
		m.finish(r)
		m.noteEnd(r)
		return
	}
	if !m.configured(r) {
		m.c.Log.Warn("guest was being started when core ended", "guest", rec.Name, "id", id)
		r.pidfd.Close()
		r.client.close()
		m.cleanUp(rec)
		return
	}
	if err := m.c.Networks.Activate(rec.NICs); err != nil {
		m.c.Log.Warn("guest gets no addresses", "guest", rec.Name, "id", id, "error", err)
	}
	m.running[id] = r
	r.watched = true
	go m.watch(r, make(chan struct{}))
	m.c.Log.Info("guest adopted", "guest", rec.Name, "id", id, "pid", rec.PID)
}

// configured reports whether the VMM of r has its guest. One that does not
// answer is given the benefit of the doubt: its guest may well run.
func (m *Manager) configured(r *run) bool {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	response, files, err := r.client.call(ctx, protocol.Query, nil, nil)
	for _, f := range files {
		f.Close()
	}
	if err != nil {
		m.c.Log.Warn("adopted VMM does not answer", "guest", r.rec.Name, "error", err)
		return true
	}
	if response.Status != nil && response.Status.State == protocol.Paused {
		r.state = hostcall.Paused
	}
	return response.Status == nil || response.Status.State != protocol.Waiting
}
