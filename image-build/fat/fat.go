// Package fat makes, reads and carefully changes FAT16 file systems, those of
// an image's partitions.
//
// It follows Microsoft's "FAT: General Overview of On-Disk Format" (version
// 1.03), which every UEFI firmware and every operating system reads. FAT16 and
// not FAT32, as the latter needs 65,525 clusters and so more than the 32 MiB
// that an image may have; the UEFI specification wants it from removable media
// (section 13.3).
//
// Nothing depends on the clock: every time stamp is the first of 1980.
package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Sizes and limits of the format as it is used here, in bytes where not said.
const (
	sectorSize  = 512
	entrySize   = 32
	rootEntries = 512
	minClusters = 4085
	maxClusters = 65524
	endOfChain  = 0xffff
	badCluster  = 0xfff7
	// epoch is 1980-01-01 as a FAT date.
	epoch = 1<<5 | 1
)

// Offsets in the boot sector (section 3 of the specification).
const (
	bpbBytesPerSector    = 11
	bpbSectorsPerCluster = 13
	bpbReserved          = 14
	bpbFATs              = 16
	bpbRootEntries       = 17
	bpbSectors16         = 19
	bpbMedia             = 21
	bpbFATSectors        = 22
	bpbSectorsPerTrack   = 24
	bpbHeads             = 26
	bpbHidden            = 28
	bpbSectors32         = 32
	bsDrive              = 36
	bsSignature          = 38
	bsVolumeID           = 39
	bsLabel              = 43
	bsType               = 54
	bsEnd                = 510
)

// ErrNotFAT16 is what Open returns for anything but a FAT16 file system.
var ErrNotFAT16 = errors.New("not a FAT16 file system")

// A Device is where a file system lies. If it has a method Sync() error, it is
// called between steps whose order matters.
type Device interface {
	io.ReaderAt
	io.WriterAt
}

// Options are what the caller of Format chooses.
type Options struct {
	// Label is 1 to 11 bytes of A-Z, 0-9 and "-".
	Label string
	// ID is the volume's serial number.
	ID uint32
	// ClusterSize is a power of two from 512 to 32768 bytes.
	ClusterSize int
	// Hidden is how many sectors of the disk lie before the file system.
	Hidden uint32
}

// A Volume is an open file system. One goroutine at a time may use it.
type Volume struct {
	dev         Device
	clusterSize int64
	fats        int
	fatStart    int64 // byte offsets in dev
	fatSize     int64
	rootStart   int64
	rootSize    int64
	dataStart   int64
	clusters    int    // numbered from 2
	table       []byte // the first FAT
	label       string
}

// Format makes an empty file system on the first size bytes of dev.
func Format(dev Device, size int64, o Options) error {
	boot, err := bootSector(size, o)
	if err != nil {
		return fmt.Errorf("format FAT16: %w", err)
	}
	v := &Volume{dev: dev}
	if err := v.geometry(boot, size); err != nil {
		return fmt.Errorf("format FAT16: %w", err)
	}
	front := make([]byte, v.dataStart)
	copy(front, boot)
	for i := range int64(v.fats) {
		binary.LittleEndian.PutUint32(front[v.fatStart+i*v.fatSize:], 0xfffffff8)
	}
	label := front[v.rootStart:]
	copy(label, padded(o.Label, 11))
	label[11] = attrVolume
	binary.LittleEndian.PutUint16(label[24:], epoch)
	if _, err := dev.WriteAt(front, 0); err != nil {
		return fmt.Errorf("format FAT16: %w", err)
	}
	return nil
}

