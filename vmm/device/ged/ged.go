// Package ged is the generic event device (ACPI 6.5 section 5.6.9): one interrupt for
// all that a guest is told of while it runs, and a register that says what. The AML that
// reads it is in package acpi, as are the events.
//
// The interrupt is a level: an event that comes while the guest's kernel is not yet, or
// no longer, listening waits for one that is.
package ged

import (
	"encoding/binary"
	"sync"

	"github.com/ashlar-hv/ashlar/vmm/acpi"
)

// A Device is the register at arch.PortEvents. It implements device.Ports.
type Device struct {
	line    func(high bool)
	mu      sync.Mutex
	pending acpi.Event // guarded by mu; the line is high while there is any
}

// New makes the device. line sets the level of its interrupt, and may not call it.
func New(line func(high bool)) *Device { return &Device{line: line} }

// Raise tells the guest that e has come.
func (d *Device) Raise(e acpi.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.set(d.pending | e)
}

// set follows the interrupt; mu is held.
func (d *Device) set(pending acpi.Event) {
	was := d.pending != 0
	d.pending = pending
	if high := pending != 0; high != was {
		d.line(high)
	}
}

// In implements device.Ports: what is read is gone.
func (d *Device) In(port uint16, b []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var r [acpi.EventsSize]byte
	binary.LittleEndian.PutUint32(r[:], uint32(d.pending))
	n := copy(b, r[port:])
	clear(r[port:][:n])
	d.set(acpi.Event(binary.LittleEndian.Uint32(r[:])))
}

// Out implements device.Ports: nothing is written.
func (*Device) Out(uint16, []byte) {}
