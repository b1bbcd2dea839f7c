package pci

// Offsets in the configuration space of a type 0 function (PCI 3.0 section 6.1).
const (
	regVendor      = 0x00
	regDevice      = 0x02
	regCommand     = 0x04
	regStatus      = 0x06
	regRevision    = 0x08
	regClass       = 0x09 // 3 bytes
	regCacheLine   = 0x0c
	regBAR         = 0x10 // 6 registers of 4 bytes
	regROM         = 0x30
	regSubVendor   = 0x2c
	regSubDevice   = 0x2e
	regCapPointer  = 0x34
	regIntLine     = 0x3c
	firstCap       = 0x40
	regHeaderType  = 0x0e
	headerSpace    = 0x100 // where capabilities end and extended ones start
	bars           = ROM + 1
	cmdMemory      = 1 << 1
	cmdBusMaster   = 1 << 2
	cmdParity      = 1 << 6
	cmdSERR        = 1 << 8
	cmdINTxDisable = 1 << 10
	statusCapList  = 1 << 4
	barMem64       = 2 << 1
	barPrefetch    = 1 << 3
	romEnable      = 1 << 0
)

// Capability IDs (PCI Code and ID Assignment 1.11 section 2).
const (
	CapPower   = 0x01
	CapMSI     = 0x05
	CapVendor  = 0x09
	CapExpress = 0x10
	CapMSIX    = 0x11
)

const (
	// ROM is the number of the expansion ROM's BAR, behind those of memory.
	ROM = 6
	// ConfigSize is a function's configuration space in bytes.
	ConfigSize = 4096
	// Devices is how many device numbers a bus has.
	Devices = 32
	// ECAMSize is what one bus takes of the guest's address space for ECAM:
	// 32 devices of 8 functions.
	ECAMSize = Devices * 8 * ConfigSize
)

// A Class is base class, sub-class and programming interface of a function,
// 0xBBSSPP.
type Class uint32

// Classes (PCI Code and ID Assignment 1.11 section 1).
const (
	ClassHostBridge    Class = 0x060000
	ClassBridge        Class = 0x060400
	ClassEthernet      Class = 0x020000
	ClassStorageOther  Class = 0x018000
	ClassCommunication Class = 0x078000
	ClassSystemOther   Class = 0x088000
	ClassOther         Class = 0xff0000
)
