// Package boot loads a kernel into guest memory and says how to enter it. The
// kind of the kernel is recognised from its image:
//
//   - bzImage: Linux, by the 64-bit boot protocol (Documentation/arch/x86/boot.rst
//     of Linux 6.12, "64-bit BOOT PROTOCOL"), from protocol 2.12 (Linux 3.8) on;
//   - bzImages of older protocols, and without a 64-bit entry (iPXE's .lkrn), by the
//     16-bit one, which wants a BIOS (vmm/bios);
//   - PVH: an ELF executable with a note that tells its entry, by the x86/HVM
//     direct boot ABI (docs/misc/pvh.pandoc and
//     xen/include/public/arch-x86/hvm/start_info.h of Xen 4.19): vmlinux and others;
//   - multiboot 1 (Multiboot Specification 0.6.96), as ELF or with the addresses
//     in its header.
//
// The image is somebody else's file: all of it that is followed is checked, and
// a place is found for everything, before a byte of it is copied.
package boot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/ashlar-hv/ashlar/vmm/memory"
)

// What is wrong with the parts that a guest is booted from.
var (
	ErrKernel    = errors.New("bad kernel image")
	ErrInitramfs = errors.New("bad initramfs")
	ErrCmdline   = errors.New("bad kernel command line")
	ErrMemory    = errors.New("too little memory")
)

const (
	// highMemory is where kernels may lie from on. Below are boot data and tables.
	highMemory = 1 << 20
	pageMask   = memory.PageSize - 1
	// paramsSize is how many bytes at Load.Params a kernel's boot data may have.
	paramsSize = memory.PageSize
	maxRanges  = 128
	// linuxCmdline is how many bytes of a command line Linux keeps
	// (COMMAND_LINE_SIZE less its zero byte). Protocols that name no limit have
	// this one: a longer line would be cut without a word.
	linuxCmdline = 2047
)

// A RangeType says what an address range is (ACPI 6.5 section 15). All three
// protocols use these numbers.
type RangeType uint32

// Types of ranges.
const (
	RAM      RangeType = 1
	Reserved RangeType = 2
)

// A Range is an entry of the memory map given to the kernel.
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

// A Mode is the state of the first vCPU that a kernel is entered in.
type Mode int

const (
	// LongMode is that of the 64-bit boot protocol of Linux: paging on, every
	// address at itself.
	LongMode Mode = iota
	// ProtectedMode is that of PVH and multiboot: 32 bits, flat segments, no paging.
	ProtectedMode
	// RealMode is that of the 16-bit boot protocol of Linux, with a BIOS.
	RealMode
)

// An Entry is how the first vCPU starts.
type Entry struct {
	Mode          Mode
	RIP           uint64
	RSI, RAX, RBX uint64 // all other general registers are zero
	Segment       uint16 // of data and stack in RealMode; the code's is 0x20 above
	RSP           uint64 // in RealMode
	// ECAM says that the kernel reaches all of PCI's configuration space by ECAM, if it finds no other way.
	ECAM bool
}

// An image is a kernel whose file has been checked by itself.
type image interface {
	// cmdlineLimit is how many bytes of command line it takes.
	cmdlineLimit() int
	// place finds what goes where in low memory, which ends at top.
	place(top uint64) (placement, error)
	// entry is how it is entered at rip, with its boot data at params.
	entry(rip, params uint64) Entry
	// data is the boot data that goes to l.Params.
	data(l *Load, initramfs extent) []byte
}

// A placement is what goes where.
type placement struct {
	segments []segment
	end      uint64 // of the memory that the kernel takes; the initramfs lies above
	ceiling  uint64 // of the initramfs
	rip      uint64
	params   uint64 // of the boot data, where it is not Load.Params
}

// An extent is a piece of guest memory; nothing where size is 0.
type extent struct {
	at, size uint64
}

// kinds are the kinds of images, in the order in which they are looked for.
// parse checks a file whole; one of another kind is neither image nor error.
var kinds = []struct {
	name  string
	parse func(*source) (image, error)
}{
	{"a bzImage", parseBzImage},
	{"an ELF executable with a PVH entry (note XEN_ELFNOTE_PHYS32_ENTRY)", parsePVH},
	{"a multiboot 1 image", parseMultiboot},
}

func badKernel(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrKernel, fmt.Sprintf(format, args...))
}

// parse recognises and checks the image. Errors wrap ErrKernel.
func parse(r io.ReaderAt, size int64) (image, error) {
	s, err := newSource(r, size)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, k := range kinds {
		im, err := k.parse(s)
		if im != nil || err != nil {
			return im, err
		}
		names = append(names, k.name)
	}
	return nil, badKernel("of no known kind: want %s", strings.Join(names, ", or "))
}

