package power

import (
	"encoding/binary"
	"time"

	"github.com/ashlar-hv/ashlar/vmm/acpi"
)

// A Timer is the power management timer (ACPI 6.5, section 4.8.3.3): it counts at
// 3.579545 MHz, in 32 bits, and raises no interrupt. Kernels measure other timers by it
// when they start; where those keep time it costs nothing after that. It implements
// device.Ports.
type Timer struct {
	now   func() time.Time
	start time.Time
}

// NewTimer makes a timer that follows now, from 0.
func NewTimer(now func() time.Time) *Timer { return &Timer{now: now, start: now()} }

// In implements device.Ports.
func (t *Timer) In(port uint16, b []byte) {
	const second = uint64(time.Second)
	passed := uint64(t.now().Sub(t.start))
	ticks := passed/second*acpi.TimerHz + passed%second*acpi.TimerHz/second
	var r [acpi.TimerSize]byte
	binary.LittleEndian.PutUint32(r[:], uint32(ticks))
	copy(b, r[port:])
}

// Out implements device.Ports: the timer cannot be set.
func (t *Timer) Out(uint16, []byte) {}
