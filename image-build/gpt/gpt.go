// Package gpt writes and reads GUID partition tables.
//
// It follows the UEFI specification 2.10, section 5, for disks with blocks of
// 512 bytes: a protective MBR, a primary table at the front and a backup at the
// end. Everything on disk is little endian.
package gpt

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"unicode/utf16"
)

// Sizes of the format.
const (
	BlockSize   = 512
	entryCount  = 128
	entrySize   = 128
	tableBlocks = entryCount * entrySize / BlockSize
	headerSize  = 92
	nameUnits   = 36
	// FirstUsable is the first block behind the primary table, Reserved the
	// number of blocks that the backup table takes at the end.
	FirstUsable = 2 + tableBlocks
	Reserved    = 1 + tableBlocks
)

// Offsets in the header (table 5-5).
const (
	hRevision     = 8
	hSize         = 12
	hCRC          = 16
	hMyLBA        = 24
	hAlternateLBA = 32
	hFirstUsable  = 40
	hLastUsable   = 48
	hDiskGUID     = 56
	hEntryLBA     = 72
	hEntryCount   = 80
	hEntrySize    = 84
	hEntryCRC     = 88
)

// ErrNoTable is what Read returns for a disk without a GUID partition table.
var ErrNoTable = errors.New("no GUID partition table")

// GUID is a GUID as it lies on disk: its first three groups little endian.
type GUID [16]byte

// Partition types.
var (
	EFISystem = MustGUID("C12A7328-F81F-11D2-BA4B-00A0C93EC93B")
	BasicData = MustGUID("EBD0A0A2-B9E5-4433-87C0-68B6B72699C7")
)

// MustGUID reads the usual text form of a constant; it panics if s is none.
func MustGUID(s string) GUID {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != 16 {
		panic("not a GUID: " + s)
	}
	return GUID{b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]}
}

// String is the usual text form.
func (g GUID) String() string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08X-%04X-%04X-%X-%X", le.Uint32(g[:]), le.Uint16(g[4:]), le.Uint16(g[6:]), g[8:10], g[10:])
}

// Partition is one entry of the table. First and Last are blocks, inclusive.
type Partition struct {
	Type, ID    GUID
	First, Last uint64
	// Name has up to 36 UTF-16 units.
	Name string
}

// Offset is where the partition begins, in bytes.
func (p Partition) Offset() int64 { return int64(p.First) * BlockSize }

// Size is the partition's size in bytes.
func (p Partition) Size() int64 { return int64(p.Last-p.First+1) * BlockSize }

// Table is a disk's partitions. A partition's number is its index plus one.
type Table struct {
	Disk       GUID
	Partitions []Partition
}

// Write writes the table to a disk of size bytes, a multiple of BlockSize.
// boot is up to 440 bytes of code for firmware that is older than UEFI.
func (t *Table) Write(w io.WriterAt, size int64, boot []byte) error {
	blocks := uint64(size / BlockSize)
	if err := t.check(blocks); err != nil {
		return fmt.Errorf("write GPT: %w", err)
	}
	if len(boot) > 440 {
		return fmt.Errorf("write GPT: boot code of %d bytes, want 440 at most", len(boot))
	}
	entries := t.entries()
	front := make([]byte, FirstUsable*BlockSize)
	protectiveMBR(front, boot, blocks)
	copy(front[BlockSize:], t.header(entries, blocks, 1, blocks-1, 2))
	copy(front[2*BlockSize:], entries)
	back := make([]byte, Reserved*BlockSize)
	copy(back, entries)
	copy(back[tableBlocks*BlockSize:], t.header(entries, blocks, blocks-1, 1, blocks-Reserved))
	if _, err := w.WriteAt(back, size-int64(len(back))); err != nil {
		return fmt.Errorf("write GPT: %w", err)
	}
	if _, err := w.WriteAt(front, 0); err != nil {
		return fmt.Errorf("write GPT: %w", err)
	}
	return nil
}

func (t *Table) check(blocks uint64) error {
	if blocks < FirstUsable+Reserved || len(t.Partitions) > entryCount {
		return fmt.Errorf("%d partitions on %d blocks: no place", len(t.Partitions), blocks)
	}
	next := uint64(FirstUsable)
	for i, p := range t.Partitions {
		if p.First < next || p.Last < p.First || p.Last >= blocks-Reserved {
			return fmt.Errorf("partition %d: blocks %d to %d overlap or lie outside %d to %d", i+1, p.First, p.Last, next, blocks-Reserved-1)
		}
		if n := len(utf16.Encode([]rune(p.Name))); n > nameUnits {
			return fmt.Errorf("partition %d: name %q is %d units long, want %d at most", i+1, p.Name, n, nameUnits)
		}
		next = p.Last + 1
	}
	return nil
}

func (t *Table) entries() []byte {
	le := binary.LittleEndian
	b := make([]byte, entryCount*entrySize)
	for i, p := range t.Partitions {
		e := b[i*entrySize:]
		copy(e, p.Type[:])
		copy(e[16:], p.ID[:])
		le.PutUint64(e[32:], p.First)
		le.PutUint64(e[40:], p.Last)
		for j, u := range utf16.Encode([]rune(p.Name)) {
			le.PutUint16(e[56+2*j:], u)
		}
	}
	return b
}

func (t *Table) header(entries []byte, blocks, my, alternate, entryLBA uint64) []byte {
	le := binary.LittleEndian
	h := make([]byte, BlockSize)
	copy(h, "EFI PART")
	le.PutUint32(h[hRevision:], 0x10000)
	le.PutUint32(h[hSize:], headerSize)
	le.PutUint64(h[hMyLBA:], my)
	le.PutUint64(h[hAlternateLBA:], alternate)
	le.PutUint64(h[hFirstUsable:], FirstUsable)
	le.PutUint64(h[hLastUsable:], blocks-Reserved-1)
	copy(h[hDiskGUID:], t.Disk[:])
	le.PutUint64(h[hEntryLBA:], entryLBA)
	le.PutUint32(h[hEntryCount:], entryCount)
	le.PutUint32(h[hEntrySize:], entrySize)
	le.PutUint32(h[hEntryCRC:], crc32.ChecksumIEEE(entries))
	le.PutUint32(h[hCRC:], crc32.ChecksumIEEE(h[:headerSize]))
	return h
}

// protectiveMBR fills the first block (section 5.2.3).
func protectiveMBR(b, boot []byte, blocks uint64) {
	copy(b, boot)
	p := b[446:]
	copy(p, []byte{0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff})
	binary.LittleEndian.PutUint32(p[8:], 1)
	binary.LittleEndian.PutUint32(p[12:], uint32(min(blocks-1, 0xffffffff)))
	b[510], b[511] = 0x55, 0xaa
}
