package xfs

import (
	"fmt"
	"math/bits"
)

// Sizes that are the same in every file system made here, in bytes where not
// said.
const (
	blockSize     = 4096
	inodeSize     = 512
	labelSize     = 12
	chunkInodes   = 64 // inodes are made in chunks
	chunkBlocks   = chunkInodes * inodeSize / blockSize
	chunkStart    = 16 // block of the first chunk in group 0
	rootInode     = chunkStart * blockSize / inodeSize
	freelistCount = 4         // blocks that the free space trees may grow into
	groupMax      = 1<<28 - 1 // blocks: a group is smaller than 1 TiB
	groupMin      = 4096      // blocks, XFS_AG_MIN_BLOCKS
	logMin        = 64 << 20
	logMax        = 512 << 20
	logShare      = 2048 // a byte of log for that many of data
)

// Blocks of a group, counted from the end of its headers.
const (
	freeByBlock = iota // bnobt
	freeBySize         // cntbt
	inodeTree          // inobt
	freeInodeTree
	refcountTree
	treeCount
)

// A geometry is where things lie.
type geometry struct {
	size        int64 // of the device, in bytes
	sector      int   // 512 or 4096 bytes
	blocks      uint64
	groupBlocks uint32 // of every group but the last
	groupCount  int
	logGroup    int
	logBlocks   uint32
}

// An extent is a run of blocks within a group.
type extent struct{ start, count uint32 }

// newGeometry chooses the same groups as mkfs.xfs does for a single disk: four,
// and groups of nearly 1 TiB from 4 TiB on. The log lies in the middle one.
func newGeometry(size int64, sector int) (geometry, error) {
	if size < MinSize || size > MaxSize {
		return geometry{}, fmt.Errorf("size %d bytes: want %d to %d", size, int64(MinSize), int64(MaxSize))
	}
	if sector != 512 && sector != 4096 {
		return geometry{}, fmt.Errorf("sectors of %d bytes: want 512 or 4096", sector)
	}
	g := geometry{size: size, sector: sector, blocks: uint64(size / blockSize), groupBlocks: groupMax}
	if size < 4<<40 {
		g.groupBlocks = uint32((g.blocks + 3) / 4)
	}
	// A last group that is too small to be one is left out.
	if rest := g.blocks % uint64(g.groupBlocks); rest < groupMin {
		g.blocks -= rest
	}
	g.groupCount = int((g.blocks + uint64(g.groupBlocks) - 1) / uint64(g.groupBlocks))
	g.logGroup = g.groupCount / 2
	g.logBlocks = uint32(min(max(size/logShare, logMin), logMax) / blockSize)
	return g, nil
}

// headerBlocks is how many blocks the four header sectors of a group take.
func (g *geometry) headerBlocks() uint32 { return uint32((4*g.sector + blockSize - 1) / blockSize) }

// tree is the block of a tree's root.
func (g *geometry) tree(which int) uint32 { return g.headerBlocks() + uint32(which) }

// afterTrees is the first block behind what every group has.
func (g *geometry) afterTrees() uint32 { return g.tree(treeCount) }

// groupLength is a group's size in blocks.
func (g *geometry) groupLength(group int) uint32 {
	if group == g.groupCount-1 {
		return uint32(g.blocks - uint64(g.groupBlocks)*uint64(group))
	}
	return g.groupBlocks
}

// groupBits is the number of bits of a block number within a group.
func (g *geometry) groupBits() int { return bits.Len32(g.groupBlocks - 1) }

// freelist is the first block of a group's reserve for its trees.
func (g *geometry) freelist(group int) uint32 {
	if group == g.logGroup {
		return g.afterTrees() + g.logBlocks
	}
	return g.afterTrees()
}

// free lists the free extents of a group, by block.
func (g *geometry) free(group int) []extent {
	start, end := g.freelist(group)+freelistCount, g.groupLength(group)
	if group != 0 {
		return []extent{{start, end - start}}
	}
	const behind = chunkStart + chunkBlocks
	return []extent{{start, chunkStart - start}, {behind, end - behind}}
}

// freeBlocks is the number of free blocks of a group, without its reserve.
func (g *geometry) freeBlocks(group int) (n uint32) {
	for _, e := range g.free(group) {
		n += e.count
	}
	return n
}
