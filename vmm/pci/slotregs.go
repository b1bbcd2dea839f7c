package pci

// Registers of a type 1 header (section 7.5.1.3).
const (
	regPrimary       = 0x18
	regSecondary     = 0x19
	regSubordinate   = 0x1a
	regMemBase       = 0x20 // as regMemLimit: bits 15 to 4 are address bits 31 to 20
	regMemLimit      = 0x22
	regPrefBase      = 0x24 // low bits 1: 64 bits, the upper half in its own register
	regPrefLimit     = 0x26
	regPrefBaseHigh  = 0x28
	regPrefLimitHigh = 0x2c
	regBridgeControl = 0x3e

	headerBridge  = 1
	multiFunction = 1 << 7
	window64      = 1
	windowMask    = 0xfff0
	windowUnit    = 1 << 20

	bridgeParity = 1 << 0
	bridgeSERR   = 1 << 1
	bridgeReset  = 1 << 6 // Secondary Bus Reset
)

// Registers of a PCI Express capability, from its start (section 7.5.3).
const (
	expressFlags         = 0x02
	expressDeviceCap     = 0x04
	expressDeviceControl = 0x08
	expressLinkCap       = 0x0c
	expressLinkControl   = 0x10
	expressLinkStatus    = 0x12
	expressSlotCap       = 0x14
	expressSlotControl   = 0x18
	expressSlotStatus    = 0x1a
	expressRootControl   = 0x1c
	expressLinkCap2      = 0x2c
	expressLinkControl2  = 0x30
	expressEnd           = 0x3c

	expressRootPort = 2 | 4<<4 | 1<<8 // version 2, root port, with a slot

	linkSpeed   = 4        // 16 GT/s
	linkWidth   = 1 << 4   // one lane
	linkReports = 1 << 20  // Data Link Layer Link Active Reporting
	linkSpeeds  = 0xf << 1 // 2.5 to 16 GT/s
	linkDisable = 1 << 4   // in Link Control
	linkControl = 0x00d3   // ASPM, disable, common clock, extended synch
	linkActive  = 1 << 13  // in Link Status
	portNumber  = 24       // shift in Link Capabilities
	slotNumber  = 19       // shift in Slot Capabilities
	slotCaps    = 1<<0 |   // attention button
		1<<1 | // power controller
		1<<4 | // power indicator
		1<<5 | // hot-plug surprise
		1<<6 | // hot-plug capable
		1<<18 // no command completed events

	// Slot Control: the enables of events stand at their bits in Slot Status, but for
	// the last.
	slotHotplugInterrupt = 1 << 5
	slotIndicator        = 3 << 8 // of power
	slotIndicatorBlinks  = 2 << 8
	slotIndicatorOff     = 3 << 8
	slotPowerOff         = 1 << 10
	slotLinkEnable       = 1 << 12
	slotControlBits      = slotButton | slotPresenceChanged | slotHotplugInterrupt | slotIndicator | slotPowerOff | slotLinkEnable

	// Slot Status.
	slotButton          = 1 << 0
	slotPresenceChanged = 1 << 3
	slotPresent         = 1 << 6
	slotLinkChanged     = 1 << 8
	slotEvents          = slotButton | slotPresenceChanged | slotLinkChanged
)
