package acpi

import (
	"encoding/binary"
	"fmt"

	"github.com/ashlar-hv/ashlar/vmm/arch"
)

// Registers at arch.PortCPUs, by which processors come and go. All but CPUSelect are
// those of the processor selected; one that does not exist reads 0 and takes nothing.
const (
	CPUSelect    = 0  // 4 bytes: the processor's unique ID
	CPUControl   = 4  // 1 byte: the bits below
	CPUOSTEvent  = 8  // 4 bytes, written by _OST, before
	CPUOSTStatus = 12 // 4 bytes, written by _OST
	CPUsSize     = 16
)

// Bits of CPUControl.
const (
	CPUEnabled = 1 << 0 // read only: it is there
	CPUInsert  = 1 << 1 // it has come; a one clears
	CPURemove  = 1 << 2 // it is to go; a one clears
	CPUEject   = 1 << 3 // a one takes it away
)

// Values of Notify, which are also event codes of _OST (section 5.6.6).
const (
	NotifyDeviceCheck  = 1
	NotifyEjectRequest = 3
)

// Status codes of _OST for an eject request (section 6.3.5).
const (
	OSTSuccess         = 0
	OSTEjectInProgress = 0x84
)

// processors are the devices that processors are (section 8.4), in a container.
// The MADT says the APIC ID that belongs to a unique ID.
func processors(m Machine) []byte {
	parts := [][]byte{
		name("_HID", text("ACPI0010")),
		name("_UID", integer(0)),
	}
	if m.Pluggable {
		parts = append(parts, plugging(len(m.CPUs)))
	}
	for uid, id := range m.CPUs {
		terms := [][]byte{
			name("_HID", text("ACPI0007")),
			name("_UID", integer(uint64(uid))),
		}
		if m.Pluggable && uid > 0 {
			terms = append(terms, pluggable(uid, id))
		}
		if domain, ok := m.domain(id); ok {
			terms = append(terms, name("_PXM", integer(uint64(domain)))) // section 6.2.14
		}
		parts = append(parts, device(cpuName(uid), terms...))
	}
	return device("CPUS", parts...)
}

func cpuName(uid int) string { return fmt.Sprintf("C%03X", uid) }

// plugging has the registers, and what all processors share: CSTA returns the status of
// one, CEJ0 takes it away, COST reports, CNTF notifies it, and CSCN looks at all of them.
// The registers of one processor are used under a lock, as they are those of the one
// selected.
func plugging(n int) []byte {
	selected := func(uid []byte, terms ...[]byte) []byte {
		return cat(acquire("CLCK"), store(uid, path("CSEL")), cat(terms...), release("CLCK"))
	}
	control := path("CCTL")
	has := func(bit uint64) []byte { return and(local(1), integer(bit), nothing) }
	tell := make([][]byte, 0, n)
	for uid := 1; uid < n; uid++ {
		tell = append(tell, when(equal(arg(0), integer(uint64(uid))), notify(cpuName(uid), arg(1))))
	}
	return cat(
		mutex("CLCK"),
		region("CPRT", arch.PortCPUs, CPUsSize),
		field("CPRT", accessDWord, unit{"CSEL", CPUSelect, 4}, unit{"COEV", CPUOSTEvent, 4}, unit{"COSC", CPUOSTStatus, 4}),
		field("CPRT", accessByte, unit{"CCTL", CPUControl, 1}),
		method("CSTA", 1,
			selected(arg(0), store(control, local(1))),
			when(has(CPUEnabled), result(integer(0xf))),
			result(integer(0))),
		method("CEJ0", 1, selected(arg(0), store(integer(CPUEject), control))),
		method("COST", 3, selected(arg(0), store(arg(1), path("COEV")), store(arg(2), path("COSC")))),
		method("CNTF", 2, tell...),
		method("CSCN", 0,
			store(integer(1), local(0)),
			while(less(local(0), integer(uint64(n))),
				selected(local(0),
					store(control, local(1)),
					and(local(1), integer(CPUInsert|CPURemove), control)),
				when(has(CPUInsert), call(path("CNTF"), local(0), integer(NotifyDeviceCheck))),
				when(has(CPURemove), call(path("CNTF"), local(0), integer(NotifyEjectRequest))),
				increment(local(0)))),
	)
}

// pluggable are the methods of one processor (sections 6.2.10, 6.3.3, 6.3.5, 6.3.7).
func pluggable(uid int, id uint8) []byte {
	n := integer(uint64(uid))
	status := call(path("CSTA"), n)
	return cat(
		method("_STA", 0, result(status)),
		method("_MAT", 0,
			when(status, result(buffer(localAPIC(uid, id, true)))),
			result(buffer(localAPIC(uid, id, false)))),
		method("_EJ0", 1, call(path("CEJ0"), n)),
		method("_OST", 3, call(path("COST"), n, arg(0), arg(1))),
	)
}

// localAPIC is the entry of a processor in the MADT (section 5.2.12.2).
func localAPIC(uid int, id uint8, present bool) []byte {
	const (
		enabled       = 1 << 0
		onlineCapable = 1 << 1 // it is not there, and may come
	)
	flags := uint32(onlineCapable)
	if present {
		flags = enabled
	}
	return binary.LittleEndian.AppendUint32([]byte{0, 8, byte(uid), id}, flags)
}
