package boot

import "encoding/binary"

// The note that makes an ELF executable a PVH kernel
// (xen/include/public/elfnote.h): its 32-bit entry as a physical address.
const (
	xenOwner       = "Xen"
	xenPhys32Entry = 18
)

// struct hvm_start_info, version 1, and what it points to
// (xen/include/public/arch-x86/hvm/start_info.h).
const (
	startInfoMagic   = 0x336ec578
	startInfoVersion = 1
	siMagic          = 0
	siVersion        = 4
	siModules        = 12 // their number
	siModuleList     = 16
	siCmdline        = 24
	siRSDP           = 32
	siMemoryMap      = 40
	siMapEntries     = 48
	startInfoSize    = 56
	moduleEntrySize  = 32 // address, size, command line, reserved
	mapEntrySize     = 24 // address, size, type, reserved
)

// A pvh is a kernel with a PVH entry.
type pvh struct {
	segments []segment
	rip      uint64
}

// parsePVH checks an ELF executable with a PVH entry.
func parsePVH(s *source) (image, error) {
	if !isELF(s) {
		return nil, nil
	}
	e, err := parseELF(s)
	if err != nil {
		return nil, err
	}
	desc, err := e.note(s, xenOwner, xenPhys32Entry)
	if err != nil || desc == nil {
		return nil, err
	}
	if len(desc) != 4 && len(desc) != 8 {
		return nil, badKernel("PVH entry of %d bytes: want 4 or 8", len(desc))
	}
	im := &pvh{e.loads, word(desc, 0, len(desc))}
	if err := checkSegments(s, im.segments, im.rip); err != nil {
		return nil, err
	}
	return im, nil
}

func (im *pvh) cmdlineLimit() int { return linuxCmdline }

func (im *pvh) place(top uint64) (placement, error) { return placeSegments(im.segments, im.rip, top) }

func (im *pvh) entry(rip, params uint64) Entry {
	return Entry{Mode: ProtectedMode, RIP: rip, RBX: params}
}

// data is the start info, the list of modules (the initramfs, or none), and the
// memory map.
func (im *pvh) data(l *Load, initramfs extent) []byte {
	const modules, table = startInfoSize, startInfoSize + moduleEntrySize
	b := make([]byte, table+len(l.Map)*mapEntrySize)
	le := binary.LittleEndian
	le.PutUint32(b[siMagic:], startInfoMagic)
	le.PutUint32(b[siVersion:], startInfoVersion)
	if initramfs.size > 0 {
		le.PutUint32(b[siModules:], 1)
		le.PutUint64(b[siModuleList:], l.Params+modules)
		le.PutUint64(b[modules:], initramfs.at)
		le.PutUint64(b[modules+8:], initramfs.size)
	}
	le.PutUint64(b[siCmdline:], l.CmdlineAt)
	le.PutUint64(b[siRSDP:], l.RSDP)
	le.PutUint64(b[siMemoryMap:], l.Params+table)
	le.PutUint32(b[siMapEntries:], uint32(len(l.Map)))
	for i, r := range l.Map {
		e := b[table+i*mapEntrySize:]
		le.PutUint64(e, r.Base)
		le.PutUint64(e[8:], r.Size)
		le.PutUint32(e[16:], uint32(r.Type))
	}
	return b
}
