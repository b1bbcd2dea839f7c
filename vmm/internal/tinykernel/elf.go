package tinykernel

import "encoding/binary"

// An ELF is an ELF executable (System V ABI, chapters 4 and 5) under construction.
type ELF struct {
	Bits     int // 32 or 64
	Entry    uint64
	Segments []Segment
	Notes    []byte // nil: no segment for them
}

// A Segment is one that is loaded.
type Segment struct {
	Addr, Virt uint64 // physical, virtual
	Data       []byte
	Zeros      uint64 // bytes after Data
}

// An elfWriter appends fields of an ELF file of 32 or 64 bits.
type elfWriter struct {
	b    []byte
	bits int
}

func (w *elfWriter) half(vs ...uint16) {
	for _, v := range vs {
		w.b = binary.LittleEndian.AppendUint16(w.b, v)
	}
}

func (w *elfWriter) word(v uint32) { w.b = binary.LittleEndian.AppendUint32(w.b, v) }

// addr appends addresses, offsets and sizes.
func (w *elfWriter) addr(vs ...uint64) {
	for _, v := range vs {
		if w.bits == 32 {
			w.word(uint32(v))
		} else {
			w.b = binary.LittleEndian.AppendUint64(w.b, v)
		}
	}
}

// prog appends a program header.
func (w *elfWriter) prog(kind uint32, off uint64, s Segment, align uint64) {
	const flags = 7
	n := uint64(len(s.Data))
	w.word(kind)
	if w.bits == 64 {
		w.word(flags)
	}
	w.addr(off, s.Virt, s.Addr, n, n+s.Zeros)
	if w.bits == 32 {
		w.word(flags)
	}
	w.addr(align)
}

// Image is the file: headers, the notes, the segments.
func (e ELF) Image() []byte {
	class, machine, header, prog := byte(2), uint16(62), uint16(64), uint16(56)
	if e.Bits == 32 {
		class, machine, header, prog = 1, 3, 52, 32
	}
	progs := len(e.Segments)
	if e.Notes != nil {
		progs++
	}
	w := &elfWriter{b: make([]byte, 16), bits: e.Bits}
	copy(w.b, "\x7fELF")
	w.b[4], w.b[5], w.b[6] = class, 1, 1 // little-endian, current version
	w.half(2, machine)
	w.word(1)
	w.addr(e.Entry, uint64(header), 0)
	w.word(0)
	w.half(header, prog, uint16(progs), 0, 0, 0)
	off := uint64(header) + uint64(progs)*uint64(prog)
	if e.Notes != nil {
		w.prog(4, off, Segment{Data: e.Notes}, 4)
		off += uint64(len(e.Notes))
	}
	for _, s := range e.Segments {
		w.prog(1, off, s, 0x1000)
		off += uint64(len(s.Data))
	}
	w.b = append(w.b, e.Notes...)
	for _, s := range e.Segments {
		w.b = append(w.b, s.Data...)
	}
	return w.b
}

// Note is an ELF note.
func Note(owner string, kind uint32, desc []byte) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, uint32(len(owner)+1))
	b = le.AppendUint32(b, uint32(len(desc)))
	b = le.AppendUint32(b, kind)
	for _, part := range [][]byte{append([]byte(owner), 0), desc} {
		b = append(b, part...)
		b = append(b, make([]byte, -len(part)&3)...)
	}
	return b
}

// PVH is an ELF64 executable whose PVH entry is code, 32 bits, at Pref.
func PVH(code []byte) ELF {
	return ELF{
		Bits:     64,
		Segments: []Segment{{Addr: Pref, Virt: Pref, Data: code, Zeros: 4096}},
		Notes: append(Note("GNU", 3, []byte("build")),
			Note("Xen", 18, binary.LittleEndian.AppendUint64(nil, Pref))...),
	}
}

// MultibootHeader is the header of a multiboot image (Multiboot Specification
// 0.6.96 section 3.1); fields are those after the checksum.
func MultibootHeader(flags uint32, fields ...uint32) []byte {
	const magic = 0x1badb002
	var b []byte
	for _, v := range append([]uint32{magic, flags, -(magic + flags)}, fields...) {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

// Multiboot is a multiboot image with addresses in its header, which is loaded
// at Pref. Its entry is code, 32 bits, after the header.
func Multiboot(code []byte) []byte {
	const (
		addresses = 1 << 16
		size      = 32
	)
	end := uint32(Pref + size + len(code))
	return append(MultibootHeader(addresses|3, Pref, Pref, end, end+4096, Pref+size), code...)
}

// MultibootELF is a multiboot image in an ELF executable of 32 or 64 bits, whose
// code, 32 bits, is at Pref.
func MultibootELF(bits int, code []byte) ELF {
	const header = 16
	return ELF{
		Bits: bits, Entry: Pref + header,
		Segments: []Segment{{Addr: Pref, Virt: Pref, Data: append(MultibootHeader(3, 0), code...), Zeros: 4096}},
	}
}
