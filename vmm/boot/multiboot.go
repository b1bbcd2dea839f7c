package boot

import "encoding/binary"

// The header in the image (Multiboot Specification 0.6.96 section 3.1).
const (
	mbHeaderMagic   = 0x1badb002
	mbFlags         = 4
	mbHeaderAddr    = 12
	mbLoadAddr      = 16
	mbLoadEndAddr   = 20
	mbBSSEndAddr    = 24
	mbEntryAddr     = 28
	mbHeaderSize    = 12 // without addresses
	mbAddressesSize = 32
	// Flags. What is not understood of the lower half has to be refused.
	mbPageAlign  = 1 << 0 // modules at page boundaries: they always are
	mbMemoryInfo = 1 << 1 // always given
	mbVideoMode  = 1 << 2
	mbAddresses  = 1 << 16
	mbMandatory  = 0xffff
)

// The information for the kernel (section 3.3).
const (
	mbLoaderMagic    = 0x2badb002
	mbiMemLower      = 4
	mbiMemUpper      = 8
	mbiCmdline       = 16
	mbiModsCount     = 20
	mbiModsAddr      = 24
	mbiMmapLength    = 44
	mbiMmapAddr      = 48
	mbiLoaderName    = 64
	mbiSize          = 120
	mbiModSize       = 16 // start, end, string, reserved
	mbiRangeSize     = 24 // size of what follows, base, length, type
	mbiLoaderNameMax = 16
	mbiLoader        = "Ashlar"
	// Flags: which fields mean something.
	mbiHasMem        = 1 << 0
	mbiHasCmdline    = 1 << 2
	mbiHasMods       = 1 << 3
	mbiHasMmap       = 1 << 6
	mbiHasLoaderName = 1 << 9
)

// A multiboot is a kernel by the Multiboot Specification, version 1.
type multiboot struct {
	segments []segment
	rip      uint64
}

// parseMultiboot checks a multiboot image.
func parseMultiboot(s *source) (image, error) {
	off, ok := findHeader(s.head)
	if !ok {
		return nil, nil
	}
	h := s.head[off:]
	flags := le32(h, mbFlags)
	if err := checkFlags(flags); err != nil {
		return nil, err
	}
	var im *multiboot
	var err error
	switch {
	case flags&mbAddresses != 0: // they count even where it is ELF
		im, err = byAddresses(s, uint64(off))
	case isELF(s):
		im, err = byELF(s)
	default:
		err = badKernel("multiboot image that is not ELF and has no addresses in its header (flag 16)")
	}
	if err != nil {
		return nil, err
	}
	if err := checkSegments(s, im.segments, im.rip); err != nil {
		return nil, err
	}
	return im, nil
}

// findHeader finds the header in the first bytes of an image.
func findHeader(b []byte) (off int, ok bool) {
	for ; off+mbHeaderSize <= len(b); off += 4 {
		if le32(b, off) == mbHeaderMagic && mbHeaderMagic+le32(b, off+4)+le32(b, off+8) == 0 {
			return off, true
		}
	}
	return 0, false
}

// checkFlags refuses what the kernel must have and cannot get.
func checkFlags(flags uint32) error {
	if flags&mbVideoMode != 0 {
		return badKernel("multiboot image that asks for a video mode (flag 2): there is no display")
	}
	if unknown := flags & mbMandatory &^ (mbPageAlign | mbMemoryInfo); unknown != 0 {
		return badKernel("multiboot image that asks for something unknown (flags %#x)", unknown)
	}
	return nil
}

// byAddresses takes what the header at off says to load: one segment.
func byAddresses(s *source, off uint64) (*multiboot, error) {
	if off+mbAddressesSize > uint64(len(s.head)) {
		return nil, badKernel("multiboot header at %#x does not end in the first %d bytes", off, len(s.head))
	}
	h := s.head[off:]
	at := func(field int) uint64 { return uint64(le32(h, field)) }
	header, load, loadEnd, bssEnd := at(mbHeaderAddr), at(mbLoadAddr), at(mbLoadEndAddr), at(mbBSSEndAddr)
	if header < load || header-load > off {
		return nil, badKernel("multiboot header at %#x of the file has address %#x, %#x is loaded first", off, header, load)
	}
	g := segment{off: off - (header - load), at: load, virt: load}
	if loadEnd == 0 { // all of the file
		loadEnd = load + s.size - g.off
	}
	if bssEnd == 0 { // no uninitialised data
		bssEnd = loadEnd
	}
	if loadEnd < load || bssEnd < loadEnd {
		return nil, badKernel("multiboot image loaded from %#x to %#x, with zeros to %#x", load, loadEnd, bssEnd)
	}
	g.fileSize, g.memSize = loadEnd-load, bssEnd-load
	return &multiboot{[]segment{g}, at(mbEntryAddr)}, nil
}

// byELF takes what the program headers say to load. The entry of an ELF file is
// a virtual address; a kernel that runs elsewhere than it is loaded may yet name
// a physical one.
func byELF(s *source) (*multiboot, error) {
	e, err := parseELF(s)
	if err != nil {
		return nil, err
	}
	im := &multiboot{e.loads, e.entry}
	for _, g := range e.loads {
		if e.entry >= g.virt && e.entry-g.virt < g.fileSize {
			im.rip = g.at + e.entry - g.virt
			break
		}
	}
	return im, nil
}

func (im *multiboot) cmdlineLimit() int { return linuxCmdline }

func (im *multiboot) place(top uint64) (placement, error) {
	return placeSegments(im.segments, im.rip, top)
}

func (im *multiboot) entry(rip, params uint64) Entry {
	return Entry{Mode: ProtectedMode, RIP: rip, RAX: mbLoaderMagic, RBX: params}
}

// data is the information structure, the list of modules (the initramfs, or
// none), the name of the loader, and the memory map.
func (im *multiboot) data(l *Load, initramfs extent) []byte {
	const mods, name, mmap = mbiSize, mbiSize + mbiModSize, mbiSize + mbiModSize + mbiLoaderNameMax
	b := make([]byte, mmap+len(l.Map)*mbiRangeSize)
	le := binary.LittleEndian
	put := func(off int, v uint64) { le.PutUint32(b[off:], uint32(v)) }
	put(0, mbiHasMem|mbiHasCmdline|mbiHasMods|mbiHasMmap|mbiHasLoaderName)
	put(mbiMemLower, ramFrom(l.Map, 0)>>10)
	put(mbiMemUpper, ramFrom(l.Map, highMemory)>>10)
	put(mbiCmdline, l.CmdlineAt)
	if initramfs.size > 0 {
		put(mbiModsCount, 1)
		put(mbiModsAddr, l.Params+mods)
		put(mods, initramfs.at)
		put(mods+4, initramfs.at+initramfs.size)
	}
	put(mbiLoaderName, l.Params+name)
	copy(b[name:], mbiLoader)
	put(mbiMmapLength, uint64(len(l.Map)*mbiRangeSize))
	put(mbiMmapAddr, l.Params+mmap)
	for i, r := range l.Map {
		e := b[mmap+i*mbiRangeSize:]
		le.PutUint32(e, mbiRangeSize-4)
		le.PutUint64(e[4:], r.Base)
		le.PutUint64(e[12:], r.Size)
		le.PutUint32(e[20:], uint32(r.Type))
	}
	return b
}

// ramFrom is how many bytes of memory there are from base on.
func ramFrom(ranges []Range, base uint64) uint64 {
	for _, r := range ranges {
		if r.Base == base && r.Type == RAM {
			return r.Size
		}
	}
	return 0
}
