package fat

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io/fs"
	"strings"
	"unicode/utf16"
)

// Attributes of a directory entry (section 6 of the specification).
const (
	attrVolume    = 0x08
	attrDirectory = 0x10
	attrArchive   = 0x20
	attrLong      = 0x0f
	attrLongMask  = 0x3f
	deleted       = 0xe5
	lastLong      = 0x40
	charsPerLong  = 13
)

// A slot is one 32-byte entry of a directory and where it lies on the device.
type slot struct {
	offset int64
	raw    [entrySize]byte
}

func (s *slot) free() bool      { return s.raw[0] == 0 || s.raw[0] == deleted }
func (s *slot) long() bool      { return s.raw[11]&attrLongMask == attrLong }
func (s *slot) directory() bool { return s.raw[11]&attrDirectory != 0 }
func (s *slot) cluster() int    { return int(binary.LittleEndian.Uint16(s.raw[26:])) }
func (s *slot) size() int64     { return int64(binary.LittleEndian.Uint32(s.raw[28:])) }

func (s *slot) place(cluster int, size int64) {
	binary.LittleEndian.PutUint16(s.raw[26:], uint16(cluster))
	binary.LittleEndian.PutUint32(s.raw[28:], uint32(size))
}

// short is the entry's 8.3 name.
func (s *slot) short() string {
	name := strings.TrimRight(string(s.raw[:8]), " ")
	if ext := strings.TrimRight(string(s.raw[8:11]), " "); ext != "" {
		name += "." + ext
	}
	return name
}

// slots reads a directory: the root's if first is 0.
func (v *Volume) slots(first int) ([]slot, error) {
	type run struct{ at, n int64 }
	runs := []run{{v.rootStart, v.rootSize}}
	if first != 0 {
		clusters, err := v.chain(first)
		if err != nil {
			return nil, err
		}
		if int64(len(clusters))*v.clusterSize > 65536*entrySize {
			return nil, fmt.Errorf("damaged directory: it has %d clusters", len(clusters))
		}
		runs = runs[:0]
		for _, c := range clusters {
			runs = append(runs, run{v.offset(c), v.clusterSize})
		}
	}
	var out []slot
	for _, r := range runs {
		b := make([]byte, r.n)
		if _, err := v.dev.ReadAt(b, r.at); err != nil {
			return nil, fmt.Errorf("read directory: %w", err)
		}
		for i := int64(0); i < r.n; i += entrySize {
			s := slot{offset: r.at + i}
			copy(s.raw[:], b[i:])
			out = append(out, s)
		}
	}
	return out, nil
}

// find looks for name, long or short, without regard to the case of ASCII.
func find(slots []slot, name string) *slot {
	var parts []string
	var sum byte // of the short name that the parts belong to
	for i := range slots {
		s := &slots[i]
		switch {
		case s.raw[0] == 0:
			return nil
		case s.raw[0] == deleted:
			parts = nil
		case s.long():
			if s.raw[0]&lastLong != 0 || s.raw[13] != sum {
				parts = nil
			}
			sum = s.raw[13]
			parts = append([]string{longPart(s)}, parts...)
			if len(parts) > 20 {
				parts = nil
			}
		default:
			long := strings.Join(parts, "")
			if sum != checksum(s.raw) {
				long = "" // left over from another file, by a system that does not know long names
			}
			parts = nil
			if s.raw[11]&attrVolume == 0 && (long != "" && strings.EqualFold(long, name) || strings.EqualFold(s.short(), name)) {
				return s
			}
		}
	}
	return nil
}

// longPart is the piece of a long name in one entry.
func longPart(s *slot) string {
	var u []uint16
	for _, r := range [][2]int{{1, 11}, {14, 26}, {28, 32}} {
		for i := r[0]; i < r[1]; i += 2 {
			c := binary.LittleEndian.Uint16(s.raw[i:])
			if c == 0 {
				return string(utf16.Decode(u))
			}
			u = append(u, c)
		}
	}
	return string(utf16.Decode(u))
}

// lookup finds a path with "/" between its parts.
func (v *Volume) lookup(path string) (*slot, error) {
	dir := 0
	var s *slot
	for part := range strings.SplitSeq(path, "/") {
		if s != nil && !s.directory() {
			return nil, fs.ErrNotExist
		}
		slots, err := v.slots(dir)
		if err != nil {
			return nil, err
		}
		if s = find(slots, part); s == nil {
			return nil, fs.ErrNotExist
		}
		dir = s.cluster()
	}
	return s, nil
}

// newEntries are the entries for a new file or directory: those of its long
// name where the short one does not say it all, then the short one.
func newEntries(slots []slot, name string, attr byte) ([][entrySize]byte, error) {
	for _, r := range name {
		if r <= ' ' || r > '~' || strings.ContainsRune(`"*/:<>?\|`, r) {
			return nil, fmt.Errorf("name %q: want ASCII without blanks and any of \"*/:<>?\\|", name)
		}
	}
	if name == "" || len(name) > 5*charsPerLong {
		return nil, fmt.Errorf("name %q: want 1 to %d bytes", name, 5*charsPerLong)
	}
	alias, exact := shortName(name)
	for n := 1; !exact && find(slots, alias) != nil; n++ {
		if n > 9 {
			return nil, fmt.Errorf("name %q: too many names like it", name)
		}
		alias = strings.Replace(alias, fmt.Sprintf("~%d", n), fmt.Sprintf("~%d", n+1), 1)
	}
	short := rawShort(alias)
	short[11] = attr
	for _, at := range []int{16, 18, 24} {
		binary.LittleEndian.PutUint16(short[at:], epoch)
	}
	if exact {
		return [][entrySize]byte{short}, nil
	}
	return append(longEntries(name, short), short), nil
}

