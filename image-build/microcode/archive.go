package microcode

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// The archive is of cpio's newc format (Documentation/driver-api/early-userspace/
// buffer-format.rst). The kernel unpacks it into its root, too: what has no folder to lie in
// is left out there, and takes no memory once the host runs. That are the updates.
const (
	folder      = "microcode"
	pathPrefix  = "kernel/x86/microcode/" // and the vendor, and .bin
	cpioMagic   = "070701"
	cpioHeader  = 110
	trailer     = "TRAILER!!!"
	archiveUnit = 512
	// dataAlign is what Intel's processors want of an update (SDM 3A, 11.11.6), which the
	// kernel gives to the first one where it lies.
	dataAlign = 16
	modeFile  = 0o100644
	modeDir   = 0o040755
)

// A Set is what an image gets.
type Set struct {
	// Intel and AMD are files of the makers, each one behind the other.
	Intel, AMD []byte
	// Sources are names and versions of the packages that they come from.
	Sources []string
	// Licences are texts that have to go with them, by the file names they get.
	Licences map[string][]byte
}

// contents are those of s, where it is sound.
func (s Set) contents() (Contents, error) {
	c := Contents{Sources: s.Sources}
	for _, part := range []struct {
		b     []byte
		parse func([]byte) ([]Update, error)
	}{{s.Intel, ParseIntel}, {s.AMD, ParseAMD}} {
		list, err := part.parse(part.b)
		if err != nil {
			return Contents{}, err
		}
		c.add(list)
	}
	if n := len(s.Intel) + len(s.AMD); n > MaxSize {
		return Contents{}, fmt.Errorf("%d bytes of microcode, want %d at most", n, MaxSize)
	}
	return c, nil
}

// Archive is what goes in front of an initramfs. The same set makes the same bytes.
func (s Set) Archive() ([]byte, error) {
	c, err := s.contents()
	if err != nil {
		return nil, fmt.Errorf("make microcode archive: %w", err)
	}
	w := &writer{}
	w.entry(folder, modeDir, nil, 1)
	w.entry(folder+"/"+ContentsFile, modeFile, c.marshal(), 1)
	for _, name := range sortedKeys(s.Licences) {
		w.entry(folder+"/"+name, modeFile, s.Licences[name], 1)
	}
	w.entry(pathPrefix+string(Intel)+".bin", modeFile, s.Intel, dataAlign)
	w.entry(pathPrefix+string(AMD)+".bin", modeFile, s.AMD, dataAlign)
	w.entry(trailer, 0, nil, 1)
	w.pad(archiveUnit)
	return w.Bytes(), nil
}

// A writer makes an archive.
type writer struct {
	bytes.Buffer
	files int
}

// entry adds a file or folder whose data lies at a multiple of align: its name is followed
// by as many zeros as that needs.
func (w *writer) entry(name string, mode int, data []byte, align int) {
	w.pad(4)
	size := len(name) + 1
	size += (align - (w.Len()+cpioHeader+size)%align) % align
	links := 1
	if mode == modeDir {
		links = 2
	}
	if name != trailer {
		w.files++
	}
	fmt.Fprintf(w, "%s%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		cpioMagic, w.files, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, size, 0)
	w.WriteString(name)
	w.Write(make([]byte, size-len(name)))
	w.pad(4)
	w.Write(data)
}

func (w *writer) pad(to int) { w.Write(make([]byte, (to-w.Len()%to)%to)) }

// ErrNone says that an initramfs does not begin with an archive that Set.Archive made.
var ErrNone = errors.New("no microcode")

// Read takes an initramfs apart: what its archive of microcode has, checked again, and how
// many bytes that takes in front of everything else.
func Read(initramfs []byte) (c Contents, size int, err error) {
	files := make(map[string][]byte)
	off := 0
	for {
		name, data, next, err := readEntry(initramfs, off)
		if err != nil {
			return Contents{}, 0, fmt.Errorf("%w: %w", ErrNone, err)
		}
		off = next
		if name == trailer {
			break
		}
		files[name] = data
	}
	size = (off + archiveUnit - 1) / archiveUnit * archiveUnit
	text, ok := files[folder+"/"+ContentsFile]
	if !ok || size > len(initramfs) {
		return Contents{}, 0, ErrNone
	}
	if c, err = ParseContents(text); err != nil {
		return Contents{}, 0, err
	}
	found, err := Set{Intel: files[pathPrefix+string(Intel)+".bin"], AMD: files[pathPrefix+string(AMD)+".bin"], Sources: c.Sources}.contents()
	if err != nil {
		return Contents{}, 0, err
	}
	if !bytes.Equal(found.marshal(), text) {
		return Contents{}, 0, errors.New("microcode: the list of contents is not what is there")
	}
	return c, size, nil
}

// readEntry reads the entry at off; next is where another one may be.
func readEntry(b []byte, off int) (name string, data []byte, next int, err error) {
	off = (off + 3) &^ 3
	if off > len(b) || len(b)-off < cpioHeader || string(b[off:off+len(cpioMagic)]) != cpioMagic {
		return "", nil, 0, fmt.Errorf("no cpio entry at byte %d", off)
	}
	number := func(field int) int {
		v, perr := strconv.ParseUint(string(b[off+6+8*field:][:8]), 16, 32)
		if perr != nil {
			err = fmt.Errorf("cpio entry at byte %d: %w", off, perr)
		}
		return int(v)
	}
	dataSize, nameSize := number(6), number(11)
	if err != nil {
		return "", nil, 0, err
	}
	start := (off + cpioHeader + nameSize + 3) &^ 3
	if nameSize < 1 || start > len(b) || dataSize > len(b)-start {
		return "", nil, 0, fmt.Errorf("cpio entry at byte %d is cut off", off)
	}
	named, _, _ := bytes.Cut(b[off+cpioHeader:][:nameSize], []byte{0})
	return string(named), b[start:][:dataSize], start + dataSize, nil
}
