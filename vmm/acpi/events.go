package acpi

import "github.com/ashlar-hv/ashlar/vmm/arch"

// The register of the generic event device at arch.PortEvents: 4 bytes of Events that
// have come since it was read last. Reading it clears it, and lowers the interrupt.
const EventsSize = 4

// An Event is a bit of that register.
type Event uint32

// Events.
const (
	// CPUEvent: a processor has come, or is to go. The register block at arch.PortCPUs says which.
	CPUEvent Event = 1 << iota
)

// events are what the guest does at each Event that this machine has.
func events(m Machine) []struct {
	Event
	term []byte
} {
	type handler = struct {
		Event
		term []byte
	}
	var out []handler
	if m.Pluggable {
		out = append(out, handler{CPUEvent, call(root("_SB", "CPUS", "CSCN"))})
	}
	return out
}

// eventDevice is the generic event device (section 5.6.9), where there is something
// that it could tell.
func eventDevice(m Machine) []byte {
	all := events(m)
	if len(all) == 0 {
		return nil
	}
	body := [][]byte{store(path("EREG"), local(0))}
	for _, e := range all {
		body = append(body, when(and(local(0), integer(uint64(e.Event)), nothing), e.term))
	}
	return device("GED",
		name("_HID", text("ACPI0013")),
		name("_UID", integer(0)),
		name("_CRS", resources(interrupt(arch.IRQEvents))),
		region("EPRT", arch.PortEvents, EventsSize),
		field("EPRT", accessDWord, unit{"EREG", 0, EventsSize}),
		method("_EVT", 1, body...),
	)
}

// nothing is a target that drops the result (NullName).
var nothing = []byte{0}
