package blk

import (
	"encoding/binary"
	"math/bits"

	"github.com/ashlar-hv/ashlar/vmm/virtio"
)

// Offsets in struct virtio_blk_config (section 5.2.4).
const (
	cfgCapacity         = 0
	cfgSegMax           = 12
	cfgBlkSize          = 20
	cfgPhysicalExp      = 24
	cfgMinIO            = 26
	cfgOptIO            = 28
	cfgWriteback        = 32
	cfgNumQueues        = 34
	cfgDiscardSectors   = 36
	cfgDiscardSegs      = 40
	cfgDiscardAlign     = 44
	cfgZeroesSectors    = 48
	cfgZeroesSegs       = 52
	cfgZeroesMayUnmap   = 56
	configSize          = 60
	maxRangeSectors     = 1 << 22 // of one discard or write zeroes segment: 2 GiB
	maxRangeSegments    = 16
	rangeSegmentSize    = 16
	maxRangeSegmentData = maxRangeSegments * rangeSegmentSize
)

// ReadConfig is the driver reading the configuration.
func (d *Device) ReadConfig(off uint64, b []byte) {
	var c [configSize]byte
	le := binary.LittleEndian
	g := &d.geo
	le.PutUint64(c[cfgCapacity:], d.size.Load()/SectorSize)
	le.PutUint32(c[cfgSegMax:], segMax)
	le.PutUint32(c[cfgBlkSize:], g.logical)
	c[cfgPhysicalExp] = byte(bits.Len32(g.physical/g.logical) - 1)
	le.PutUint16(c[cfgMinIO:], uint16(min(g.physical/g.logical, 1<<16-1)))
	c[cfgWriteback] = byte(d.writeback.Load())
	le.PutUint16(c[cfgNumQueues:], uint16(len(d.queues)))
	if !d.readOnly {
		le.PutUint32(c[cfgDiscardSectors:], maxRangeSectors)
		le.PutUint32(c[cfgDiscardSegs:], maxRangeSegments)
		le.PutUint32(c[cfgDiscardAlign:], g.physical/SectorSize)
		le.PutUint32(c[cfgZeroesSectors:], maxRangeSectors)
		le.PutUint32(c[cfgZeroesSegs:], maxRangeSegments)
		c[cfgZeroesMayUnmap] = 1
	}
	clear(b)
	if off < configSize {
		copy(b, c[off:])
	}
}

// WriteConfig is the driver writing the configuration: only writeback, 0 or 1,
// can be written.
func (d *Device) WriteConfig(off uint64, b []byte) {
	if off > cfgWriteback || off+uint64(len(b)) <= cfgWriteback {
		return
	}
	if v := b[cfgWriteback-off]; v <= 1 {
		d.writeback.Store(uint32(v))
	}
}

// writeThrough tells whether a write is to be on the medium before it is
// answered (section 5.2.6.2): the driver chose so, or cannot flush.
func (d *Device) writeThrough(f virtio.Features) bool {
	if f.Has(featConfigWCE) {
		return d.writeback.Load() == 0
	}
	return !f.Has(featFlush)
}
