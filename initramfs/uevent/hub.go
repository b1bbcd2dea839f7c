package uevent

import (
	"context"
	"slices"
	"sync"
	"time"
)

// lookAgain is how often Wait looks without an event: some attributes, a
// carrier for one, change without any.
const lookAgain = 100 * time.Millisecond

// A Hub hands events to everybody in the process who listens.
type Hub struct {
	mu        sync.Mutex
	listeners []listener
}

type listener struct {
	subsystem string
	wake      chan struct{}
}

// Run hands out the events of c until it fails.
func (h *Hub) Run(c *Conn) error {
	for {
		e, err := c.Read()
		if err != nil {
			return err
		}
		h.publish(e)
	}
}

func (h *Hub) publish(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range h.listeners {
		if l.subsystem == e.Subsystem || e.Path == "" {
			select {
			case l.wake <- struct{}{}:
			default: // it will look anyway
			}
		}
	}
}

// Listen returns a channel that receives after devices of the subsystem have
// changed, and a function that ends that.
func (h *Hub) Listen(subsystem string) (wake <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.listeners = append(h.listeners, listener{subsystem, c})
	return c, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.listeners = slices.DeleteFunc(h.listeners, func(l listener) bool { return l.wake == c })
	}
}

// Wait looks until found reports true or ctx ends: at once, after each event
// of the subsystem, and ten times a second besides.
func (h *Hub) Wait(ctx context.Context, subsystem string, found func() bool) error {
	wake, stop := h.Listen(subsystem)
	defer stop()
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for !found() {
		select {
		case <-wake:
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
