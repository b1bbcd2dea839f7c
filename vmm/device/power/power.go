// Package power is how a PC is switched off and on again: the fixed registers
// of ACPI (specification 6.5, section 4.8.3) with the power button, the reset
// register at port 0xCF9 and the reset line of the keyboard controller.
package power

import (
	"encoding/binary"
	"sync"

	"github.com/ashlar-hv/ashlar/vmm/acpi"
)

// PM1 is the register block at arch.PortACPI. It implements device.Ports.
type PM1 struct {
	sci      func(high bool)
	sleep    func(sleepType int)
	mu       sync.Mutex
	status   uint16 // guarded by mu, as all below
	enable   uint16
	control  uint16
	asserted bool
}

const sciEnable = 1 << 0 // in the control register: ACPI is on, always

// NewPM1 makes the registers. sci sets the level of the ACPI interrupt; sleep
// is told the type when the guest goes to sleep. Neither may call the PM1.
func NewPM1(sci func(high bool), sleep func(sleepType int)) *PM1 {
	return &PM1{sci: sci, sleep: sleep, control: sciEnable}
}

// PressButton presses the power button, shortly.
func (p *PM1) PressButton() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status |= acpi.PowerButtonBit
	p.update()
}

// ButtonEnabled says whether the guest listens to the power button.
func (p *PM1) ButtonEnabled() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.enable&acpi.PowerButtonBit != 0
}

// update follows the interrupt; mu is held.
func (p *PM1) update() {
	if high := p.status&p.enable != 0; high != p.asserted {
		p.asserted = high
		p.sci(high)
	}
}

// In implements device.Ports.
func (p *PM1) In(port uint16, b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var r [acpi.PM1Size]byte
	binary.LittleEndian.PutUint16(r[acpi.PM1Status:], p.status)
	binary.LittleEndian.PutUint16(r[acpi.PM1Enable:], p.enable)
	binary.LittleEndian.PutUint16(r[acpi.PM1Control:], p.control)
	copy(b, r[port:])
}

// Out implements device.Ports.
func (p *PM1) Out(port uint16, b []byte) {
	sleepType := -1
	p.mu.Lock()
	for i, v := range b {
		off := port + uint16(i)
		shift := off % 2 * 8
		bits, mask := uint16(v)<<shift, uint16(0xff)<<shift
		switch off &^ 1 {
		case acpi.PM1Status: // writing a one clears
			p.status &^= bits
		case acpi.PM1Enable:
			p.enable = p.enable&^mask | bits
		case acpi.PM1Control:
			p.control = p.control&^mask | bits&^acpi.SleepEnable | sciEnable
			if bits&acpi.SleepEnable != 0 {
				sleepType = int(p.control >> acpi.SleepTypeShift & acpi.SleepTypeMask)
			}
		}
	}
	p.update()
	p.mu.Unlock()
	if sleepType >= 0 {
		p.sleep(sleepType)
	}
}

// ResetPort is the port 0xCF9. It implements device.Ports.
type ResetPort struct {
	Reset func()
	mu    sync.Mutex
	value byte // guarded by mu
}

// Bits of the reset port: hardReset says which kind, and resetCPU makes it
// happen as it goes from 0 to 1.
const (
	hardReset = 1 << 1
	resetCPU  = 1 << 2
)

// In implements device.Ports.
func (r *ResetPort) In(_ uint16, b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b[0] = r.value
}

// Out implements device.Ports.
func (r *ResetPort) Out(_ uint16, b []byte) {
	r.mu.Lock()
	rise := b[0]&resetCPU != 0 && r.value&resetCPU == 0
	r.value = b[0] & (hardReset | resetCPU)
	r.mu.Unlock()
	if rise {
		r.Reset()
	}
}

// Keyboard is the command port 0x64 of a keyboard controller of which only the
// reset line is left. It implements device.Ports.
type Keyboard struct {
	Reset func()
}

// pulseReset is the command that pulses the reset line alone; its low bits
// name lines that stay high.
const pulseReset = 0xfe

// In implements device.Ports: no such controller.
func (Keyboard) In(_ uint16, b []byte) { b[0] = 0xff }

// Out implements device.Ports.
func (k Keyboard) Out(_ uint16, b []byte) {
	if b[0] == pulseReset {
		k.Reset()
	}
}
