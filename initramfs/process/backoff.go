package process

import "time"

// A Backoff says how long to wait before a program that ended is started
// again: First, then twice as long each time up to Limit; a program that was
// up for Reset begins anew.
type Backoff struct {
	First, Limit, Reset time.Duration
	next                time.Duration
}

// Next returns the wait after an end, up being how long the program was up.
func (b *Backoff) Next(up time.Duration) time.Duration {
	if b.next == 0 || up >= b.Reset {
		b.next = b.First
	}
	delay := b.next
	b.next = min(2*b.next, b.Limit)
	return delay
}
