package xfs

// Offsets in the superblock that Format writes and Probe does not read.
const (
	sbLogStart     = 48
	sbRootInode    = 56 // and the two of real-time extents
	sbRTExtent     = 80
	sbGroupBlocks  = 84
	sbGroupCount   = 88
	sbLogBlocks    = 96
	sbInodeSize    = 104
	sbInodesBlock  = 106
	sbBlockLog     = 120
	sbSectorLog    = 121
	sbInodeLog     = 122
	sbInodesLog    = 123
	sbGroupLog     = 124
	sbInodePercent = 127
	sbInodes       = 128
	sbFreeInodes   = 136
	sbFreeBlocks   = 144
	sbAlignment    = 180
	sbLogSectorLog = 193
	sbLogSector    = 194
	sbLogUnit      = 196
	sbFeatures2    = 200 // and again at 204
	sbIncompat     = 216
	sbSparseAlign  = 228
)

// Features (XFS_SB_VERSION_* and XFS_SB_FEAT_*).
const (
	version5       = 5
	versionNLink   = 0x0020
	versionAlign   = 0x0080
	versionLogV2   = 0x0400
	versionSector  = 0x0800 // sectors larger than 512 bytes
	versionExtents = 0x1000
	versionDirV2   = 0x2000
	versionMore    = 0x8000 // sbFeatures2 is in use

	features2LazyCount = 0x002
	features2Attr2     = 0x008
	features2ProjID32  = 0x080
	features2CRC       = 0x100

	roCompatFreeInodes  = 1 << 0
	roCompatInodeCounts = 1 << 3

	incompatFileType = 1 << 0
	incompatSparse   = 1 << 1
	incompatBigTime  = 1 << 3
)

func log2(n int) byte {
	var l byte
	for ; n > 1; n >>= 1 {
		l++
	}
	return l
}

// super is the superblock.
func (m *maker) super() []byte {
	b := make([]byte, m.sector)
	copy(b, "XFSB")
	be.PutUint32(b[sbBlockSize:], blockSize)
	be.PutUint64(b[sbDataBlocks:], m.blocks)
	copy(b[sbUUID:], m.options.UUID[:])
	be.PutUint64(b[sbLogStart:], uint64(m.logGroup)<<m.groupBits()|uint64(m.afterTrees()))
	for i := range uint64(usedInodes) {
		be.PutUint64(b[sbRootInode+8*i:], rootInode+i)
	}
	be.PutUint32(b[sbRTExtent:], 1)
	be.PutUint32(b[sbGroupBlocks:], m.groupBlocks)
	be.PutUint32(b[sbGroupCount:], uint32(m.groupCount))
	be.PutUint32(b[sbLogBlocks:], m.logBlocks)
	be.PutUint16(b[sbSectorSize:], uint16(m.sector))
	be.PutUint16(b[sbInodeSize:], inodeSize)
	be.PutUint16(b[sbInodesBlock:], blockSize/inodeSize)
	copy(b[sbLabel:], m.options.Label)
	b[sbBlockLog] = log2(blockSize)
	b[sbSectorLog] = log2(m.sector)
	b[sbInodeLog] = log2(inodeSize)
	b[sbInodesLog] = log2(blockSize / inodeSize)
	b[sbGroupLog] = byte(m.groupBits())
	b[sbInodePercent] = m.inodePercent()
	be.PutUint64(b[sbInodes:], chunkInodes)
	be.PutUint64(b[sbFreeInodes:], chunkInodes-usedInodes)
	be.PutUint64(b[sbFreeBlocks:], m.allFree())
	be.PutUint32(b[sbAlignment:], chunkBlocks)
	be.PutUint32(b[sbSparseAlign:], chunkBlocks/2)
	m.features(b)
	return seal(b, sbCRC)
}

func (m *maker) features(b []byte) {
	version := uint16(version5 | versionNLink | versionAlign | versionLogV2 | versionExtents | versionDirV2 | versionMore)
	be.PutUint32(b[sbLogUnit:], 1) // none
	if m.sector > 512 {
		version |= versionSector
		b[sbLogSectorLog] = log2(m.sector)
		be.PutUint16(b[sbLogSector:], uint16(m.sector))
		be.PutUint32(b[sbLogUnit:], uint32(m.sector))
	}
	be.PutUint16(b[sbVersion:], version)
	const features2 = features2LazyCount | features2Attr2 | features2ProjID32 | features2CRC
	be.PutUint32(b[sbFeatures2:], features2)
	be.PutUint32(b[sbFeatures2+4:], features2)
	be.PutUint32(b[sbROCompat:], roCompatFreeInodes|roCompatReflink|roCompatInodeCounts)
	be.PutUint32(b[sbIncompat:], incompatFileType|incompatSparse|incompatBigTime)
}

// inodePercent is how much of the space inodes may take, as mkfs.xfs has it.
func (m *maker) inodePercent() byte {
	switch {
	case m.size < 1<<40:
		return 25
	case m.size < 50<<40:
		return 5
	default:
		return 1
	}
}

// allFree is the number of free blocks, the reserves of the trees included.
func (m *maker) allFree() (n uint64) {
	for group := range m.groupCount {
		n += uint64(m.freeBlocks(group)) + freelistCount
	}
	return n
}

// superblock writes the first superblock: from now on there is a file system.
func (m *maker) superblock() error {
	return m.write(m.super(), 0, 0, 0)
}
