package guest

import (
	"context"
	"fmt"
	"time"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

const (
	balloonUnit   = 4096 // bytes: a page of the balloon
	maxStatistics = 64
)

// balloonFits says whether a guest with that much memory can be asked for so much of it.
func balloonFits(balloon, memory uint64) bool {
	return balloon%balloonUnit == 0 && memory >= protocol.BalloonLeaves && balloon <= memory-protocol.BalloonLeaves
}

// balloonRule says what fits.
func balloonRule(memory uint64) string {
	return fmt.Sprintf("A guest with %d bytes of memory can be asked for a multiple of %d, at most %d.",
		memory, balloonUnit, memory-protocol.BalloonLeaves)
}

// SetBalloon asks a guest for so many bytes of its memory (hostcall.GuestSetBalloon).
func (m *Manager) SetBalloon(ctx context.Context, id string, bytes int64) error {
	r, err := m.find(id)
	if err != nil {
		return err
	}
	if bytes < 0 || !balloonFits(uint64(bytes), r.rec.MemoryBytes) {
		return &hostcall.Error{Code: hostcall.InvalidArgument, Field: "size", Message: balloonRule(r.rec.MemoryBytes)}
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, _, err := r.client.do(ctx, protocol.Request{Method: protocol.SetBalloon, BalloonBytes: uint64(bytes)}, nil); err != nil {
		return refusal(err)
	}
	return nil
}

// Balloon returns what a guest has given back, and says of its memory
// (hostcall.GuestBalloon).
func (m *Manager) Balloon(ctx context.Context, id string) (protocol.Balloon, error) {
	r, err := m.find(id)
	if err != nil {
		return protocol.Balloon{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	response, _, err := r.client.call(ctx, protocol.BalloonMethod, nil, nil)
	if err != nil {
		return protocol.Balloon{}, refusal(err)
	}
	if err := checkBalloon(response.Balloon, r.rec.Started, time.Now()); err != nil {
		return protocol.Balloon{}, err
	}
	return *response.Balloon, nil
}

// checkBalloon refuses what is too much, not named as statistics are, or told at no
// time of the guest's life: a VMM may be in its guest's hands. What it says of sizes
// is the guest's word at any rate.
func checkBalloon(b *protocol.Balloon, started, now time.Time) error {
	wrong := func(format string, args ...any) error {
		return &hostcall.Error{Code: hostcall.Internal,
			Message: clean("The guest's VMM tells of a balloon that makes no sense: " + fmt.Sprintf(format, args...) + ".")}
	}
	switch {
	case b == nil:
		return wrong("none")
	case len(b.Statistics) > maxStatistics:
		return wrong("%d statistics", len(b.Statistics))
	}
	for name := range b.Statistics {
		if !counterName(name) {
			return wrong("%.60q", name)
		}
	}
	// The clock may have been set since: a day makes no difference here.
	if t := b.StatisticsTime; !t.IsZero() && (t.Before(started.AddDate(0, 0, -1)) || t.After(now.AddDate(0, 0, 1))) {
		return wrong("statistics of %v", t.Year())
	}
	return nil
}
