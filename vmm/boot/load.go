package boot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/ashlar-hv/ashlar/vmm/memory"
)

// Offsets in the boot parameters ("zero page", Documentation/arch/x86/zero-page.rst).
const (
	paramsSize      = 4096
	offRSDP         = 0x70
	offE820Entries  = 0x1e8
	offE820Table    = 0x2d0
	e820EntrySize   = 20
	maxE820         = 128
	pageMask        = memory.PageSize - 1
	cmdlineFallback = 255
)

// A RangeType says what an address range is (ACPI 6.5 section 15).
type RangeType uint32

// Types of ranges.
const (
	RAM      RangeType = 1
	Reserved RangeType = 2
)

// A Range is an entry of the memory map given to the kernel (e820).
type Range struct {
	Base, Size uint64
	Type       RangeType
}

// A Load is all that goes into memory besides the machine's tables.
type Load struct {
	Kernel    *os.File
	Initramfs *os.File // or nil
	Cmdline   string
	// RSDP is where the ACPI tables start.
	RSDP uint64
	// Map is the memory map, lowest first.
	Map []Range
	// Params and CmdlineAt are free places below 640 KiB: one page, and as many
	// bytes as the command line has and one.
	Params, CmdlineAt uint64
}

// An Entry is how the first vCPU starts: in long mode at RIP, with RSI at the
// boot parameters.
type Entry struct {
	RIP, RSI uint64
}

// Into loads everything into mem. Errors wrap ErrKernel, ErrInitramfs,
// ErrCmdline or ErrMemory.
func (l *Load) Into(mem *memory.Memory) (Entry, error) {
	size, err := fileSize(l.Kernel)
	if err != nil {
		return Entry{}, badKernel("cannot be read: %v", err)
	}
	im, err := Parse(l.Kernel, size)
	if err != nil {
		return Entry{}, err
	}
	if err := im.checkCmdline(l.Cmdline); err != nil {
		return Entry{}, err
	}
	top := mem.Regions()[0].Size
	at, err := im.place(top)
	if err != nil {
		return Entry{}, err
	}
	initramfs, n, err := l.loadInitramfs(mem, im, at+im.initSize, top)
	if err != nil {
		return Entry{}, err
	}
	if err := mem.ReadFile(l.Kernel, im.codeOffset, at, im.codeSize); err != nil {
		return Entry{}, badKernel("cannot be read: %v", err)
	}
	if err := mem.WriteAt(l.CmdlineAt, append([]byte(l.Cmdline), 0)); err != nil {
		return Entry{}, fmt.Errorf("write command line: %w", err)
	}
	params, err := l.params(im, initramfs, n)
	if err != nil {
		return Entry{}, err
	}
	if err := mem.WriteAt(l.Params, params); err != nil {
		return Entry{}, fmt.Errorf("write boot parameters: %w", err)
	}
	return Entry{RIP: at + entryOffset, RSI: l.Params}, nil
}

func fileSize(f *os.File) (int64, error) {
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if !fi.Mode().IsRegular() {
		return 0, errors.New("not a regular file")
	}
	return fi.Size(), nil
}

func (im *Image) checkCmdline(s string) error {
	limit := im.cmdlineLimit
	if limit == 0 {
		limit = cmdlineFallback
	}
	if len(s) > limit {
		return fmt.Errorf("%w: %d bytes, this kernel takes %d", ErrCmdline, len(s), limit)
	}
	if strings.IndexByte(s, 0) >= 0 {
		return fmt.Errorf("%w: it has a zero byte", ErrCmdline)
	}
	return nil
}

// loadInitramfs puts the initramfs as high as it may go, between floor and top.
func (l *Load) loadInitramfs(mem *memory.Memory, im *Image, floor, top uint64) (at, n uint64, err error) {
	if l.Initramfs == nil {
		return 0, 0, nil
	}
	size, err := fileSize(l.Initramfs)
	if err != nil {
		return 0, 0, fmt.Errorf("%w: cannot be read: %w", ErrInitramfs, err)
	}
	if size == 0 {
		return 0, 0, fmt.Errorf("%w: the file is empty", ErrInitramfs)
	}
	n = uint64(size)
	if !im.above4G {
		top = min(top, im.initrdMax+1)
	}
	if n > top || (top-n)&^pageMask < floor {
		return 0, 0, fmt.Errorf("%w: kernel and initramfs need at least %d MiB",
			ErrMemory, (floor+n+1<<20-1)>>20+1)
	}
	at = (top - n) &^ pageMask
	if err := mem.ReadFile(l.Initramfs, 0, at, n); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("the file became shorter")
		}
		return 0, 0, fmt.Errorf("%w: cannot be read: %w", ErrInitramfs, err)
	}
	return at, n, nil
}

// params are the boot parameters.
func (l *Load) params(im *Image, initramfs, n uint64) ([]byte, error) {
	if len(l.Map) > maxE820 {
		return nil, fmt.Errorf("memory map of %d ranges: at most %d", len(l.Map), maxE820)
	}
	b := make([]byte, paramsSize)
	copy(b[headerStart:], im.header)
	le := binary.LittleEndian
	b[offLoaderType] = loaderUndefined
	le.PutUint16(b[offVidMode:], videoNormal)
	le.PutUint32(b[offCmdlinePtr:], uint32(l.CmdlineAt))
	le.PutUint32(b[offRamdiskImage:], uint32(initramfs))
	le.PutUint32(b[offRamdiskSize:], uint32(n))
	le.PutUint64(b[offRSDP:], l.RSDP)
	b[offE820Entries] = byte(len(l.Map))
	for i, r := range l.Map {
		e := b[offE820Table+i*e820EntrySize:]
		le.PutUint64(e, r.Base)
		le.PutUint64(e[8:], r.Size)
		le.PutUint32(e[16:], uint32(r.Type))
	}
	return b, nil
}
