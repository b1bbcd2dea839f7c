package vfio

import (
	"encoding/binary"

	"github.com/ashlar-hv/ashlar/vmm/pci"
)

// A capability is how one of an ID is shown. What is in none of the tables is refused:
// it is left out of the list, and its bytes read as zeros.
type capability struct {
	// size is that of the capability at off in bytes, 0 for one that makes no sense.
	size   func(f *Function, off int) int
	fields []field
	// also sets up what fields cannot say.
	also func(f *Function, off int) error
}

func bytes(n int) func(*Function, int) int { return func(*Function, int) int { return n } }

const capAdvanced = 0x13 // Advanced Features, of conventional PCI

// capabilityTable has those of the first 256 bytes. Refused are, among others, VPD (a guest could
// write to the board's memory by it), Enhanced Allocation (BARs are emulated),
// HyperTransport, PCI-X, AGP and slots.
func capabilityTable() map[byte]capability {
	return map[byte]capability{
		pci.CapPower: {bytes(8), []field{
			{2, 2, fixed}, // Capabilities; see setUpPower
			{4, 2, zero},  // Control and Status: emulated
			{6, 2, zero},  // bridge extensions, data
		}, (*Function).setUpPower},
		pci.CapMSI: {msiSize, nil, (*Function).setUpMSI},
		pci.CapVendor: {func(f *Function, off int) int { return int(f.start[off+2]) }, nil,
			func(f *Function, off int) error {
				if n := int(f.start[off+2]); n > 3 {
					f.apply(off, []field{{2, 1, fixed}, {3, n - 3, passed}})
				}
				return nil
			}},
		0x0d:           {bytes(8), []field{{2, 2, zero}, {4, 4, fixed}}, nil}, // subsystem IDs of a bridge
		pci.CapExpress: {expressSize, nil, (*Function).setUpExpress},
		pci.CapMSIX:    {bytes(12), []field{{2, 10, fixed}}, (*Function).setUpMSIX},
		capAdvanced:    {bytes(6), []field{{2, 2, fixed}, {4, 1, zero}, {5, 1, shown}}, (*Function).setUpAdvanced},
	}
}

func (f *Function) word(off int) uint16 { return binary.LittleEndian.Uint16(f.start[off:]) }

// now is the word that the guest has at off.
func (f *Function) now(off int) uint16 {
	var b [2]byte
	f.cfg.Bytes(off, b[:])
	return binary.LittleEndian.Uint16(b[:])
}

// capabilities sets up those that the device has and the table names, at their places.
func (f *Function) capabilities() error {
	table := capabilityTable()
	if f.word(regStatus)&statusCapList == 0 {
		return nil
	}
	var taken [headerSpace]bool
	link := regCapPointer
	for at := int(f.start[regCapPointer]) &^ 3; at >= firstCap && !taken[at]; {
		id, next := f.start[at], int(f.start[at+1])&^3
		taken[at] = true // the device's list may go round
		c, ok := table[id]
		n := 0
		if ok {
			n = c.size(f, at)
		}
		if n >= 2 && at+n <= headerSpace && free(taken[at+1:at+n]) {
			delete(table, id) // a second one would have nothing to do
			for i := range n {
				taken[at+i] = true
			}
			f.cfg.Fixed(at, id, 0)
			f.apply(at, c.fields)
			if c.also != nil {
				if err := c.also(f, at); err != nil {
					return err
				}
			}
			f.cfg.Fixed(link, byte(at))
			link = at + 1
		}
		at = next
	}
	f.showRest(taken[:])
	return nil
}

func free(taken []bool) bool {
	for _, t := range taken {
		if t {
			return false
		}
	}
	return true
}

// showRest shows what is in no capability: registers of the maker's, which drivers look at. Writes
// are refused.
func (f *Function) showRest(taken []bool) {
	inList := make([]bool, headerSpace)
	// Capabilities that are refused are not shown either, as far as their size is known: up to
	// the next one of the list.
	for at := int(f.start[regCapPointer]) &^ 3; at >= firstCap && !inList[at]; at = int(f.start[at+1]) &^ 3 {
		inList[at] = true
	}
	hidden := false
	for at := firstCap; at < headerSpace; at++ {
		switch {
		case inList[at]:
			_, known := capabilityTable()[f.start[at]]
			hidden = !known
		case taken[at]:
			hidden = false
		}
		if !taken[at] && !hidden {
			f.cfg.Show(at)
		}
	}
}

// keep has the guest write the bits of mask at off, and a reset bring back what was there.
func (f *Function) keep(off int, mask uint16) {
	f.cfg.Fixed(off, f.start[off:off+2]...)
	f.cfg.Masked(off, byte(mask), byte(mask>>8))
	f.defaults = append(f.defaults, field{off: off, n: 2})
}

// restoreDefaults brings back, in the guest's view and in the device, what keep is for.
func (f *Function) restoreDefaults() {
	for _, d := range f.defaults {
		b := f.start[d.off : d.off+d.n]
		f.cfg.SetBytes(d.off, b)
		f.WriteConfig(d.off, b)
	}
}

// Of power management (PCI Bus Power Management 1.2 section 3.2).
const (
	powerCapPME  = 0xf800
	powerControl = 4
	powerState   = 3
	powerD3Hot   = 3
	powerNoReset = 1 << 3
)

// setUpPower has the guest set a power state, in which nothing but its own view changes: the
// device stays in D0, and the host's driver, which knows what the others want, saves power.
// There is no PME, which would have nobody to go to.
func (f *Function) setUpPower(off int) error {
	c := f.word(off+2) &^ powerCapPME
	f.cfg.Fixed(off+2, byte(c), byte(c>>8))
	f.cfg.Fixed(off+powerControl, byte(f.word(off+powerControl)&powerNoReset), 0)
	f.cfg.Masked(off+powerControl, powerState, 0)
	asleep := false
	f.cfg.Hook(off+powerControl, 2, func() {
		state := f.now(off+powerControl) & powerState
		wakes := asleep && state == 0
		asleep = state == powerD3Hot
		if wakes && f.word(off+powerControl)&powerNoReset == 0 {
			f.functionReset() // as a function that comes from D3hot to D0 has been (section 5.4.1)
		}
	}, nil)
	return nil
}

// setUpAdvanced has the guest reset the function.
func (f *Function) setUpAdvanced(off int) error {
	const initiate, canReset = 1 << 0, 1 << 1
	if f.start[off+3]&canReset == 0 {
		return nil
	}
	f.cfg.Masked(off+4, initiate)
	f.cfg.Hook(off+4, 1, func() {
		if f.now(off+4)&initiate != 0 {
			f.cfg.SetBytes(off+4, []byte{0})
			f.functionReset()
		}
	}, nil)
	return nil
}
