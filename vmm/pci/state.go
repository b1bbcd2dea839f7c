package pci

import (
	"encoding/binary"
	"fmt"
)

// A ConfigState is what a guest can change in a configuration space.
type ConfigState struct {
	Space []byte `json:"space"` // ConfigSize bytes
}

// Save returns the state of the configuration space.
func (c *Config) Save() ConfigState {
	b := make([]byte, ConfigSize)
	c.Bytes(0, b)
	return ConfigState{Space: b}
}

// Restore writes back the bits that a guest can change. s comes from a
// function made alike: the rest must be equal.
func (c *Config) Restore(s ConfigState) error {
	if len(s.Space) != ConfigSize {
		return fmt.Errorf("restore configuration space of %d bytes: %w", len(s.Space), ErrConfigSpace)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, v := range s.Space[:headerSpace] {
		if (v^c.data[i])&^c.mask[i] != 0 {
			return fmt.Errorf("restore configuration space: byte %#x is %#x, not %#x: %w", i, v, c.data[i], ErrConfigSpace)
		}
	}
	copy(c.data[:], s.Space)
	return nil
}

// Restored maps the BARs of all functions where their restored
// configuration spaces say.
func (b *Bus) Restored() {
	for _, s := range b.slots {
		if s == nil {
			continue
		}
		s.mu.Lock()
		b.remap(s)
		s.mu.Unlock()
	}
}

// An MSIXState is the table of an MSIX; Pending lists vectors that were
// signalled while masked.
type MSIXState struct {
	Table   []byte `json:"table"`
	Pending []int  `json:"pending,omitempty"`
}

// Save returns the state of m.
func (m *MSIX) Save() MSIXState {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := MSIXState{Table: append([]byte(nil), m.table...)}
	for i, v := range m.vectors {
		if !m.open[i] && v != nil && v.Pending() {
			s.Pending = append(s.Pending, i)
		}
	}
	return s
}

// Restore takes the state back. The function's Config has been restored before.
func (m *MSIX) Restore(s MSIXState) error {
	m.mu.Lock()
	if len(s.Table) != len(m.table) {
		m.mu.Unlock()
		return fmt.Errorf("restore MSI-X table of %d bytes, want %d: %w", len(s.Table), len(m.table), ErrConfigSpace)
	}
	copy(m.table, s.Table)
	m.mu.Unlock()
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	for _, i := range s.Pending {
		f := m.EventFD(i)
		if f == nil {
			return fmt.Errorf("restore MSI-X vector %d of %d: %w", i, m.Len(), ErrConfigSpace)
		}
		if _, err := f.Write(one[:]); err != nil {
			return fmt.Errorf("restore MSI-X vector %d: %w", i, err)
		}
	}
	m.controlWritten()
	return nil
}
