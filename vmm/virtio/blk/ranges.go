package blk

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/iouring"
	"github.com/ashlar-hv/ashlar/vmm/virtio/queue"
)

// flagUnmap lets WRITE_ZEROES give the space back (section 5.2.6).
const flagUnmap = 1

// A method is a way to do a segment; each falls back to the next where the file
// cannot do it.
type method int

const (
	punchHole method = iota
	zeroRange
	writeZeros
)

// zeros is what writeZeros writes, many times over in one request.
var zeros = alignedBytes(64<<10, 4096)

// rangeRequest is what a discard or write zeroes request has besides.
type rangeRequest struct {
	segs   [maxRangeSegmentData]byte
	n      int // bytes of segs
	at     int // the present segment
	method method
}

// startRanges checks all segments, then begins with the first.
func (r *request) startRanges() error {
	d := r.w.d
	n := queue.Len(r.chain.Readable) - headerSize
	if d.readOnly || n == 0 || n%rangeSegmentSize != 0 || n > maxRangeSegmentData {
		return r.finishError()
	}
	g := &r.ranges
	g.n, g.at = int(n), 0
	if _, err := queue.CopyOut(r.w.mem, r.chain.Readable, headerSize, g.segs[:n]); err != nil {
		return err
	}
	for i := 0; i < g.n; i += rangeSegmentSize {
		switch r.checkSegment(g.segs[i:]) {
		case statusIOErr:
			return r.finishError()
		case statusUnsupported:
			d.metrics.unsupported.Add(1)
			return r.finish(statusUnsupported, 0)
		}
	}
	if r.typ == typeDiscard {
		d.metrics.discards.Add(1)
	} else {
		d.metrics.zeroes.Add(1)
	}
	return r.segment()
}

// checkSegment returns the status that a segment deserves before it is tried.
func (r *request) checkSegment(s []byte) byte {
	sector := binary.LittleEndian.Uint64(s[0:])
	sectors := uint64(binary.LittleEndian.Uint32(s[8:]))
	flags := binary.LittleEndian.Uint32(s[12:])
	switch {
	case flags&^flagUnmap != 0 || r.typ == typeDiscard && flags != 0:
		return statusUnsupported
	case sectors > maxRangeSectors || !r.w.d.inRange(sector, sectors*SectorSize):
		return statusIOErr
	}
	return statusOK
}

// segment begins the present segment, or ends the request after the last.
func (r *request) segment() error {
	g := &r.ranges
	for ; g.at < g.n; g.at += rangeSegmentSize {
		s := g.segs[g.at:]
		r.off = binary.LittleEndian.Uint64(s[0:]) * SectorSize
		r.left = uint64(binary.LittleEndian.Uint32(s[8:])) * SectorSize
		if r.left == 0 {
			continue
		}
		g.method = punchHole
		if r.typ == typeWriteZeroes && binary.LittleEndian.Uint32(s[12:])&flagUnmap == 0 {
			g.method = zeroRange
		}
		return r.submitRange()
	}
	return r.finish(statusOK, 0)
}

// submitRange asks for what is left of the segment. Write zeroes is to be on the
// medium under write-through: writeZeros does that by itself, fallocate is
// followed by nothing, as file systems log it with the next flush; so under
// write-through zeros are written.
func (r *request) submitRange() error {
	through := r.w.d.writeThrough(r.w.features)
	if through && r.typ == typeWriteZeroes {
		r.ranges.method = writeZeros
	}
	switch r.ranges.method {
	case punchHole:
		const mode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
		return r.submitted(r.w.ring.Fallocate(diskFile, mode, r.off, r.left, r.id))
	case zeroRange:
		const mode = unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE
		return r.submitted(r.w.ring.Fallocate(diskFile, mode, r.off, r.left, r.id))
	}
	r.iov = r.iov[:0]
	n := r.left
	for n > 0 && len(r.iov) < queue.MaxChain {
		l := min(n, uint64(len(zeros)))
		r.iov = append(r.iov, iouring.Iovec{Base: iouring.Address(zeros), Len: l})
		n -= l
	}
	if l := r.w.d.limits.Load(); l != nil { // they have not been paid for yet
		l.owe(r.left-n, r.w.d.clock())
	}
	return r.submitted(r.w.ring.Writev(diskFile, r.iov, r.off, through, r.id))
}

// completeRange goes on after a step of a segment.
func (r *request) completeRange(res int32) error {
	g := &r.ranges
	switch {
	case res >= 0 && g.method == writeZeros:
		n := min(uint64(res), r.left)
		if n == 0 {
			return r.hostError(0)
		}
		if r.off, r.left = r.off+n, r.left-n; r.left > 0 {
			return r.submitRange()
		}
	case res >= 0:
	case g.method == writeZeros || !errors.Is(unix.Errno(-res), unix.EOPNOTSUPP):
		return r.hostError(unix.Errno(-res))
	case r.typ == typeDiscard: // a hint that this file cannot take
	default:
		g.method++
		return r.submitRange()
	}
	g.at += rangeSegmentSize
	return r.segment()
}
