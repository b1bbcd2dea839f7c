package boot

import (
	"encoding/binary"
	"math/bits"
)

// Offsets in the image, from its start; the boot parameters have the header at
// the same ones.
const (
	offSetupSects       = 0x1f1
	offSysSize          = 0x1f4
	offVidMode          = 0x1fa
	offBootFlag         = 0x1fe
	offJump             = 0x200
	offMagic            = 0x202
	offVersion          = 0x206
	offLoaderType       = 0x210
	offLoadFlags        = 0x211
	offRamdiskImage     = 0x218
	offRamdiskSize      = 0x21c
	offCmdlinePtr       = 0x228
	offInitrdAddrMax    = 0x22c
	offKernelAlignment  = 0x230
	offRelocatable      = 0x234
	offXLoadFlags       = 0x236
	offCmdlineSize      = 0x238
	offPayloadOffset    = 0x248
	offPayloadLength    = 0x24c
	offPrefAddress      = 0x258
	offInitSize         = 0x260
	offHeaderEnd        = 0x264 // of protocol 2.12
	maxHeaderEnd        = 0x290 // where the boot parameters go on
	headerStart         = offSetupSects
	sector              = 512
	entryOffset         = 0x200 // of the 64-bit entry, in the loaded code
	bootFlag            = 0xaa55
	magic               = "HdrS"
	minVersion          = 0x020c
	loadedHigh          = 1 << 0 // loadflags
	xlfKernel64         = 1 << 0 // xloadflags
	xlfAbove4G          = 1 << 1
	loaderUndefined     = 0xff
	videoNormal         = 0xffff
	defaultSetupSectors = 4
	cmdlineFallback     = 255
)

// Offsets in the boot parameters ("zero page", Documentation/arch/x86/zero-page.rst).
const (
	offRSDP        = 0x70
	offE820Entries = 0x1e8
	offE820Table   = 0x2d0
	e820EntrySize  = 20
)

// A bzImage is a Linux kernel whose header has been checked.
type bzImage struct {
	header      []byte // from headerStart
	codeOffset  uint64 // of the code that is loaded, in the file
	codeSize    uint64
	pref        uint64 // where it likes to be
	initSize    uint64 // memory it needs from there on
	alignment   uint64
	relocatable bool
	above4G     bool // initramfs may lie anywhere
	initrdMax   uint64
	cmdline     int // bytes it takes, or 0
}

// parseBzImage reads the header of a bzImage and checks all of it.
func parseBzImage(s *source) (image, error) {
	if len(s.head) < offMagic+len(magic) || le16(s.head, offBootFlag) != bootFlag || string(s.head[offMagic:offMagic+len(magic)]) != magic {
		return nil, nil
	}
	if len(s.head) < offHeaderEnd {
		return nil, badKernel("%d bytes are too few for a bzImage", s.size)
	}
	if le16(s.head, offVersion) < minVersion || le16(s.head, offXLoadFlags)&xlfKernel64 == 0 {
		return parseReal(s)
	}
	b := s.head[:min(len(s.head), maxHeaderEnd)]
	end, err := headerEnd(b)
	if err != nil {
		return nil, err
	}
	im := &bzImage{
		header:      b[headerStart:end],
		pref:        le64(b, offPrefAddress),
		initSize:    uint64(le32(b, offInitSize)),
		alignment:   uint64(le32(b, offKernelAlignment)),
		relocatable: b[offRelocatable] != 0,
		above4G:     le16(b, offXLoadFlags)&xlfAbove4G != 0,
		initrdMax:   uint64(le32(b, offInitrdAddrMax)),
		cmdline:     int(min(le32(b, offCmdlineSize), 64<<10)),
	}
	if err := im.checkCode(b, s.size); err != nil {
		return nil, err
	}
	if err := im.checkPlace(); err != nil {
		return nil, err
	}
	return im, nil
}

// headerEnd is where the header of a bzImage with a 64-bit entry ends.
func headerEnd(b []byte) (int, error) {
	if b[offLoadFlags]&loadedHigh == 0 {
		return 0, badKernel("a zImage, not a bzImage")
	}
	end := offMagic + int(b[offJump+1])
	if end < offHeaderEnd || end > len(b) {
		return 0, badKernel("header ends at %#x, want %#x to %#x", end, offHeaderEnd, len(b))
	}
	return end, nil
}

