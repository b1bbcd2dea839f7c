package vfio

import "encoding/binary"

// Registers of the PCI Express capability (section 7.5.3).
const (
	expressFlags   = 0x02
	expressDevCap  = 0x04
	expressDevCtl  = 0x08
	expressLinkCap = 0x0c

	expressTypeMask   = 0xf << 4
	expressEndpoint   = 0 << 4
	expressIntegrated = 9 << 4
	devCapReset       = 1 << 28
	devCtlReset       = 1 << 15
	devCtlPhantom     = 1 << 9
)

// expressSize is the size by the version and, of the first, the type.
func expressSize(f *Function, off int) int {
	if f.word(off+expressFlags)&0xf >= 2 {
		return 0x3c
	}
	return 0x14
}

// expressFields are those of version 1, and expressFields2 what version 2 has besides. What is about
// the link is the host's to set: it is shown, and what the guest writes goes nowhere.
var (
	expressFields = []field{
		{expressFlags, 2, fixed},
		{expressDevCap, 4, fixed},
		{expressDevCtl, 2, zero}, // Device Control: see setUpExpress
		{0x0a, 2, passed},        // Device Status
		{expressLinkCap, 4, fixed},
		{0x10, 2, kept},  // Link Control
		{0x12, 2, shown}, // Link Status
	}
	expressFields2 = []field{
		{0x14, 16, zero}, // of slots and root ports
		{0x24, 4, fixed}, // Device Capabilities 2; see setUpExpress
		{0x28, 2, passed},
		{0x2a, 2, zero},
		{0x2c, 4, fixed}, // Link Capabilities 2
		{0x30, 2, kept},
		{0x32, 2, shown},
		{0x34, 8, zero}, // of slots
	}
)

// setUpExpress shows the capability of an endpoint: on bus 0, which has no links, that of one
// that is integrated in the root complex.
func (f *Function) setUpExpress(off int) error {
	f.apply(off, expressFields)
	if expressSize(f, off) > 0x14 {
		f.apply(off, expressFields2)
		// Latency tolerance and buffer flushing are the host's; functions are not alternatively
		// numbered, and prefixes of TLPs would lead to the IOMMU.
		const hidden = 1<<5 | 1<<11 | 3<<18 | 1<<21 | 3<<22
		v := binary.LittleEndian.Uint32(f.start[off+0x24:]) &^ hidden
		f.cfg.Fixed(off+0x24, binary.LittleEndian.AppendUint32(nil, v)...)
	}
	if f.c.RootBus {
		flags := f.word(off + expressFlags)
		if flags&expressTypeMask == expressEndpoint {
			flags = flags&^expressTypeMask | expressIntegrated
			f.cfg.Fixed(off+expressFlags, byte(flags), byte(flags>>8))
		}
		f.apply(off, []field{{expressLinkCap, 4, zero}})
		f.cfg.Unpass(off+0x10, 4)
		if expressSize(f, off) > 0x14 {
			f.cfg.Unpass(off+0x2c, 8)
		}
	}
	resets := binary.LittleEndian.Uint32(f.start[off+expressDevCap:])&devCapReset != 0
	f.keep(off+expressDevCtl, ^uint16(devCtlPhantom))
	f.cfg.Hook(off+expressDevCtl, 2, func() {
		v := f.now(off + expressDevCtl)
		if v&devCtlReset != 0 {
			v &^= devCtlReset // it always reads as 0
			f.cfg.SetBytes(off+expressDevCtl, []byte{byte(v), byte(v >> 8)})
			if resets {
				f.functionReset()
				return
			}
		}
		f.WriteConfig(off+expressDevCtl, []byte{byte(v), byte(v >> 8)})
	}, nil)
	return nil
}
