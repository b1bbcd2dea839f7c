package serve

import (
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	// Of what strangers cause, so many lines go to the log at once, then one each
	// throttleEvery.
	throttleBurst = 5
	throttleEvery = 10 * time.Second
	throttleLine  = 200
)

// A throttle writes the HTTP server's complaints (failed handshakes, most of all) to
// the log, not more of them than anybody reads.
type throttle struct {
	log *slog.Logger
	now func() time.Time

	mu      sync.Mutex
	tokens  int
	filled  time.Time
	dropped int
}

func newThrottle(log *slog.Logger) *throttle {
	return &throttle{log: log, now: time.Now, tokens: throttleBurst, filled: time.Now()}
}

// Write takes one line.
func (t *throttle) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if n := int(now.Sub(t.filled) / throttleEvery); n > 0 {
		t.tokens = min(t.tokens+n, throttleBurst)
		t.filled = now
	}
	if t.tokens == 0 {
		t.dropped++
		return len(p), nil
	}
	t.tokens--
	line := strings.TrimSpace(string(p))
	if len(line) > throttleLine {
		line = line[:throttleLine] + "..."
	}
	t.log.Warn("connection refused", "because", line, "more_not_shown", t.dropped)
	t.dropped = 0
	return len(p), nil
}