// checkCode checks that the file holds all the code that the header tells of.
func (im *bzImage) checkCode(b []byte, size uint64) error {
	sects := uint64(b[offSetupSects])
	if sects == 0 {
		sects = defaultSetupSectors
	}
	im.codeOffset = (1 + sects) * sector
	im.codeSize = uint64(le32(b, offSysSize)) * 16
	// The size counts whole paragraphs of 16 bytes, the last of which the file
	// need not fill.
	if im.codeOffset >= size || im.codeSize > size-im.codeOffset+15 {
		return badKernel("truncated: %d bytes, the header tells of %d", size, im.codeOffset+im.codeSize)
	}
	im.codeSize = min(im.codeSize, size-im.codeOffset)
	if im.codeSize <= entryOffset {
		return badKernel("only %d bytes of code", im.codeSize)
	}
	off, n := uint64(le32(b, offPayloadOffset)), uint64(le32(b, offPayloadLength))
	if off > im.codeSize || n > im.codeSize-off {
		return badKernel("payload of %d bytes at %#x is outside its %d bytes of code", n, off, im.codeSize)
	}
	return nil
}

// checkPlace checks where the kernel wants to be.
func (im *bzImage) checkPlace() error {
	if im.initSize < im.codeSize {
		return badKernel("wants %d bytes of memory but has %d of code", im.initSize, im.codeSize)
	}
	if im.alignment == 0 || bits.OnesCount64(im.alignment) != 1 {
		return badKernel("alignment %#x is no power of two", im.alignment)
	}
	if im.pref < highMemory || im.pref%im.alignment != 0 {
		return badKernel("preferred address %#x (alignment %#x)", im.pref, im.alignment)
	}
	return nil
}

func (im *bzImage) cmdlineLimit() int {
	if im.cmdline == 0 {
		return cmdlineFallback
	}
	return im.cmdline
}

// address finds the kernel's address in low memory that ends at top.
func (im *bzImage) address(top uint64) (uint64, error) {
	if im.pref <= top && im.initSize <= top-im.pref {
		return im.pref, nil
	}
	if at := (highMemory + im.alignment - 1) &^ (im.alignment - 1); im.relocatable && at < im.pref && at <= top && im.initSize <= top-at {
		return at, nil
	}
	return 0, tooLittle(min(im.pref, highMemory+im.alignment) + im.initSize)
}

func (im *bzImage) place(top uint64) (placement, error) {
	at, err := im.address(top)
	if err != nil {
		return placement{}, err
	}
	p := placement{
		segments: []segment{{off: im.codeOffset, fileSize: im.codeSize, at: at, memSize: im.codeSize}},
		end:      at + im.initSize, ceiling: im.initrdMax + 1, rip: at + entryOffset,
	}
	if im.above4G {
		p.ceiling = top
	}
	return p, nil
}

func (im *bzImage) entry(rip, params uint64) Entry {
	return Entry{Mode: LongMode, RIP: rip, RSI: params}
}

// data are the boot parameters.
func (im *bzImage) data(l *Load, initramfs extent) []byte {
	b := make([]byte, paramsSize)
	copy(b[headerStart:], im.header)
	le := binary.LittleEndian
	b[offLoaderType] = loaderUndefined
	le.PutUint16(b[offVidMode:], videoNormal)
	le.PutUint32(b[offCmdlinePtr:], uint32(l.CmdlineAt))
	le.PutUint32(b[offRamdiskImage:], uint32(initramfs.at))
	le.PutUint32(b[offRamdiskSize:], uint32(initramfs.size))
	le.PutUint64(b[offRSDP:], l.RSDP)
	b[offE820Entries] = byte(len(l.Map))
	for i, r := range l.Map {
		e := b[offE820Table+i*e820EntrySize:]
		le.PutUint64(e, r.Base)
		le.PutUint64(e[8:], r.Size)
		le.PutUint32(e[16:], uint32(r.Type))
	}
	return b
}
