package acpi

import "github.com/ashlar-hv/ashlar/vmm/arch"

// dsdt is the table of devices that no bus announces (section 5.2.11.1).
func dsdt(m Machine) []byte {
	return table("DSDT", 2, cat(
		scope(`\_SB`, hostBridge(m), motherboard(m), serialPort(), clock(), panicPort(), generationID(), processors(m), eventDevice(m)),
		name(`\_S5`, pack(integer(SoftOff), integer(SoftOff), integer(0), integer(0))),
	))
}

func hostBridge(m Machine) []byte {
	windows := [][]byte{busNumbers(0, m.lastBus()), memoryWindow32(uint32(m.MMIO32.Base), uint32(m.MMIO32.Size))}
	if m.MMIO64.Size > 0 {
		windows = append(windows, memoryWindow64(m.MMIO64.Base, m.MMIO64.Size))
	}
	var routes []byte
	if m.PCILines {
		routes = pciLines()
	}
	return device("PCI0",
		name("_HID", eisaID("PNP0A08")),
		name("_CID", eisaID("PNP0A03")),
		name("_SEG", integer(0)),
		name("_BBN", integer(0)),
		name("_UID", integer(0)),
		name("_CRS", resources(windows...)),
		osc(m.Hotplug),
		routes,
	)
}

// pciLines is _PRT (section 6.2.13): where INTA of each device on bus 0 leads to. Only devices of the
// host's have interrupts by pins, and those have one function.
func pciLines() []byte {
	var out [][]byte
	for dev := range uint64(pciDevices) {
		const allFunctions, pinA, global = 0xffff, 0, 0
		out = append(out, pack(integer(dev<<16|allFunctions), integer(pinA), integer(global), integer(uint64(arch.PCILine(int(dev))))))
	}
	return name("_PRT", pack(out...))
}

// pciDevices is how many devices a PCI bus has.
const pciDevices = 32

// hostBridgeUUID is 33db4d5b-1ff7-401c-9657-7441c03dd766 (PCI Firmware
// Specification 3.3 section 4.5.1), mixed-endian as ToUUID makes it.
var hostBridgeUUID = []byte{
	0x5b, 0x4d, 0xdb, 0x33, 0xf7, 0x1f, 0x1c, 0x40,
	0x96, 0x57, 0x74, 0x41, 0xc0, 0x3d, 0xd7, 0x66,
}

// osc is _OSC: the system may control power events, error reporting and the
// PCI Express capability, and, where there are slots, PCI Express's own hot-plug.
func osc(hotplug bool) []byte {
	const (
		always      = 1<<2 | 1<<3 | 1<<4
		nativeSlots = 1 << 0
		unknownUUID = 1 << 2
		masked      = 1 << 4
	)
	grant := uint64(always)
	if hotplug {
		grant |= nativeSlots
	}
	cdw1, cdw3 := path("CDW1"), path("CDW3")
	return method("_OSC", 4,
		createDWord(arg(3), 0, "CDW1"),
		when(equal(arg(0), buffer(hostBridgeUUID)),
			createDWord(arg(3), 8, "CDW3"),
			and(cdw3, integer(grant), local(0)),
			when(not(equal(local(0), cdw3)), or(cdw1, integer(masked), cdw1)),
			store(local(0), cdw3),
		),
		otherwise(or(cdw1, integer(unknownUUID), cdw1)),
		result(arg(3)),
	)
}

// motherboard keeps ECAM and the ACPI ports from being given to others.
func motherboard(m Machine) []byte {
	return device("MBRD",
		name("_HID", eisaID("PNP0C02")),
		name("_UID", integer(0)),
		name("_CRS", resources(
			fixedMemory(uint32(m.ECAM.Base), uint32(m.ECAM.Size)),
			ports(arch.PortACPI, PM1Size),
			ports(arch.PortTimer, TimerSize),
			ports(arch.PortPCI, 8),
			ports(arch.PortEvents, EventsSize),
			ports(arch.PortCPUs, CPUsSize),
		)),
	)
}

func serialPort() []byte {
	return device("COM1",
		name("_HID", eisaID("PNP0501")),
		name("_UID", integer(1)),
		name("_DDN", text("COM1")),
		name("_CRS", resources(ports(arch.PortSerial, 8), irq(arch.IRQSerial))),
	)
}

func clock() []byte {
	return device("RTC",
		name("_HID", eisaID("PNP0B00")),
		name("_CRS", resources(ports(arch.PortRTC, 2))),
	)
}
