package xfs

import "time"

// Offsets in an inode (struct xfs_dinode).
const (
	diMode       = 2
	diVersion    = 4
	diFormat     = 5
	diLinks      = 16
	diATime      = 32
	diMTime      = 40
	diCTime      = 48
	diSize       = 56
	diAttrFormat = 83
	diFlags      = 90
	diUnlinked   = 96
	diCRC        = 100
	diFlags2     = 120
	diCRTime     = 144
	diNumber     = 152
	diUUID       = 160
	diFork       = 176
)

// Values in an inode.
const (
	formatLocal   = 1 // the data is in the inode
	formatExtents = 2
	modeDirectory = 0o040755
	modeFile      = 0o100000
	flagNewBitmap = 1 << 2 // XFS_DIFLAG_NEWRTBM
	flag2BigTime  = 1 << 3
	// usedInodes are the root directory and the two files that every file
	// system has for real-time extents, of which this one has none.
	usedInodes = 3
)

// inodes writes the first chunk of inodes.
func (m *maker) inodes() error {
	var chunk []byte
	for i := range uint64(chunkInodes) {
		chunk = append(chunk, m.inode(rootInode+i)...)
	}
	return m.write(chunk, 0, chunkStart, 0)
}

func (m *maker) inode(number uint64) []byte {
	b := make([]byte, inodeSize)
	copy(b, "IN")
	b[diVersion] = 3
	be.PutUint32(b[diUnlinked:], null)
	be.PutUint64(b[diNumber:], number)
	copy(b[diUUID:], m.options.UUID[:])
	switch number {
	case rootInode:
		m.inUse(b, modeDirectory, formatLocal, 2)
		// A short directory: number of entries, of those with long inode
		// numbers, and the parent, the root itself.
		be.PutUint64(b[diSize:], 6)
		be.PutUint32(b[diFork+2:], rootInode)
	case rootInode + 1:
		m.inUse(b, modeFile, formatExtents, 1)
		be.PutUint16(b[diFlags:], flagNewBitmap)
	case rootInode + 2:
		m.inUse(b, modeFile, formatExtents, 1)
	}
	return seal(b, diCRC)
}

func (m *maker) inUse(b []byte, mode uint16, format byte, links uint32) {
	be.PutUint16(b[diMode:], mode)
	b[diFormat] = format
	b[diAttrFormat] = formatExtents
	be.PutUint32(b[diLinks:], links)
	be.PutUint64(b[diFlags2:], flag2BigTime)
	for _, at := range []int{diATime, diMTime, diCTime, diCRTime} {
		be.PutUint64(b[at:], bigTime(m.now))
	}
}

// bigTime is nanoseconds since 1901-12-13 20:45:52 UTC, as far before 1970 as
// the older form could reach. A clock outside of what it can say counts as 1970.
func bigTime(t time.Time) uint64 {
	s := t.Unix()
	if s < -1<<31 || s > 16299260424 {
		s = 0
	}
	return uint64(s+1<<31)*1e9 + uint64(t.Nanosecond())
}
