package machine

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// SetBalloon notes how much memory a machine is asked to give back, for this run and
// those to come, and asks a guest that runs. Where core cannot be reached the same
// request again makes up for it.
func (g *Manager) SetBalloon(ctx context.Context, o Order, bytes int64) (*ashlarv1.VirtualMachine, error) {
	m, err := g.Find(o.Name)
	if err != nil {
		return nil, err
	}
	m.ballooning.Lock()
	defer m.ballooning.Unlock()
	if err := m.noteBalloon(o.Etag, bytes); err != nil {
		return nil, err
	}
	if err := m.tellBalloon(ctx, bytes); err != nil {
		return nil, err
	}
	return m.Proto(), nil
}

// noteBalloon stores a balloon's size.
func (m *Machine) noteBalloon(etag string, bytes int64) error {
	return m.note(etag, func(rec *store.VM) (bool, error) {
		if wrong := balloonWrong(bytes, rec.MemoryBytes); wrong != "" {
			return false, refuse.Field("balloon_bytes", "%s", wrong)
		}
		if bytes > 0 && len(rec.Devices) > 0 {
			return false, refuse.Precondition(refuse.WrongState, m.Name(),
				m.Name()+" has devices of the host's, which reach all of its memory by themselves: none can be given back. Detach them first, or set its balloon to 0")
		}
		if bytes > 0 && rec.Board.Get().Bare {
			return false, refuse.Precondition(refuse.WrongState, m.Name(), m.Name()+" is bare: it has no balloon. Make it without bare to have one")
		}
		changed := bytes != rec.BalloonBytes
		rec.BalloonBytes = bytes
		return changed, nil
	})
}

// tellBalloon asks the guest, if it runs.
func (m *Machine) tellBalloon(ctx context.Context, bytes int64) error {
	err := m.tellGuest(ctx, hostcall.Call{Method: hostcall.GuestSetBalloon, ID: m.uid, Size: bytes})
	return refuse.Core(err, m.Name(), func(string) string { return "balloon_bytes" })
}

// balloonAnew asks a guest that has come to run for what was set while it was being
// started with told.
func (m *Machine) balloonAnew(told int64) {
	m.ballooning.Lock()
	defer m.ballooning.Unlock()
	m.mu.Lock()
	bytes := m.rec.BalloonBytes
	m.mu.Unlock()
	if bytes == told {
		return
	}
	if err := m.tellBalloon(m.g.ctx, bytes); err != nil {
		m.g.log.Warn("a guest was not asked for its memory: set its balloon again", "vm", m.id, "error", err)
	}
}

// Balloon returns what a guest has given back, and says of its memory.
func (g *Manager) Balloon(ctx context.Context, name string) (*ashlarv1.VirtualMachineBalloon, error) {
	m, err := g.Find(name)
	if err != nil {
		return nil, err
	}
	msg, err := m.askFor(ctx, hostcall.GuestBalloon, func(msg hostcall.Message) bool { return msg.Balloon != nil })
	if err != nil {
		return nil, err
	}
	b := msg.Balloon
	p := &ashlarv1.VirtualMachineBalloon{
		Name: m.Name(), TargetBytes: signed(b.TargetBytes), ActualBytes: signed(b.ActualBytes), Statistics: map[string]int64{},
	}
	for name, n := range b.Statistics {
		p.Statistics[name] = signed(n)
	}
	if !b.StatisticsTime.IsZero() {
		p.StatisticsTime = timestamppb.New(b.StatisticsTime)
	}
	return p, nil
}
