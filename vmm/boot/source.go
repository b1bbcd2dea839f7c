package boot

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"slices"

	"github.com/ashlar-hv/ashlar/vmm/memory"
)

const (
	// maxImage bounds an image in bytes; real ones have some ten MiB.
	maxImage = 1 << 30
	// headSize is how much of an image says what kind it is: a multiboot header
	// may lie that far in.
	headSize = 8192
)

// A source is the file of an image.
type source struct {
	r    io.ReaderAt
	size uint64
	head []byte // the first headSize bytes, or all
}

func newSource(r io.ReaderAt, size int64) (*source, error) {
	if size <= 0 {
		return nil, badKernel("the file is empty")
	}
	if size > maxImage {
		return nil, badKernel("%d bytes are more than a kernel has", size)
	}
	s := &source{r: r, size: uint64(size)}
	var err error
	s.head, err = s.read("start", 0, min(s.size, headSize))
	return s, err
}

// has says whether all n bytes at off are in the file.
func (s *source) has(off, n uint64) bool { return off <= s.size && n <= s.size-off }

// read returns the n bytes at off; what they are is for the error.
func (s *source) read(what string, off, n uint64) ([]byte, error) {
	if !s.has(off, n) {
		return nil, badKernel("%s: %d bytes at %#x of an image of %d bytes: truncated?", what, n, off, s.size)
	}
	b := make([]byte, n)
	if _, err := s.r.ReadAt(b, int64(off)); err != nil && !errors.Is(err, io.EOF) {
		return nil, badKernel("cannot be read: %v", err)
	}
	return b, nil
}

// A segment is a piece of the image that goes into memory.
type segment struct {
	off, fileSize uint64 // in the file
	at, memSize   uint64 // in memory, where what goes beyond the file's bytes is zero
	virt          uint64 // where the kernel will see it
}

// contains says whether the file has a byte for address a of memory.
func (g segment) contains(a uint64) bool { return a >= g.at && a-g.at < g.fileSize }

// copy brings the segment from f, whose size was checked, into mem.
func (g segment) copy(mem *memory.Memory, f *os.File) error {
	if err := mem.ReadFile(f, int64(g.off), g.at, g.fileSize); err != nil {
		return err
	}
	if g.memSize > g.fileSize {
		return mem.Zero(g.at+g.fileSize, g.memSize-g.fileSize)
	}
	return nil
}

// check checks the segment by itself: its bytes are in the file s, its place is
// between boot data and devices. No sum of at and memSize overflows after it.
func (g segment) check(s *source) error {
	if g.fileSize > 0 && !s.has(g.off, g.fileSize) {
		return badKernel("segment of %d bytes at %#x of an image of %d bytes: truncated?", g.fileSize, g.off, s.size)
	}
	if g.fileSize > g.memSize {
		return badKernel("segment at %#x: %d bytes in the file, %d in memory", g.at, g.fileSize, g.memSize)
	}
	if g.at < highMemory || g.at > memory.LowTop || g.memSize > memory.LowTop-g.at {
		return badKernel("segment of %d bytes at address %#x: want it between 1 MiB and 3 GiB", g.memSize, g.at)
	}
	return nil
}

// checkSegments checks the segments of s, each by itself and against the others,
// and that one of them has the code at rip.
func checkSegments(s *source, segments []segment, rip uint64) error {
	for _, g := range segments {
		if err := g.check(s); err != nil {
			return err
		}
	}
	for i, a := range segments {
		for _, b := range segments[:i] {
			if a.at < b.at+b.memSize && b.at < a.at+a.memSize {
				return badKernel("segments of %d bytes at %#x and of %d at %#x overlap", a.memSize, a.at, b.memSize, b.at)
			}
		}
	}
	if !slices.ContainsFunc(segments, func(g segment) bool { return g.contains(rip) }) {
		return badKernel("entry %#x is outside of what is loaded", rip)
	}
	return nil
}

// placeSegments is image.place for segments that have been checked and cannot
// be moved.
func placeSegments(segments []segment, rip, top uint64) (placement, error) {
	var end uint64
	for _, g := range segments {
		end = max(end, g.at+g.memSize)
	}
	if end > top {
		return placement{}, tooLittle(end)
	}
	return placement{segments: segments, end: end, ceiling: top, rip: rip}, nil
}

func le16(b []byte, off int) uint16 { return binary.LittleEndian.Uint16(b[off:]) }
func le32(b []byte, off int) uint32 { return binary.LittleEndian.Uint32(b[off:]) }
func le64(b []byte, off int) uint64 { return binary.LittleEndian.Uint64(b[off:]) }

// word is le32 or le64, for n of 4 or 8.
func word(b []byte, off, n int) uint64 {
	if n == 4 {
		return uint64(le32(b, off))
	}
	return le64(b, off)
}
