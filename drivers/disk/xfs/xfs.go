// Package xfs makes and recognises XFS file systems, version 5 of the on-disk
// format. The host formats its data disk with it at first boot and so needs no
// mkfs program.
//
// It follows "XFS Algorithms & Data Structures" (xfs_filesystem_structure) and
// the kernel's fs/xfs/libxfs/xfs_format.h. Everything on disk is big endian,
// but for the checksums, which are little endian CRC-32C.
package xfs

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// Bounds of the device sizes that Format accepts, in bytes.
const (
	MinSize = 300 << 20
	MaxSize = 100 << 40
)

// Unfinished is what the first sector of a device begins with while Format is at
// work on it, and after one that was cut off: what lies there is of no worth.
const Unfinished = "ashlar: this disk is being formatted\n"

// ErrNotXFS is what Probe returns for a device without an XFS superblock.
var ErrNotXFS = errors.New("no XFS file system")

// Options are what the caller chooses about a new file system.
type Options struct {
	// Label is up to 12 bytes long; it may be empty.
	Label string
	// UUID identifies the file system; it must not be all zero.
	UUID [16]byte
}

// Info is what Probe reads from a superblock.
type Info struct {
	Label string
	UUID  [16]byte
	// Size is the size of the file system in bytes, log included.
	Size int64
	// BlockSize is in bytes.
	BlockSize int
	// Reflink says whether files can share blocks.
	Reflink bool
}

// Format makes an empty XFS file system on the first size bytes of f, a block
// device or a file of at least that size. What was there is lost. The
// superblock is written last, after everything else is on the disk, so that a
// device whose formatting was cut off is not taken for a file system. Until then
// Unfinished is in its place.
//
// Files share blocks (reflink), directories know the types of their entries,
// and time stamps reach the year 2486. The sectors are the device's physical
// ones where those have 512 or 4096 bytes.
func Format(f *os.File, size int64, o Options) error {
	sector, err := sectorSize(f)
	if err != nil {
		return fmt.Errorf("format %s with XFS: %w", f.Name(), err)
	}
	if err := format(f, size, sector, o, time.Now()); err != nil {
		return fmt.Errorf("format %s with XFS: %w", f.Name(), err)
	}
	return nil
}

func format(f *os.File, size int64, sector int, o Options, now time.Time) error {
	if len(o.Label) > labelSize || strings.ContainsRune(o.Label, 0) {
		return fmt.Errorf("label %q: want up to %d bytes", o.Label, labelSize)
	}
	if o.UUID == [16]byte{} {
		return errors.New("the UUID is all zero: make a random one")
	}
	g, err := newGeometry(size, sector)
	if err != nil {
		return err
	}
	m := &maker{f: f, geometry: g, options: o, now: now}
	for _, step := range []func() error{m.wipe, m.groups, m.inodes, m.log, f.Sync, m.superblock, f.Sync} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// A maker writes one file system.
type maker struct {
	geometry
	f       *os.File
	options Options
	now     time.Time
}

// write puts b at a block of an allocation group, offset bytes into it.
func (m *maker) write(b []byte, group int, block uint32, offset int64) error {
	at := (int64(group)*int64(m.groupBlocks)+int64(block))*blockSize + offset
	if _, err := m.f.WriteAt(b, at); err != nil {
		return fmt.Errorf("allocation group %d, block %d: %w", group, block, err)
	}
	return nil
}

// wipe removes what says that the device holds something else: partition
// tables, volume managers and file systems leave their marks at the ends.
func (m *maker) wipe() error {
	const margin = 1 << 20
	for _, at := range []int64{0, m.size - margin} {
		b := make([]byte, margin)
		if at == 0 {
			copy(b, Unfinished)
		}
		if _, err := m.f.WriteAt(b, at); err != nil {
			return fmt.Errorf("wipe: %w", err)
		}
	}
	return m.f.Sync()
}
