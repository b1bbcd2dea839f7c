package net

import "fmt"

// A State is what a guest can change in a device besides its queues.
type State struct {
	Pairs int `json:"pairs"` // that it uses
}

// Save returns the state of a device that is not active.
func (d *Device) Save() State { return State{Pairs: d.attached} }

// Restore takes the state of a device made alike.
func (d *Device) Restore(s State) error {
	if s.Pairs < 1 || s.Pairs > len(d.paths) {
		return fmt.Errorf("restore network device with %d pairs of queues in use on one of %d: %w", s.Pairs, len(d.paths), ErrConfig)
	}
	return d.setPairs(s.Pairs)
}