func bootSector(size int64, o Options) ([]byte, error) {
	if o.Label == "" || len(o.Label) > 11 || strings.Trim(o.Label, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != "" {
		return nil, fmt.Errorf("label %q: want 1 to 11 of A-Z, 0-9 and \"-\"", o.Label)
	}
	c := o.ClusterSize
	if c < sectorSize || c > 32768 || c&(c-1) != 0 {
		return nil, fmt.Errorf("cluster size %d: want a power of two from 512 to 32768", c)
	}
	sectors := size / sectorSize
	perCluster := int64(c / sectorSize)
	// Each cluster takes two bytes of a FAT; two entries more are reserved.
	// As if there were no FATs the number is a little too high, which is harmless.
	const front = 1 + rootEntries*entrySize/sectorSize
	if sectors <= front || sectors > 1<<32-1 {
		return nil, fmt.Errorf("size %d bytes: no place for a file system", size)
	}
	fatSectors := (2*((sectors-front)/perCluster+2) + sectorSize - 1) / sectorSize
	if fatSectors > 0xffff {
		return nil, fmt.Errorf("size %d bytes: too large for clusters of %d bytes", size, c)
	}
	le := binary.LittleEndian
	b := make([]byte, sectorSize)
	copy(b, "\xeb\x3c\x90ASHLAR  ")
	le.PutUint16(b[bpbBytesPerSector:], sectorSize)
	b[bpbSectorsPerCluster] = byte(perCluster)
	le.PutUint16(b[bpbReserved:], 1)
	b[bpbFATs] = 2
	le.PutUint16(b[bpbRootEntries:], rootEntries)
	b[bpbMedia] = 0xf8
	le.PutUint16(b[bpbFATSectors:], uint16(fatSectors))
	le.PutUint16(b[bpbSectorsPerTrack:], 63)
	le.PutUint16(b[bpbHeads:], 255)
	le.PutUint32(b[bpbHidden:], o.Hidden)
	if sectors < 0x10000 {
		le.PutUint16(b[bpbSectors16:], uint16(sectors))
	} else {
		le.PutUint32(b[bpbSectors32:], uint32(sectors))
	}
	b[bsDrive] = 0x80
	b[bsSignature] = 0x29
	le.PutUint32(b[bsVolumeID:], o.ID)
	copy(b[bsLabel:], padded(o.Label, 11))
	copy(b[bsType:], "FAT16   ")
	copy(b[62:], "\xf4\xeb\xfd") // nothing to boot: halt
	le.PutUint16(b[bsEnd:], 0xaa55)
	return b, nil
}

// Open reads the file system on the first size bytes of dev.
func Open(dev Device, size int64) (*Volume, error) {
	boot := make([]byte, sectorSize)
	if _, err := dev.ReadAt(boot, 0); err != nil {
		return nil, fmt.Errorf("open FAT16: read boot sector: %w", err)
	}
	v := &Volume{dev: dev}
	if err := v.geometry(boot, size); err != nil {
		return nil, fmt.Errorf("open FAT16: %w", err)
	}
	v.table = make([]byte, 2*(v.clusters+2))
	if _, err := dev.ReadAt(v.table, v.fatStart); err != nil {
		return nil, fmt.Errorf("open FAT16: read FAT: %w", err)
	}
	if err := v.readLabel(); err != nil {
		return nil, fmt.Errorf("open FAT16: %w", err)
	}
	return v, nil
}

// geometry takes the sizes from a boot sector and checks them against each
// other and the device's size.
func (v *Volume) geometry(b []byte, size int64) error {
	le := binary.LittleEndian
	if le.Uint16(b[bsEnd:]) != 0xaa55 || le.Uint16(b[bpbBytesPerSector:]) != sectorSize {
		return ErrNotFAT16
	}
	perCluster := int64(b[bpbSectorsPerCluster])
	reserved := int64(le.Uint16(b[bpbReserved:]))
	v.fats = int(b[bpbFATs])
	fatSectors := int64(le.Uint16(b[bpbFATSectors:]))
	root := int64(le.Uint16(b[bpbRootEntries:]))
	sectors := int64(le.Uint16(b[bpbSectors16:]))
	if sectors == 0 {
		sectors = int64(le.Uint32(b[bpbSectors32:]))
	}
	if perCluster == 0 || perCluster&(perCluster-1) != 0 || perCluster > 64 || reserved == 0 ||
		v.fats < 1 || v.fats > 2 || fatSectors == 0 || root == 0 || root*entrySize%sectorSize != 0 {
		return ErrNotFAT16
	}
	if sectors*sectorSize > size {
		return fmt.Errorf("file system of %d bytes in a place of %d: it is cut off", sectors*sectorSize, size)
	}
	v.clusterSize = perCluster * sectorSize
	v.fatStart = reserved * sectorSize
	v.fatSize = fatSectors * sectorSize
	v.rootStart = v.fatStart + int64(v.fats)*v.fatSize
	v.rootSize = root * entrySize
	v.dataStart = v.rootStart + v.rootSize
	clusters := (sectors*sectorSize - v.dataStart) / v.clusterSize
	if clusters < minClusters || clusters > maxClusters || 2*(clusters+2) > v.fatSize {
		return ErrNotFAT16
	}
	v.clusters = int(clusters)
	return nil
}

// Label is the volume label in the root directory.
func (v *Volume) Label() string { return v.label }

func (v *Volume) readLabel() error {
	slots, err := v.slots(0)
	if err != nil {
		return err
	}
	for _, s := range slots {
		if s.raw[0] == 0 {
			break
		}
		if s.raw[0] != deleted && s.raw[11]&attrLongMask != attrLong && s.raw[11]&attrVolume != 0 {
			v.label = strings.TrimRight(string(s.raw[:11]), " ")
			break
		}
	}
	return nil
}

func (v *Volume) sync() error {
	if s, ok := v.dev.(interface{ Sync() error }); ok {
		return s.Sync()
	}
	return nil
}

func padded(s string, n int) string { return s + strings.Repeat(" ", n-len(s)) }
