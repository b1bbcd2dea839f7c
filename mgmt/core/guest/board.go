package guest

import (
	"context"
	"os"
	"time"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// checkBoard validates what is said of a guest's board.
func checkBoard(b *protocol.Board) error {
	if field, wrong := b.Check(); wrong != "" {
		return &hostcall.Error{Code: hostcall.InvalidArgument, Field: "guest.board." + field, Message: "The guest's " + field + " " + wrong + "."}
	}
	return nil
}

// gatherBoard says what the board is like, and how the run before ended as far as that is
// its business.
func (m *Manager) gatherBoard(r *run, g *hostcall.Guest, spec *protocol.Spec, _ *fileList) error {
	spec.Board = g.Board
	spec.WatchdogExpired = r.before == string(protocol.WatchdogExpired)
	return nil
}

// boardNews are what a run tells of its guest's board.
type boardNews struct {
	before   string    // the reason why the last run ended
	panicked time.Time // when its kernel panicked and was left alone; guarded by Manager.mu
}

// A listener asks a VMM how its guest is after it has written a message: what its guest has
// come to is told there, and a VMM that is silent is left in peace.
type listener struct {
	size     int64     // of the messages when it was asked last
	answered chan bool // nil where no question is open
}

// listen asks the VMM of r where it has written something new, or has not answered the last
// question. It waits for nothing: that a VMM writes too much must be seen in time.
func (m *Manager) listen(ctx context.Context, r *run, l *listener) {
	if l.answered != nil {
		select {
		case ok := <-l.answered:
			if l.answered = nil; !ok {
				l.size = 0
			}
		default:
			return
		}
	}
	info, err := os.Stat(m.runPath(r.rec.ID, messageName))
	if err != nil || info.Size() == l.size || !m.hasRun(r) {
		return
	}
	answered := make(chan bool, 1)
	l.size, l.answered = info.Size(), answered
	go func() {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		response, _, err := r.client.call(ctx, protocol.Query, nil, nil)
		if err == nil {
			m.learn(r, response.Status)
			m.learnDevices(r, response.Status)
		}
		answered <- err == nil
	}()
}

// wait returns when no question is open.
func (l *listener) wait() {
	if l.answered != nil {
		<-l.answered
	}
}

// hasRun reports whether the guest of r has come to run.
func (m *Manager) hasRun(r *run) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return r.ran
}

// notePanic notes that the guest's kernel has panicked, where that is new: a VMM has one panic
// to tell, at a time of the guest's life. The caller holds Manager.mu, or nobody else has r.
func (r *run) notePanic(s *protocol.Status, now time.Time) bool {
	if s.Panicked.IsZero() || !r.panicked.IsZero() {
		return false
	}
	r.panicked = s.Panicked.UTC()
	if r.panicked.Before(r.rec.Started) || r.panicked.After(now) {
		r.panicked = now.UTC()
	}
	return true
}
