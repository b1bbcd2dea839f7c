package gpt

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"
)

// Read reads the primary table of a disk. Every partition of it lies within
// the first size bytes, no two of them overlap, and the checksums are right.
// The backup is not looked at: on a stick that is larger than the image written
// to it, it is not where it would be looked for.
func Read(r io.ReaderAt, size int64) (*Table, error) {
	if size < FirstUsable*BlockSize {
		return nil, fmt.Errorf("read GPT: %w: only %d bytes", ErrNoTable, size)
	}
	h := make([]byte, BlockSize)
	if _, err := r.ReadAt(h, BlockSize); err != nil {
		return nil, fmt.Errorf("read GPT: %w", err)
	}
	le := binary.LittleEndian
	if string(h[:8]) != "EFI PART" {
		return nil, fmt.Errorf("read GPT: %w", ErrNoTable)
	}
	if !headerSound(h) {
		return nil, fmt.Errorf("read GPT: header is damaged: its checksum does not match")
	}
	count, each := le.Uint32(h[hEntryCount:]), le.Uint32(h[hEntrySize:])
	if count < 1 || count > 1024 || each < entrySize || each > 4096 || each&(each-1) != 0 {
		return nil, fmt.Errorf("read GPT: %d entries of %d bytes make no sense", count, each)
	}
	at := le.Uint64(h[hEntryLBA:])
	if at < 2 || at > uint64(size)/BlockSize {
		return nil, fmt.Errorf("read GPT: entries at block %d lie outside the disk", at)
	}
	entries := make([]byte, int(count)*int(each))
	if _, err := r.ReadAt(entries, int64(at)*BlockSize); err != nil {
		return nil, fmt.Errorf("read GPT: entries: %w", err)
	}
	if crc32.ChecksumIEEE(entries) != le.Uint32(h[hEntryCRC:]) {
		return nil, fmt.Errorf("read GPT: entries are damaged: their checksum does not match")
	}
	t := &Table{}
	copy(t.Disk[:], h[hDiskGUID:])
	if err := t.fill(entries, int(each), uint64(size)/BlockSize); err != nil {
		return nil, err
	}
	return t, nil
}

func headerSound(h []byte) bool {
	le := binary.LittleEndian
	n := le.Uint32(h[hSize:])
	if n < headerSize || n > BlockSize || le.Uint64(h[hMyLBA:]) != 1 {
		return false
	}
	c := append([]byte(nil), h[:n]...)
	le.PutUint32(c[hCRC:], 0)
	return crc32.ChecksumIEEE(c) == le.Uint32(h[hCRC:])
}

// fill reads the entries up to the last one in use; an unused one between them
// is the zero Partition.
func (t *Table) fill(entries []byte, each int, blocks uint64) error {
	le := binary.LittleEndian
	for i := 0; i*each < len(entries); i++ {
		e := entries[i*each:]
		p := Partition{First: le.Uint64(e[32:]), Last: le.Uint64(e[40:])}
		copy(p.Type[:], e)
		copy(p.ID[:], e[16:])
		if p.Type == (GUID{}) {
			continue
		}
		if p.First < 2 || p.Last < p.First {
			return fmt.Errorf("read GPT: partition %d: blocks %d to %d make no sense", i+1, p.First, p.Last)
		}
		if p.Last >= blocks {
			return fmt.Errorf("read GPT: partition %d ends at block %d, the disk at %d: it is cut off", i+1, p.Last, blocks)
		}
		for j, q := range t.Partitions {
			if q.Type != (GUID{}) && p.First <= q.Last && q.First <= p.Last {
				return fmt.Errorf("read GPT: partitions %d and %d overlap", j+1, i+1)
			}
		}
		var name []uint16
		for j := 56; j < 56+2*nameUnits && le.Uint16(e[j:]) != 0; j += 2 {
			name = append(name, le.Uint16(e[j:]))
		}
		p.Name = string(utf16.Decode(name))
		for len(t.Partitions) < i {
			t.Partitions = append(t.Partitions, Partition{})
		}
		t.Partitions = append(t.Partitions, p)
	}
	return nil
}
