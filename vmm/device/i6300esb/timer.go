package i6300esb

import "time"

// lasts is how long a stage takes. mu is held.
func (w *Watchdog) lasts(stage int) time.Duration {
	shift := 15
	if w.config&configFast != 0 {
		shift = 5
	}
	return max(time.Duration(w.preload[stage])<<shift*pciClock, shortest)
}

// begin begins a stage anew. mu is held.
func (w *Watchdog) begin(stage int) {
	w.stop()
	w.stage = stage
	w.arm(w.lasts(stage))
}

// arm lets the stage end in d, or as long after a pause. Nothing wakes the process before.
// mu is held.
func (w *Watchdog) arm(d time.Duration) {
	if w.left = d; w.paused {
		return
	}
	w.turn++
	turn := w.turn
	w.end = time.Now().Add(d)
	w.timer = time.AfterFunc(d, func() { w.ended(turn) })
}

// stop ends the stage, of which nothing follows. mu is held.
func (w *Watchdog) stop() {
	if w.timer != nil {
		w.timer.Stop()
	}
	w.timer, w.left = nil, 0
	w.turn++
}

// ended is the end of the stage that the timer with that turn was for.
func (w *Watchdog) ended(turn uint64) {
	w.mu.Lock()
	if turn != w.turn {
		w.mu.Unlock()
		return
	}
	w.timer, w.left = nil, 0
	if w.stage == 0 {
		w.status |= statusStage
		w.begin(1)
		w.mu.Unlock()
		return
	}
	// The counter stands until it is reloaded: one that nobody cares for has said so.
	w.flag = true
	w.expiries.Add(1)
	follow, after := w.config&configOutputOff == 0, w.lasts(0)+w.lasts(1)
	w.mu.Unlock()
	if follow {
		w.c.Expired(after)
	}
}

// Pause stops the counter where it is, as the guest that is to reload it does not run.
func (w *Watchdog) Pause() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.paused {
		return
	}
	w.paused = true
	if w.timer == nil {
		return
	}
	left := max(time.Until(w.end), 0)
	w.stop()
	w.left = max(left, 1)
}

// Resume lets the counter go on.
func (w *Watchdog) Resume() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.paused = false
	if w.timer == nil && w.left > 0 {
		w.arm(w.left)
	}
}

// Close stops the counter for good.
func (w *Watchdog) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.paused = true
	w.stop()
	return nil
}
