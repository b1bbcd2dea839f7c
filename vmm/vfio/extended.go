package vfio

import (
	"encoding/binary"

	"github.com/ashlar-hv/ashlar/vmm/pci"
)

// extendedTable has the capabilities from 0x100 on: how many bytes each takes at least, and who answers for
// them. Refused are, among others, those by which a guest would reach what is the host's or another's: SR-IOV,
// ARI, ATS, PRI, PASID, ACS, resizable BARs, multicast, virtual channels, power states of the link.
func extendedTable() map[uint16]extended {
	long := func(f *Function, off int) int { return int(f.dword(off+4) >> 20) }
	return map[uint16]extended{
		0x0001: {bytes(0x2c), shown}, // Advanced Error Reporting: the host handles errors
		0x0003: {bytes(12), fixed},   // Device Serial Number
		0x000b: {long, passed},       // vendor-specific
		0x0018: {bytes(8), shown},    // Latency Tolerance
		0x0019: {bytes(12), shown},   // Secondary PCI Express
		0x0023: {long, shown},        // designated vendor-specific
	}
}

type extended struct {
	size func(f *Function, off int) int
	t    treatment
}

func (f *Function) dword(off int) uint32 { return binary.LittleEndian.Uint32(f.start[off:]) }

const (
	extendedSpace = 0x100
	nobody        = 0xffff // the ID of a capability that nobody knows
)

// extended sets up the list of extended capabilities (section 7.6). It starts at 0x100,
// whether the capability there is shown or not.
func (f *Function) extended() {
	table := extendedTable()
	var taken [pci.ConfigSize]bool
	link, head := extendedSpace, uint32(0)
	for at := extendedSpace; at >= extendedSpace && at <= pci.ConfigSize-4 && !taken[at]; {
		h := f.dword(at)
		if h == 0 || h == 0xffffffff {
			break
		}
		taken[at] = true
		id := uint16(h)
		e, ok := table[id]
		n := 0
		if ok && at <= pci.ConfigSize-8 {
			n = e.size(f, at)
		}
		if n >= 8 && at+n <= pci.ConfigSize && free(taken[at+1:at+n]) {
			for i := range n {
				taken[at+i] = true
			}
			f.apply(at, []field{{4, n - 4, e.t}})
			if at != extendedSpace {
				if link == extendedSpace && head == 0 {
					head = nobody
				}
				f.setHeader(link, head|uint32(at)<<20)
			}
			link, head = at, h&0xfffff
			f.setHeader(at, head)
		}
		at = int(h>>20) &^ 3
	}
}

func (f *Function) setHeader(off int, h uint32) {
	f.cfg.Fixed(off, binary.LittleEndian.AppendUint32(nil, h)...)
}
