package guest

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

const (
	// defaultBeat is how often each VMM is asked, and how long it has for an answer.
	defaultBeat = 10 * time.Second
	// missedBeats is how many questions on end a VMM may leave without an answer: more
	// than it may take over a pause (pauseTimeout), which holds the answers up. Questions
	// are counted, not time: a core that was kept from running blames nobody for that.
	missedBeats = 6
)

// hungMessage is the end of a guest whose VMM did not answer.
const hungMessage = "The VMM did not answer for a minute and was ended."

// health is what core sees of a guest that runs besides its end.
type health struct {
	hung atomic.Bool // it was ended because it did not answer
	// As its VMM tells, guarded by Manager.mu.
	disksFull, disksFailed protocol.DiskSet
	tapsGone               []int // numbers of NICs, replaced as a whole; guarded by Manager.mu
}

// noteDisks takes over what a VMM tells of its disks, and reports whether it is new. The
// caller holds Manager.mu, or nobody else has r.
func (r *run) noteDisks(s *protocol.Status) bool {
	news := r.disksFull != s.DisksFull || r.disksFailed != s.DisksFailed
	r.disksFull, r.disksFailed = s.DisksFull, s.DisksFailed
	return news
}

// watchOver asks the VMM of r again and again, until ctx ends, and ends it where it has
// left too many questions without an answer.
func (m *Manager) watchOver(ctx context.Context, r *run) {
	beat := m.c.Beat
	if beat == 0 {
		beat = defaultBeat
	}
	tick := time.NewTicker(beat)
	defer tick.Stop()
	var without []int // NICs that had no tap when it was looked last
	for missed := 0; ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if !m.looksAfter(r) {
			continue
		}
		without = m.lookAtTaps(r, without)
		if m.answers(ctx, r, beat) {
			missed = 0
			continue
		}
		if missed++; missed < missedBeats || ctx.Err() != nil || r.killed.Load() {
			continue
		}
		m.c.Log.Error("VMM does not answer and is ended", "guest", r.rec.Name, "id", r.rec.ID, "questions", missed)
		r.hung.Store(true)
		if err := r.group.Kill(); err != nil {
			m.c.Log.Error("cannot kill VMM", "guest", r.rec.ID, "error", err)
		}
		missed = 0 // one that the kernel holds is tried again
	}
}

// looksAfter reports whether the VMM of r is to be asked: who starts or ends it has a time
// limit of his own.
func (m *Manager) looksAfter(r *run) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return r.ran && !m.closed && !r.killed.Load()
}

// answers asks the VMM of r how it is. That it refuses is an answer, too.
func (m *Manager) answers(ctx context.Context, r *run, patience time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	response, _, err := r.client.call(ctx, protocol.Query, nil, nil)
	var refused *protocol.Error
	if err != nil {
		return errors.As(err, &refused)
	}
	m.learn(r, response.Status)
	return true
}

// lookAtTaps notes which NICs of r have lost their tap: those that have none now and had
// none before, as one that is being detached has none for a moment. It returns the former.
func (m *Manager) lookAtTaps(r *run, before []int) (without []int) {
	m.mu.Lock()
	rec := r.rec
	m.mu.Unlock()
	var gone []int
	for _, n := range rec.NICs {
		if _, err := m.c.Networks.TapCounters(rec.tap(n.Number)); errors.Is(err, fs.ErrNotExist) {
			without = append(without, n.Number)
			if slices.Contains(before, n.Number) {
				gone = append(gone, n.Number)
			}
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running[r.rec.ID] != r || slices.Equal(gone, r.tapsGone) {
		return without
	}
	r.tapsGone = gone
	if len(gone) > 0 {
		m.c.Log.Error("tap of guest is gone", "guest", r.rec.Name, "id", r.rec.ID, "nics", gone)
	}
	m.c.Notify(m.statusOf(r))
	return without
}
