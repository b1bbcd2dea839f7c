package xfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Offsets in the superblock (struct xfs_dsb in xfs_format.h).
const (
	sbMagic       = 0   // be32 "XFSB"
	sbBlockSize   = 4   // be32
	sbDataBlocks  = 8   // be64
	sbUUID        = 32  // 16 bytes
	sbVersion     = 100 // be16, low four bits are the version
	sbSectorSize  = 102 // be16
	sbLabel       = 108 // 12 bytes
	sbROCompat    = 212 // be32
	sbCRC         = 224 // le32
	sbSize        = 264 // up to and including sb_meta_uuid
	sectorSizeMax = 32768
)

const roCompatReflink = 1 << 2

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Probe reads the superblock of r. It returns ErrNotXFS where there is none,
// and another error where there is one that is damaged or older than
// version 5.
func Probe(r io.ReaderAt) (*Info, error) {
	sector := make([]byte, sectorSizeMax)
	n, err := r.ReadAt(sector, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read XFS superblock: %w", err)
	}
	return probe(sector[:n])
}

func probe(b []byte) (*Info, error) {
	if len(b) < sbSize || !bytes.Equal(b[sbMagic:sbMagic+4], []byte("XFSB")) {
		return nil, ErrNotXFS
	}
	if v := binary.BigEndian.Uint16(b[sbVersion:]) & 0xf; v != 5 {
		return nil, fmt.Errorf("probe XFS superblock: version %d of the format, only 5 is supported", v)
	}
	sector := int(binary.BigEndian.Uint16(b[sbSectorSize:]))
	if sector < 512 || sector > sectorSizeMax || sector&(sector-1) != 0 || sector > len(b) {
		return nil, fmt.Errorf("probe XFS superblock: sector size %d makes no sense", sector)
	}
	if got, want := binary.LittleEndian.Uint32(b[sbCRC:]), checksum(b[:sector], sbCRC); got != want {
		return nil, fmt.Errorf("probe XFS superblock: checksum is %#08x, its contents give %#08x", got, want)
	}
	blockSize := binary.BigEndian.Uint32(b[sbBlockSize:])
	if blockSize < 512 || blockSize > 65536 || blockSize&(blockSize-1) != 0 {
		return nil, fmt.Errorf("probe XFS superblock: block size %d makes no sense", blockSize)
	}
	blocks := binary.BigEndian.Uint64(b[sbDataBlocks:])
	if blocks > 1<<52/uint64(blockSize)*1024 {
		return nil, fmt.Errorf("probe XFS superblock: %d blocks make no sense", blocks)
	}
	info := &Info{
		Label:     string(bytes.TrimRight(b[sbLabel:sbLabel+12], "\x00")),
		Size:      int64(blocks) * int64(blockSize),
		BlockSize: int(blockSize),
		Reflink:   binary.BigEndian.Uint32(b[sbROCompat:])&roCompatReflink != 0,
	}
	copy(info.UUID[:], b[sbUUID:])
	return info, nil
}

// checksum is the CRC-32C of b with the four bytes at offset crc taken as zero.
func checksum(b []byte, crc int) uint32 {
	sum := crc32.Update(0, castagnoli, b[:crc])
	sum = crc32.Update(sum, castagnoli, make([]byte, 4))
	return crc32.Update(sum, castagnoli, b[crc+4:])
}
