package mem

// A State is what a guest can change in a memory device, and what it was asked for.
type State struct {
	Requested uint64   `json:"requested"`         // bytes
	Plugged   []uint64 `json:"plugged,omitempty"` // addresses of the blocks that are plugged in
}

// Save returns the state.
func (d *Device) Save() State {
	s := State{Requested: d.Requested()}
	p := d.mem.Pluggable()
	for gpa := p.GPA; gpa < p.GPA+p.Size; gpa += p.Block {
		if d.mem.Contains(gpa, p.Block) {
			s.Plugged = append(s.Plugged, gpa)
		}
	}
	return s
}

// Restore takes the state of a device made alike, for memory of which nothing is plugged
// in. What was in it is put back after that.
func (d *Device) Restore(s State) error {
	if err := d.SetRequested(s.Requested); err != nil {
		return err
	}
	d.mu.Lock()
	d.untold = false
	d.mu.Unlock()
	for _, gpa := range s.Plugged {
		if err := d.mem.Plug(gpa, d.mem.Pluggable().Block); err != nil {
			return err
		}
	}
	return nil
}
