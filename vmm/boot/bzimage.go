// Package boot loads a Linux kernel into guest memory and says how to enter it,
// by the 64-bit boot protocol (Documentation/arch/x86/boot.rst of Linux 6.12,
// "64-bit BOOT PROTOCOL"). Kernels from protocol 2.12 (Linux 3.8) on will do.
//
// The image is somebody else's file: Parse checks its header whole before a
// byte of it is loaded.
package boot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
)

// What is wrong with the parts that a guest is booted from.
var (
	ErrKernel    = errors.New("bad kernel image")
	ErrInitramfs = errors.New("bad initramfs")
	ErrCmdline   = errors.New("bad kernel command line")
	ErrMemory    = errors.New("too little memory")
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
	highMemory          = 1 << 20
	// maxImage bounds an image in bytes; real ones have some ten MiB.
	maxImage = 1 << 30
)

// An Image is a bzImage whose header has been checked.
type Image struct {
	header       []byte // from headerStart
	codeOffset   int64  // of the code that is loaded, in the file
	codeSize     uint64
	pref         uint64 // where it likes to be
	initSize     uint64 // memory it needs from there on
	alignment    uint64
	relocatable  bool
	above4G      bool // initramfs may lie anywhere
	initrdMax    uint64
	cmdlineLimit int
}

func badKernel(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrKernel, fmt.Sprintf(format, args...))
}

// Parse reads the header of the bzImage r of size bytes and checks all of it.
// Errors wrap ErrKernel.
func Parse(r io.ReaderAt, size int64) (*Image, error) {
	if size < offHeaderEnd {
		return nil, badKernel("%d bytes are too few for a bzImage", size)
	}
	if size > maxImage {
		return nil, badKernel("%d bytes are more than a bzImage has", size)
	}
	b := make([]byte, min(size, maxHeaderEnd))
	if _, err := r.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, badKernel("cannot be read: %v", err)
	}
	end, err := checkMagic(b)
	if err != nil {
		return nil, err
	}
	im := &Image{
		header:       b[headerStart:end],
		pref:         le64(b, offPrefAddress),
		initSize:     uint64(le32(b, offInitSize)),
		alignment:    uint64(le32(b, offKernelAlignment)),
		relocatable:  b[offRelocatable] != 0,
		above4G:      le16(b, offXLoadFlags)&xlfAbove4G != 0,
		initrdMax:    uint64(le32(b, offInitrdAddrMax)),
		cmdlineLimit: int(min(le32(b, offCmdlineSize), 64<<10)),
	}
	if err := im.checkCode(b, size); err != nil {
		return nil, err
	}
	return im, im.checkPlace()
}

// checkMagic checks what says that this is a 64-bit bzImage, and returns where
// its header ends.
func checkMagic(b []byte) (int, error) {
	if le16(b, offBootFlag) != bootFlag || string(b[offMagic:offMagic+4]) != magic {
		return 0, badKernel("not a bzImage (no boot signature)")
	}
	if v := le16(b, offVersion); v < minVersion {
		return 0, badKernel("boot protocol %d.%02d, need 2.12 (Linux 3.8) or newer", v>>8, v&0xff)
	}
	if b[offLoadFlags]&loadedHigh == 0 {
		return 0, badKernel("a zImage, not a bzImage")
	}
	if le16(b, offXLoadFlags)&xlfKernel64 == 0 {
		return 0, badKernel("no 64-bit entry: a 32-bit kernel?")
	}
	end := offMagic + int(b[offJump+1])
	if end < offHeaderEnd || end > len(b) {
		return 0, badKernel("header ends at %#x, want %#x to %#x", end, offHeaderEnd, len(b))
	}
	return end, nil
}

// checkCode checks that the file holds all the code that the header tells of.
func (im *Image) checkCode(b []byte, size int64) error {
	sects := int64(b[offSetupSects])
	if sects == 0 {
		sects = defaultSetupSectors
	}
	im.codeOffset = (1 + sects) * sector
	im.codeSize = uint64(le32(b, offSysSize)) * 16
	have := size - im.codeOffset
	// The size counts whole paragraphs of 16 bytes, the last of which the file
	// need not fill.
	if have <= 0 || im.codeSize > uint64(have)+15 {
		return badKernel("truncated: %d bytes, the header tells of %d", size, im.codeOffset+int64(im.codeSize))
	}
	im.codeSize = min(im.codeSize, uint64(have))
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
func (im *Image) checkPlace() error {
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

// place finds the kernel's address in low memory that ends at top.
func (im *Image) place(top uint64) (uint64, error) {
	if im.pref <= top && im.initSize <= top-im.pref {
		return im.pref, nil
	}
	if at := (highMemory + im.alignment - 1) &^ (im.alignment - 1); im.relocatable && at < im.pref && at <= top && im.initSize <= top-at {
		return at, nil
	}
	return 0, fmt.Errorf("%w: the kernel needs at least %d MiB", ErrMemory, (min(im.pref, highMemory+im.alignment)+im.initSize+1<<20-1)>>20)
}

func le16(b []byte, off int) uint16 { return binary.LittleEndian.Uint16(b[off:]) }
func le32(b []byte, off int) uint32 { return binary.LittleEndian.Uint32(b[off:]) }
func le64(b []byte, off int) uint64 { return binary.LittleEndian.Uint64(b[off:]) }
