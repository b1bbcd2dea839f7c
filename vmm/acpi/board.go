package acpi

import "github.com/ashlar-hv/ashlar/vmm/arch"

// panicPort is where a guest's kernel tells that it panics, under the identifier and with the
// resource that QEMU's pvpanic has (docs/specs/pvpanic.rst there), so that its driver takes it.
func panicPort() []byte {
	return device("PEVT",
		name("_HID", text("QEMU0001")),
		name("_CRS", resources(ports(arch.PortPanic, 1))),
	)
}

// generationID is the Virtual Machine Generation ID of Microsoft's specification of that name:
// ADDR has the lower and the upper half of its address. The second compatible identifier is the
// one that keeps to ACPI's form, for systems that look at eight characters.
func generationID() []byte {
	const counter = "VM_Gen_Counter"
	return device("VGEN",
		name("_HID", text("ASHL0001")),
		name("_CID", pack(text(counter), text("VMGENCTR"))),
		name("_DDN", text(counter)),
		name("ADDR", pack(integer(arch.GenerationID), integer(0))),
	)
}
