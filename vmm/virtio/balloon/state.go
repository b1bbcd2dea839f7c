package balloon

// A State is what a guest can change in a balloon, and what it was asked for.
type State struct {
	Target uint64 `json:"target"` // bytes
	Actual uint32 `json:"actual"` // pages
}

// Save returns the state.
func (d *Device) Save() State {
	d.mu.Lock()
	defer d.mu.Unlock()
	return State{Target: uint64(d.target) * PageSize, Actual: d.actual}
}

// Restore takes the state of a device made alike.
func (d *Device) Restore(s State) error {
	if err := d.SetTarget(s.Target); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.actual, d.untold = s.Actual, false
	return nil
}
