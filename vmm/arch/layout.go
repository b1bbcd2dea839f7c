// Package arch is what is special about x86-64: where things lie in the guest's
// address space, what CPUID and the model specific registers show, and the
// state that the first vCPU starts in. It follows the Intel SDM (volumes 2 and
// 3), the AMD APM (volumes 2 and 3) and Documentation/virt/kvm/x86/.
package arch

import (
	"fmt"

	"github.com/ashlar-hv/ashlar/vmm/memory"
)

// The first MiB. What lies below LowReserved is only for the first moments of
// the kernel, which then takes it as ordinary memory.
const (
	GDT         = 0x0500
	BootParams  = 0x7000
	PageTables  = 0x9000 // 6 pages
	Cmdline     = 0x20000
	LowReserved = 0x9fc00
	// ACPITables start with the RSDP; SMBIOSTables with the entry point.
	ACPITables   = 0xe0000
	ACPISize     = 0x10000
	SMBIOSTables = 0xf0000
	SMBIOSSize   = 0x10000
	HighMemory   = 1 << 20
	// GenerationID has 16 bytes, in a page that nothing else is in, and not at a multiple of
	// 2 KiB, where option ROMs are looked for.
	GenerationID = 0xdfff0
)

// Below 4 GiB, above the memory.
const (
	MMIO32Base = memory.LowTop
	MMIO32Size = 512 << 20
	ECAMBase   = MMIO32Base + MMIO32Size
	IOAPICBase = 0xfec00000
	LAPICBase  = 0xfee00000
	// IdentityMap (one page) and TSS (three) are KVM's own, on Intel.
	IdentityMap = 0xfffbc000
	TSS         = 0xfffbd000
)

// Interrupts of the machine's own devices.
const (
	IRQSerial = 4
	IRQACPI   = 9
	IRQEvents = 16 // of the generic event device, level triggered
	// IRQPCI is the first of the PCI lines.
	IRQPCI   = 17
	PCILines = 4
	// GSIPins is how many pins the IOAPIC has; message signalled interrupts
	// have their GSIs from there on.
	GSIPins = 24
)

// PCILine is the interrupt that INTA of a device on bus 0 leads to, or of what is in a slot
// behind a root port that is a function of the device.
func PCILine(device int) uint32 { return IRQPCI + uint32(device)%PCILines }

// I/O ports.
const (
	PortRTC      = 0x70
	PortKeyboard = 0x64
	PortPost     = 0x80
	PortSerial   = 0x3f8
	PortPanic    = 0x505
	PortACPI     = 0x600
	PortTimer    = 0x60c
	PortEvents   = 0x608 // of the generic event device
	PortCPUs     = 0x610
	PortPCI      = 0xcf8 // configuration mechanism #1; the reset register lies within
	PortReset    = 0xcf9
)

// maxPhysBits bounds the address space used here: nested page tables of four
// levels reach no further than 48 bits.
const maxPhysBits = 46

// MMIO64 is the window for 64-bit BARs: a quarter of what addresses of
// physBits bits reach, above the memory, which ends at memoryEnd.
func MMIO64(physBits int, memoryEnd uint64) (base, size uint64, err error) {
	bits := min(physBits, maxPhysBits)
	if bits < 34 {
		return 0, 0, fmt.Errorf("physical addresses of %d bits: too few for a window above 4 GiB", physBits)
	}
	size = 1 << (bits - 2)
	base = max(1<<(bits-1), (memoryEnd+1<<30-1)&^(1<<30-1))
	if base+size > 1<<bits {
		return 0, 0, fmt.Errorf("memory up to %#x leaves no room for devices in physical addresses of %d bits", memoryEnd, physBits)
	}
	return base, size, nil
}
