package fat

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
)

// ReadFile reads the file at name, "EFI/BOOT/BOOTX64.EFI"; names are found
// whatever their case. A file larger than most bytes is an error. It is
// fs.ErrNotExist where there is none.
func (v *Volume) ReadFile(name string, most int64) ([]byte, error) {
	s, err := v.lookup(name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if s.directory() {
		return nil, fmt.Errorf("read %s: is a directory", name)
	}
	if s.size() > most {
		return nil, fmt.Errorf("read %s: is %d bytes, want %d at most", name, s.size(), most)
	}
	b, err := v.load(s.cluster(), s.size())
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

// WriteFile makes or replaces the file at name, whose directory is there.
//
// A power cut at any point leaves the old file or the new one: the contents go
// to free clusters, and a single write of one sector of the directory makes
// them the file's. In the worst case the clusters of the other one stay taken,
// which a file system check gives back.
func (v *Volume) WriteFile(name string, data []byte) error {
	if err := v.writeFile(name, data); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

func (v *Volume) writeFile(name string, data []byte) error {
	old, err := v.lookup(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if old != nil && old.directory() {
		return errors.New("is a directory")
	}
	var replaced []int
	if old != nil {
		if replaced, err = v.chain(old.cluster()); err != nil {
			return err
		}
	}
	clusters, err := v.store(data)
	if err != nil {
		return err
	}
	if err := v.sync(); err != nil {
		return err
	}
	if old != nil {
		old.place(firstOf(clusters), int64(len(data)))
		err = v.writeSlots(old.offset, [][entrySize]byte{old.raw})
	} else {
		err = v.add(name, attrArchive, firstOf(clusters), int64(len(data)))
	}
	if err != nil {
		v.release(clusters)
		return errors.Join(err, v.flush(clusters))
	}
	if err := v.sync(); err != nil {
		return err
	}
	v.release(replaced)
	if err := v.flush(replaced); err != nil {
		return err
	}
	return v.sync()
}

// add makes a directory entry.
func (v *Volume) add(name string, attr byte, cluster int, size int64) error {
	dir := 0
	if parent := path.Dir(name); parent != "." {
		s, err := v.lookup(parent)
		if err != nil {
			return fmt.Errorf("directory %s: %w", parent, err)
		}
		if !s.directory() {
			return fmt.Errorf("directory %s: is a file", parent)
		}
		dir = s.cluster()
	}
	slots, err := v.slots(dir)
	if err != nil {
		return err
	}
	entries, err := newEntries(slots, path.Base(name), attr)
	if err != nil {
		return err
	}
	at, err := vacancy(slots, len(entries))
	if err != nil {
		return err
	}
	if err := v.extend(slots, at, len(entries)); err != nil {
		return err
	}
	last := slot{raw: entries[len(entries)-1]}
	last.place(cluster, size)
	entries[len(entries)-1] = last.raw
	return v.writeSlots(slots[at].offset, entries)
}

// Mkdir makes the directory at name, whose parent is there.
func (v *Volume) Mkdir(name string) error {
	if _, err := v.lookup(name); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("make directory %s: %w", name, errors.Join(err, fs.ErrExist))
	}
	parent := 0
	if p := path.Dir(name); p != "." {
		s, err := v.lookup(p)
		if err != nil {
			return fmt.Errorf("make directory %s: %w", name, err)
		}
		parent = s.cluster()
	}
	clusters, err := v.store(make([]byte, v.clusterSize))
	if err != nil {
		return fmt.Errorf("make directory %s: %w", name, err)
	}
	self, up := rawShort(""), rawShort("")
	self[0] = '.'
	up[0], up[1] = '.', '.'
	entries := [][entrySize]byte{dotEntry(self, clusters[0]), dotEntry(up, parent)}
	if err := v.writeSlots(v.offset(clusters[0]), entries); err != nil {
		return fmt.Errorf("make directory %s: %w", name, err)
	}
	if err := v.add(name, attrDirectory, clusters[0], 0); err != nil {
		return fmt.Errorf("make directory %s: %w", name, err)
	}
	return nil
}

func dotEntry(e [entrySize]byte, cluster int) [entrySize]byte {
	s := slot{raw: e}
	s.raw[11] = attrDirectory
	for _, at := range []int{16, 18, 24} {
		s.raw[at], s.raw[at+1] = epoch, 0
	}
	s.place(cluster, 0)
	return s.raw
}

func firstOf(clusters []int) int {
	if len(clusters) == 0 {
		return 0
	}
	return clusters[0]
}
