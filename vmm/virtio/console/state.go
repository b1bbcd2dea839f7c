package console

import "bytes"

// A State is what a console holds for the guest.
type State struct {
	// Input is what was typed and not yet taken.
	Input []byte `json:"input,omitempty"`
}

// Save returns the state of a console that is not active.
func (d *Device) Save() State { return State{Input: bytes.Clone(d.rest)} }

// Restore takes the state of a console made alike.
func (d *Device) Restore(s State) error {
	d.rest = bytes.Clone(s.Input)
	return nil
}
