// Package pvpanic is the port at which a guest's kernel says that it panics: that of QEMU's
// pvpanic device (docs/specs/pvpanic.rst there, include/uapi/misc/pvpanic.h in Linux). It can
// be read for the events that it takes, and written with those that have come.
package pvpanic

// Ports is how many there are.
const Ports = 1

// Events, as bits. The third one that there is, a shutdown, is left to ACPI.
const (
	Panicked    = 1 << 0 // and nobody in the guest takes care of it
	CrashLoaded = 1 << 1 // and a crash kernel takes over
)

// A Port is the device. It implements device.Ports.
type Port struct {
	// Event is told each event: Panicked or CrashLoaded. It is called on a vCPU's thread.
	Event func(event byte)
}

// In implements device.Ports: the events that are taken.
func (Port) In(_ uint16, b []byte) { b[0] = Panicked | CrashLoaded }

// Out implements device.Ports. Bits that are not known are nothing.
func (p Port) Out(_ uint16, b []byte) {
	for _, event := range []byte{CrashLoaded, Panicked} {
		if b[0]&event != 0 {
			p.Event(event)
		}
	}
}
