package machine

import (
	"time"

	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// statisticsPatience is how long a guest is given to say how its memory is used: one
// that is slower has said so at the next call.
const statisticsPatience = 250 * time.Millisecond

// SetBalloon asks the guest to put bytes of memory into its balloon, or to take out
// what is more (protocol.SetBalloon).
func (g *Guest) SetBalloon(bytes uint64) *protocol.Error {
	if g.balloon == nil && bytes == 0 {
		return nil
	}
	if g.balloon == nil {
		return &protocol.Error{Code: protocol.FailedPrecondition, Message: "the machine is bare: it has no balloon"}
	}
	if err := g.balloon.SetTarget(bytes); err != nil {
		return invalid("balloonBytes", "balloon of %v", err)
	}
	return nil
}

// Balloon is how the balloon is; the guest is asked for its statistics. Sizes that a
// guest tells are its own affair, but no more than its memory is in the balloon.
func (g *Guest) Balloon() protocol.Balloon {
	if g.balloon == nil {
		return protocol.Balloon{}
	}
	s := g.balloon.Statistics(statisticsPatience)
	return protocol.Balloon{
		TargetBytes: g.balloon.Target(), ActualBytes: min(g.balloon.Actual(), g.c.MemoryBytes+g.c.Pluggable.Max()),
		Statistics: s.Values, StatisticsTime: s.Time,
	}
}
