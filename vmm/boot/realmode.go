package boot

import (
	"encoding/binary"

	"github.com/ashlar-hv/ashlar/vmm/memory"
)

// Offsets of what a loader writes into the header that is entered in 16 bits,
// and of the fields that come with a protocol.
const (
	offHeapEnd     = 0x224
	canUseHeap     = 1 << 7
	minReal        = 0x0202 // command line by its address
	versionInitMax = 0x0203
	versionCmdline = 0x0206
	versionPlace   = 0x020a
)

// Where the setup code lies, what it may take, and the end of its heap, below
// its stack.
const (
	realSegment = 0x1000
	realBase    = realSegment << 4
	realSize    = 32 << 10 // boot sector and setup code
	realStack   = 0xe000
	realHeapEnd = realStack - 0x200
)

// A realImage is a Linux image that can only be entered in 16 bits: its protocol
// is older than 2.12, or it has no 64-bit entry ("THE REAL-MODE KERNEL HEADER"
// and "RUNNING THE KERNEL" of boot.rst).
type realImage struct {
	setup   []byte // boot sector and setup code
	code    segment
	end     uint64 // of the memory that the code needs
	initMax uint64 // highest address of the initramfs
	cmdline int    // bytes it takes
}

// parseReal reads the header of an image that parseBzImage has told to be one of
// Linux: b are its first bytes.
func parseReal(s *source) (image, error) {
	b := s.head
	v := le16(b, offVersion)
	if v < minReal {
		return nil, badKernel("boot protocol %d.%02d, need 2.02 or newer", v>>8, v&0xff)
	}
	if b[offLoadFlags]&loadedHigh == 0 {
		return nil, badKernel("a zImage, not a bzImage")
	}
	sects := uint64(b[offSetupSects])
	if sects == 0 {
		sects = defaultSetupSectors
	}
	setup := (1 + sects) * sector
	if setup > realSize {
		return nil, badKernel("setup code of %d bytes, at most %d", setup, realSize)
	}
	n := uint64(le32(b, offSysSize)) * 16
	if setup >= s.size || n > s.size-setup+15 || n == 0 {
		return nil, badKernel("truncated: %d bytes, the header tells of %d", s.size, setup+n)
	}
	n = min(n, s.size-setup)
	im := &realImage{code: segment{off: setup, fileSize: n, at: highMemory, memSize: n}, end: highMemory + n, initMax: 0x37ffffff, cmdline: cmdlineFallback}
	var err error
	if im.setup, err = s.read("setup code", 0, setup); err != nil {
		return nil, err
	}
	im.later(b, v)
	if err := im.code.check(s); err != nil {
		return nil, err
	}
	return im, nil
}

// later takes what newer protocols than 2.02 tell.
func (im *realImage) later(b []byte, version uint16) {
	if version >= versionInitMax {
		im.initMax = uint64(le32(b, offInitrdAddrMax))
	}
	if version >= versionCmdline {
		im.cmdline = int(min(le32(b, offCmdlineSize), linuxCmdline))
	}
	if version >= versionPlace && le64(b, offPrefAddress) <= memory.LowTop {
		im.end = max(im.end, le64(b, offPrefAddress)+uint64(le32(b, offInitSize)))
	}
}

func (im *realImage) cmdlineLimit() int { return im.cmdline }

func (im *realImage) place(top uint64) (placement, error) {
	p, err := placeSegments([]segment{im.code}, 0, top)
	if err != nil {
		return placement{}, err
	}
	if im.end > top {
		return placement{}, tooLittle(im.end)
	}
	p.end, p.ceiling, p.params = im.end, im.initMax+1, realBase
	return p, nil
}

func (im *realImage) entry(uint64, uint64) Entry {
	return Entry{Mode: RealMode, RIP: realBase + offJump, Segment: realSegment, RSP: realStack}
}

// data is the setup code, with what a loader fills in.
func (im *realImage) data(l *Load, initramfs extent) []byte {
	b := im.setup
	le := binary.LittleEndian
	le.PutUint16(b[offVidMode:], videoNormal)
	b[offLoaderType] = loaderUndefined
	b[offLoadFlags] |= canUseHeap
	le.PutUint16(b[offHeapEnd:], realHeapEnd)
	le.PutUint32(b[offRamdiskImage:], uint32(initramfs.at))
	le.PutUint32(b[offRamdiskSize:], uint32(initramfs.size))
	le.PutUint32(b[offCmdlinePtr:], uint32(l.CmdlineAt))
	return b
}
