package boot

import (
	"bytes"
	"slices"
)

// The ELF header and program headers, after chapters 4 and 5 of the System V ABI
// (gABI), and notes ("Note Section").
const (
	elfMagic     = "\x7fELF"
	elfIdent     = 16 // bytes before the fields that depend on the class
	offELFClass  = 4
	offELFData   = 5
	offELFType   = 16
	offMachine   = 18
	offELFEntry  = 24
	elfClass32   = 1
	elfClass64   = 2
	elfLittle    = 1
	elfExec      = 2
	machine386   = 3
	machineX8664 = 62
	progLoad     = 1
	progNote     = 4
	// Real kernels have some ten program headers and some hundred bytes of notes.
	maxProgs = 128
	maxNotes = 64 << 10

	noteHeader = 12 // sizes of name and descriptor, type
)

// An elfClass is where an ELF file of a class has its fields.
type elfClass struct {
	machine                          uint16
	word                             int // bytes of an address or offset
	headerSize, progSize             uint64
	phoff, phentsize, phnum          int // in the header
	offset, virt, phys, files, memsz int // in a program header
	align                            int
}

// elfClasses are the classes, by what byte offELFClass says.
var elfClasses = map[byte]elfClass{
	elfClass32: {
		machine: machine386, word: 4, headerSize: 52, progSize: 32,
		phoff: 28, phentsize: 42, phnum: 44,
		offset: 4, virt: 8, phys: 12, files: 16, memsz: 20, align: 28,
	},
	elfClass64: {
		machine: machineX8664, word: 8, headerSize: 64, progSize: 56,
		phoff: 32, phentsize: 54, phnum: 56,
		offset: 8, virt: 16, phys: 24, files: 32, memsz: 40, align: 48,
	},
}

// An elfFile is what the headers of an ELF executable say. Nothing of it is
// checked but that it is there.
type elfFile struct {
	entry uint64
	loads []segment
	notes []elfNotes
}

// An elfNotes is a segment of notes.
type elfNotes struct {
	off, size, align uint64
}

func isELF(s *source) bool { return bytes.HasPrefix(s.head, []byte(elfMagic)) }

// parseELF reads the headers of s, which isELF.
func parseELF(s *source) (*elfFile, error) {
	if len(s.head) < elfIdent {
		return nil, badKernel("%d bytes are too few for an ELF executable", s.size)
	}
	c, ok := elfClasses[s.head[offELFClass]]
	if !ok || s.head[offELFData] != elfLittle {
		return nil, badKernel("ELF class %d, byte order %d: want 32 or 64 bits, little-endian", s.head[offELFClass], s.head[offELFData])
	}
	if uint64(len(s.head)) < c.headerSize {
		return nil, badKernel("%d bytes are too few for an ELF executable", s.size)
	}
	if t, m := le16(s.head, offELFType), le16(s.head, offMachine); t != elfExec || m != c.machine {
		return nil, badKernel("ELF type %d for machine %d: want an executable (%d) for x86 (%d)", t, m, elfExec, c.machine)
	}
	e := &elfFile{entry: word(s.head, offELFEntry, c.word)}
	progs, err := c.programs(s)
	if err != nil {
		return nil, err
	}
	for p := range slices.Chunk(progs, int(c.progSize)) {
		e.add(c, p)
	}
	return e, nil
}

// programs reads the program headers.
func (c elfClass) programs(s *source) ([]byte, error) {
	n, size := uint64(le16(s.head, c.phnum)), uint64(le16(s.head, c.phentsize))
	if n == 0 || n > maxProgs || size != c.progSize {
		return nil, badKernel("%d ELF program headers of %d bytes: want 1 to %d of %d", n, size, maxProgs, c.progSize)
	}
	return s.read("ELF program headers", word(s.head, c.phoff, c.word), n*size)
}

// add takes program header p to e.
func (e *elfFile) add(c elfClass, p []byte) {
	off, files := word(p, c.offset, c.word), word(p, c.files, c.word)
	switch le32(p, 0) {
	case progLoad:
		g := segment{
			off: off, fileSize: files,
			at: word(p, c.phys, c.word), memSize: word(p, c.memsz, c.word), virt: word(p, c.virt, c.word),
		}
		if g.memSize > 0 || g.fileSize > 0 {
			e.loads = append(e.loads, g)
		}
	case progNote:
		e.notes = append(e.notes, elfNotes{off, files, word(p, c.align, c.word)})
	}
}

// note finds the first note of that owner and type and returns its descriptor,
// or nil.
func (e *elfFile) note(s *source, owner string, kind uint32) ([]byte, error) {
	for _, n := range e.notes {
		if n.size > maxNotes {
			return nil, badKernel("%d bytes of ELF notes: at most %d", n.size, maxNotes)
		}
		b, err := s.read("ELF notes", n.off, n.size)
		if err != nil {
			return nil, err
		}
		if desc, err := findNote(b, n.align, owner, kind); desc != nil || err != nil {
			return desc, err
		}
	}
	return nil, nil
}

// findNote is elfFile.note in one segment, whose notes are aligned to 8 bytes
// where it says so, else to 4.
func findNote(b []byte, align uint64, owner string, kind uint32) ([]byte, error) {
	if align != 8 {
		align = 4
	}
	padded := func(n uint32) uint64 { return (uint64(n) + align - 1) &^ (align - 1) }
	for len(b) >= noteHeader {
		nameSize, descSize, typ := le32(b, 0), le32(b, 4), le32(b, 8)
		// The name follows at once: only what comes after it is padded.
		desc := (noteHeader + uint64(nameSize) + align - 1) &^ (align - 1)
		if desc+uint64(descSize) > uint64(len(b)) {
			return nil, badKernel("ELF note with a name of %d bytes and %d more is outside its segment", nameSize, descSize)
		}
		if typ == kind && string(b[noteHeader:noteHeader+uint64(nameSize)]) == owner+"\x00" {
			return b[desc : desc+uint64(descSize)], nil
		}
		b = b[min(desc+padded(descSize), uint64(len(b))):]
	}
	return nil, nil
}