// shortName is the 8.3 name for name and whether that is name itself.
func shortName(name string) (string, bool) {
	base, ext, _ := strings.Cut(name, ".")
	plain := strings.ToUpper(name) == name && len(base) >= 1 && len(base) <= 8 && len(ext) <= 3 &&
		!strings.ContainsAny(name, "+,;=[]") && strings.Count(name, ".") <= 1 && !strings.HasSuffix(name, ".")
	if plain {
		return name, true
	}
	keep := func(s string, n int) string {
		s = strings.Map(func(r rune) rune {
			if strings.ContainsRune("+,;=[].", r) {
				return -1
			}
			return r
		}, strings.ToUpper(s))
		return s[:min(n, len(s))]
	}
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		base, ext = name[:i], name[i+1:]
	}
	alias := keep(base, 6) + "~1"
	if ext = keep(ext, 3); ext != "" {
		alias += "." + ext
	}
	return alias, false
}

func rawShort(alias string) (e [entrySize]byte) {
	base, ext, _ := strings.Cut(alias, ".")
	copy(e[:], padded(base, 8)+padded(ext, 3))
	return e
}

// checksum is that of a short name, by which long entries say whose they are
// (section 7.2).
func checksum(short [entrySize]byte) (sum byte) {
	for _, c := range short[:11] {
		sum = sum>>1 | sum<<7
		sum += c
	}
	return sum
}

func longEntries(name string, short [entrySize]byte) [][entrySize]byte {
	sum := checksum(short)
	n := (len(name) + charsPerLong - 1) / charsPerLong
	out := make([][entrySize]byte, n)
	for i := range n {
		e := &out[n-1-i] // they lie in reverse
		e[0] = byte(i + 1)
		if i == n-1 {
			e[0] |= lastLong
		}
		e[11], e[13] = attrLong, sum
		at := i * charsPerLong
		for _, r := range [][2]int{{1, 11}, {14, 26}, {28, 32}} {
			for j := r[0]; j < r[1]; j, at = j+2, at+1 {
				c := uint16(0xffff)
				switch {
				case at < len(name):
					c = uint16(name[at])
				case at == len(name):
					c = 0
				}
				binary.LittleEndian.PutUint16(e[j:], c)
			}
		}
	}
	return out
}

// vacancy finds n free slots one after the other within a sector, so that one
// write fills them. What follows the end of the directory is free whatever it
// holds.
func vacancy(slots []slot, n int) (int, error) {
	end := endOf(slots)
	for i := 0; i+n <= len(slots); i++ {
		ok := slots[i].offset/sectorSize == slots[i+n-1].offset/sectorSize
		for j := i; ok && j < i+n; j++ {
			ok = j >= end || slots[j].free()
		}
		if ok {
			return i, nil
		}
	}
	return 0, fmt.Errorf("no room in the directory for %d entries", n)
}

// endOf is the index of the entry that ends a directory: the first that has
// never been used.
func endOf(slots []slot) int {
	for i := range slots {
		if slots[i].raw[0] == 0 {
			return i
		}
	}
	return len(slots)
}

// extend prepares slots at to at+n for new entries where they lie behind the
// end of the directory: there is an end behind them too, and those before them
// that stay empty do not end it any more. The directory's contents are the same
// after each step.
func (v *Volume) extend(slots []slot, at, n int) error {
	end := endOf(slots)
	if at+n <= end {
		return nil
	}
	for i := max(at, end); i <= at+n && i < len(slots); i++ {
		if slots[i].raw == [entrySize]byte{} {
			continue
		}
		if err := v.writeSlots(slots[i].offset, make([][entrySize]byte, 1)); err != nil {
			return err
		}
	}
	for i := at - 1; i >= end; i-- {
		if err := v.writeSlots(slots[i].offset, [][entrySize]byte{{deleted}}); err != nil {
			return err
		}
	}
	return nil
}

// writeSlots writes entries that lie one after the other in one sector, with a
// single write of the sector.
func (v *Volume) writeSlots(offset int64, entries [][entrySize]byte) error {
	sector := make([]byte, sectorSize)
	start := offset / sectorSize * sectorSize
	if _, err := v.dev.ReadAt(sector, start); err != nil {
		return fmt.Errorf("read directory: %w", err)
	}
	var b bytes.Buffer
	for _, e := range entries {
		b.Write(e[:])
	}
	copy(sector[offset-start:], b.Bytes())
	if _, err := v.dev.WriteAt(sector, start); err != nil {
		return fmt.Errorf("write directory: %w", err)
	}
	return nil
}
