package blk

import "fmt"

// A State is what a guest can change in a disk besides its contents.
type State struct {
	Size      uint64 `json:"size"` // bytes: must be the same
	Writeback bool   `json:"writeback"`
}

// Save returns the state of a disk that is not active.
func (d *Device) Save() State {
	return State{Size: d.size.Load(), Writeback: d.writeback.Load() == 1}
}

// Restore takes the state of a disk made alike.
func (d *Device) Restore(s State) error {
	if s.Size != d.size.Load() {
		return fmt.Errorf("restore disk of %d bytes on one of %d: %w", s.Size, d.size.Load(), ErrSize)
	}
	d.writeback.Store(0)
	if s.Writeback {
		d.writeback.Store(1)
	}
	return nil
}