// Into loads everything into mem and clears the kernel's uninitialised data.
// Errors wrap ErrKernel, ErrInitramfs, ErrCmdline or ErrMemory; but for files
// that fail to be read they come before the first change of mem.
func (l *Load) Into(mem *memory.Memory) (Entry, error) {
	if len(l.Map) > maxRanges {
		return Entry{}, fmt.Errorf("memory map of %d ranges: at most %d", len(l.Map), maxRanges)
	}
	size, err := fileSize(l.Kernel)
	if err != nil {
		return Entry{}, badKernel("cannot be read: %v", err)
	}
	im, err := parse(l.Kernel, size)
	if err != nil {
		return Entry{}, err
	}
	if err := checkCmdline(l.Cmdline, im.cmdlineLimit()); err != nil {
		return Entry{}, err
	}
	top := mem.Regions()[0].Size
	p, err := im.place(top)
	if err != nil {
		return Entry{}, err
	}
	initramfs, err := l.placeInitramfs(p.end, min(top, p.ceiling))
	if err != nil {
		return Entry{}, err
	}
	if p.params == 0 {
		p.params = l.Params
	}
	if err := l.copy(mem, p, initramfs, im.data(l, initramfs)); err != nil {
		return Entry{}, err
	}
	e := im.entry(p.rip, l.Params)
	e.ECAM = e.Mode == LongMode && !withoutECAM(l.Cmdline)
	return e, nil
}

// withoutECAM says whether a command line keeps a 64-bit Linux, which else has it, from using ECAM, which it finds by
// ACPI, or from looking for PCI's root by ACPI, without which it wants the ports (Documentation/admin-guide/kernel-parameters.txt: acpi=, pci=).
func withoutECAM(cmdline string) bool {
	for _, p := range strings.Fields(cmdline) {
		key, value, _ := strings.Cut(p, "=")
		for _, v := range strings.Split(value, ",") {
			if key == "acpi" && v == "off" || key == "pci" && (v == "nommconf" || v == "noacpi" || v == "conf1" || v == "conf2" || v == "off") {
				return true
			}
		}
	}
	return false
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

func checkCmdline(s string, limit int) error {
	if len(s) > limit {
		return fmt.Errorf("%w: %d bytes, this kernel takes %d", ErrCmdline, len(s), limit)
	}
	if strings.IndexByte(s, 0) >= 0 {
		return fmt.Errorf("%w: it has a zero byte", ErrCmdline)
	}
	return nil
}

// placeInitramfs finds a place for the initramfs, whole pages as high as it may
// go between floor and top.
func (l *Load) placeInitramfs(floor, top uint64) (extent, error) {
	if l.Initramfs == nil {
		return extent{}, nil
	}
	size, err := fileSize(l.Initramfs)
	if err != nil {
		return extent{}, fmt.Errorf("%w: cannot be read: %w", ErrInitramfs, err)
	}
	if size == 0 {
		return extent{}, fmt.Errorf("%w: the file is empty", ErrInitramfs)
	}
	n := uint64(size)
	if n > top || (top-n)&^pageMask < floor {
		return extent{}, fmt.Errorf("%w: kernel and initramfs need at least %d MiB", ErrMemory, mib(floor+n)+1)
	}
	return extent{(top - n) &^ pageMask, n}, nil
}

// copy brings everything to its place.
func (l *Load) copy(mem *memory.Memory, p placement, initramfs extent, data []byte) error {
	for _, s := range p.segments {
		if err := s.copy(mem, l.Kernel); err != nil {
			return badKernel("cannot be read: %v", shorter(err))
		}
	}
	if initramfs.size > 0 {
		if err := mem.ReadFile(l.Initramfs, 0, initramfs.at, initramfs.size); err != nil {
			return fmt.Errorf("%w: cannot be read: %w", ErrInitramfs, shorter(err))
		}
	}
	if err := mem.WriteAt(l.CmdlineAt, append([]byte(l.Cmdline), 0)); err != nil {
		return fmt.Errorf("write command line: %w", err)
	}
	if err := mem.WriteAt(p.params, data); err != nil {
		return fmt.Errorf("write boot data: %w", err)
	}
	return nil
}

// shorter says what the end of a file means here, whose size was looked at before.
func shorter(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the file became shorter")
	}
	return err
}

// tooLittle says that a kernel needs memory up to end.
func tooLittle(end uint64) error {
	return fmt.Errorf("%w: the kernel needs at least %d MiB", ErrMemory, mib(end))
}

// mib is n bytes in MiB, rounded up.
func mib(n uint64) uint64 { return (n + 1<<20 - 1) >> 20 }
