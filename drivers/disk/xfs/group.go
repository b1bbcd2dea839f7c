package xfs

import (
	"bytes"
	"encoding/binary"
	"slices"
)

var be = binary.BigEndian

const null = 0xffffffff // no block, no inode

// Offsets in the header of free space (struct xfs_agf).
const (
	agfVersion        = 4
	agfGroup          = 8
	agfLength         = 12
	agfRoots          = 16 // by block, by size
	agfLevels         = 28
	agfFreelistFirst  = 40
	agfFreelistLast   = 44
	agfFreelistCount  = 48
	agfFree           = 52
	agfLongest        = 56
	agfUUID           = 64
	agfRefcountBlocks = 84
	agfRefcountRoot   = 88
	agfRefcountLevel  = 92
	agfCRC            = 216
)

// Offsets in the header of inodes (struct xfs_agi).
const (
	agiVersion     = 4
	agiGroup       = 8
	agiLength      = 12
	agiCount       = 16
	agiRoot        = 20
	agiLevel       = 24
	agiFree        = 28
	agiNewest      = 32
	agiDirectory   = 36
	agiUnlinked    = 40 // 64 buckets
	agiUUID        = 296
	agiCRC         = 312
	agiFreeRoot    = 328
	agiFreeLevel   = 332
	agiBlocks      = 336
	agiFreeBlocks  = 340
	agiUnlinkedEnd = agiUUID
)

// Offsets in the free list (struct xfs_agfl).
const (
	agflGroup = 4
	agflUUID  = 8
	agflCRC   = 32
	agflList  = 36
)

// Offsets in a block of a tree within a group (struct xfs_btree_block, short
// form).
const (
	treeRecords = 6
	treeLeft    = 8
	treeRight   = 12
	treeBlock   = 16 // in units of 512 bytes
	treeUUID    = 32
	treeOwner   = 48
	treeCRC     = 52
	treeData    = 56
)

// seal puts the checksum of b at offset crc. Checksums are little endian.
func seal(b []byte, crc int) []byte {
	binary.LittleEndian.PutUint32(b[crc:], checksum(b, crc))
	return b
}

func fill(b []byte) {
	for i := range b {
		b[i] = 0xff
	}
}

// groups writes headers and trees of every allocation group, and the
// superblock of all but the first.
func (m *maker) groups() error {
	for group := range m.groupCount {
		front := make([]byte, 4*m.sector)
		copy(front, Unfinished)
		if group != 0 {
			copy(front, m.super())
		}
		copy(front[1*m.sector:], m.agf(group))
		copy(front[2*m.sector:], m.agi(group))
		copy(front[3*m.sector:], m.agfl(group))
		if err := m.write(front, group, 0, 0); err != nil {
			return err
		}
		for which := range treeCount {
			if err := m.write(m.treeRoot(group, which), group, m.tree(which), 0); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *maker) agf(group int) []byte {
	b := make([]byte, m.sector)
	copy(b, "XAGF")
	be.PutUint32(b[agfVersion:], 1)
	be.PutUint32(b[agfGroup:], uint32(group))
	be.PutUint32(b[agfLength:], m.groupLength(group))
	be.PutUint32(b[agfRoots:], m.tree(freeByBlock))
	be.PutUint32(b[agfRoots+4:], m.tree(freeBySize))
	be.PutUint32(b[agfLevels:], 1)
	be.PutUint32(b[agfLevels+4:], 1)
	be.PutUint32(b[agfFreelistFirst:], 0)
	be.PutUint32(b[agfFreelistLast:], freelistCount-1)
	be.PutUint32(b[agfFreelistCount:], freelistCount)
	be.PutUint32(b[agfFree:], m.freeBlocks(group))
	longest := slices.MaxFunc(m.free(group), bySize)
	be.PutUint32(b[agfLongest:], longest.count)
	copy(b[agfUUID:], m.options.UUID[:])
	be.PutUint32(b[agfRefcountBlocks:], 1)
	be.PutUint32(b[agfRefcountRoot:], m.tree(refcountTree))
	be.PutUint32(b[agfRefcountLevel:], 1)
	return seal(b, agfCRC)
}

func (m *maker) agi(group int) []byte {
	b := make([]byte, m.sector)
	copy(b, "XAGI")
	be.PutUint32(b[agiVersion:], 1)
	be.PutUint32(b[agiGroup:], uint32(group))
	be.PutUint32(b[agiLength:], m.groupLength(group))
	be.PutUint32(b[agiRoot:], m.tree(inodeTree))
	be.PutUint32(b[agiLevel:], 1)
	be.PutUint32(b[agiNewest:], null)
	if group == 0 {
		be.PutUint32(b[agiCount:], chunkInodes)
		be.PutUint32(b[agiFree:], chunkInodes-usedInodes)
		be.PutUint32(b[agiNewest:], rootInode)
	}
	be.PutUint32(b[agiDirectory:], null)
	fill(b[agiUnlinked:agiUnlinkedEnd])
	copy(b[agiUUID:], m.options.UUID[:])
	be.PutUint32(b[agiFreeRoot:], m.tree(freeInodeTree))
	be.PutUint32(b[agiFreeLevel:], 1)
	be.PutUint32(b[agiBlocks:], 1)
	be.PutUint32(b[agiFreeBlocks:], 1)
	return seal(b, agiCRC)
}

func (m *maker) agfl(group int) []byte {
	b := make([]byte, m.sector)
	copy(b, "XAFL")
	be.PutUint32(b[agflGroup:], uint32(group))
	copy(b[agflUUID:], m.options.UUID[:])
	fill(b[agflList:])
	for i := range uint32(freelistCount) {
		be.PutUint32(b[agflList+4*i:], m.freelist(group)+i)
	}
	return seal(b, agflCRC)
}

func bySize(a, b extent) int { return int(int64(a.count) - int64(b.count)) }

// treeRoot is the root of one of a group's trees, which is its only block.
func (m *maker) treeRoot(group, which int) []byte {
	var records [][]byte
	magic := [treeCount]string{"AB3B", "AB3C", "IAB3", "FIB3", "R3FC"}[which]
	switch which {
	case freeByBlock, freeBySize:
		free := m.free(group)
		if which == freeBySize {
			slices.SortFunc(free, bySize)
		}
		for _, e := range free {
			records = append(records, be.AppendUint32(be.AppendUint32(nil, e.start), e.count))
		}
	case inodeTree, freeInodeTree:
		if group == 0 {
			records = [][]byte{chunkRecord()}
		}
	}
	b := make([]byte, blockSize)
	copy(b, magic)
	be.PutUint16(b[treeRecords:], uint16(len(records)))
	be.PutUint32(b[treeLeft:], null)
	be.PutUint32(b[treeRight:], null)
	block := uint64(group)*uint64(m.groupBlocks) + uint64(m.tree(which))
	be.PutUint64(b[treeBlock:], block*blockSize/512)
	copy(b[treeUUID:], m.options.UUID[:])
	be.PutUint32(b[treeOwner:], uint32(group))
	copy(b[treeData:], bytes.Join(records, nil))
	return seal(b, treeCRC)
}

// chunkRecord describes the first chunk of inodes (struct xfs_inobt_rec, sparse
// form): its first inode, no holes, how many there are and are free, and which.
func chunkRecord() []byte {
	b := be.AppendUint32(nil, rootInode)
	b = be.AppendUint16(b, 0)
	b = append(b, chunkInodes, chunkInodes-usedInodes)
	return be.AppendUint64(b, ^uint64(1<<usedInodes-1))
}
