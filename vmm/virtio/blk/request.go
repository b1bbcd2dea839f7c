package blk

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/iouring"
	"github.com/ashlar-hv/ashlar/vmm/virtio/queue"
)

// Request types and answers (section 5.2.6).
const (
	typeIn          = 0
	typeOut         = 1
	typeFlush       = 4
	typeID          = 8
	typeDiscard     = 11
	typeWriteZeroes = 13

	statusOK          = 0
	statusIOErr       = 1
	statusUnsupported = 2

	headerSize = 16
)

// errNoRoom says that a chain cannot hold a request at all.
var errNoRoom = errors.New("request without a header or a status byte")

// A request is one chain under way. It has at most one io_uring request at a
// time.
type request struct {
	w     *worker
	id    uint64 // place in worker.reqs
	chain queue.Chain
	open  bool // under way

	typ    uint32
	sector uint64 // of the header
	cost   uint64 // bytes that count against the limits
	data   uint64 // bytes of the data buffers
	off    uint64 // where in the file to go on
	left   uint64 // bytes still to do
	iov    []iouring.Iovec
	bufs   []queue.Buffer // scratch, behind iov
	ranges rangeRequest

	limiter *limiter // where cost has been taken from, for one that was held back
	due     int64    // when it may go, by the disk's clock
	began   int64    // when it went

	bounce  []byte // aligned, where O_DIRECT needs it
	bounced bool   // the io_uring request under way is on bounce
}

// start reads the header and begins, or waits for its turn. An error means a malformed
// chain.
func (r *request) start() error {
	var h [headerSize]byte
	n, err := queue.CopyOut(r.w.mem, r.chain.Readable, 0, h[:])
	if err != nil {
		return err
	}
	writable := queue.Len(r.chain.Writable)
	if n < headerSize || writable == 0 {
		return fmt.Errorf("%d bytes to read, %d to write: %w", n, writable, errNoRoom)
	}
	r.typ = binary.LittleEndian.Uint32(h[0:])
	r.sector = binary.LittleEndian.Uint64(h[8:])
	r.data, r.cost = writable-1, 0
	if r.typ == typeOut {
		r.data = queue.Len(r.chain.Readable) - headerSize
	}
	if (r.typ == typeIn || r.typ == typeOut) && r.w.d.inRange(r.sector, r.data) {
		r.cost = r.data
	}
	return r.w.admit(r)
}

// begin does what the request asks for.
func (r *request) begin() error {
	r.began = r.w.d.clock()
	if r.w.d.failing.Load() {
		return r.finishError()
	}
	switch r.typ {
	case typeIn, typeOut:
		return r.transfer()
	case typeFlush:
		r.w.d.metrics.flushes.Add(1)
		return r.submitted(r.w.ring.Fdatasync(diskFile, r.id))
	case typeID:
		return r.serial()
	case typeDiscard, typeWriteZeroes:
		return r.startRanges()
	}
	r.w.d.metrics.unsupported.Add(1)
	return r.finish(statusUnsupported, 0)
}

// inRange tells whether n bytes from sector on are on the disk.
func (d *Device) inRange(sector, n uint64) bool {
	sectors := d.size.Load() / SectorSize
	return n%SectorSize == 0 && sector <= sectors && n/SectorSize <= sectors-sector
}

// transfer begins a read or a write.
func (r *request) transfer() error {
	d := r.w.d
	if !d.inRange(r.sector, r.data) || r.typ == typeOut && d.readOnly {
		return r.finishError()
	}
	r.off, r.left = r.sector*SectorSize, r.data
	if d.geo.direct && (r.off|r.left)%uint64(d.geo.logical) != 0 {
		return r.finishError()
	}
	if r.typ == typeIn {
		d.metrics.reads.Add(1)
	} else {
		d.metrics.writes.Add(1)
	}
	if r.left == 0 {
		return r.finish(statusOK, 0)
	}
	return r.submit()
}

// buffers puts the iovecs of what is left of the data into r.iov, as few as there may be.
func (r *request) buffers() error {
	bufs, skip := r.chain.Writable, uint64(0)
	if r.typ == typeOut {
		bufs, skip = r.chain.Readable, headerSize
	}
	r.bufs = queue.Slice(r.bufs[:0], bufs, skip+r.data-r.left, r.left)
	r.iov = r.iov[:0]
	for _, b := range r.bufs {
		base, err := r.w.mem.HostSpan(b.GPA, uint64(b.Len))
		if err != nil {
			return err
		}
		if last := len(r.iov) - 1; last >= 0 && r.iov[last].Base+r.iov[last].Len == uint64(base) {
			r.iov[last].Len += uint64(b.Len)
			continue
		}
		r.iov = append(r.iov, iouring.Iovec{Base: uint64(base), Len: uint64(b.Len)})
	}
	return nil
}

// submit asks for what is left of a transfer.
func (r *request) submit() error {
	if err := r.buffers(); err != nil {
		return err
	}
	if r.bounced = r.w.d.geo.direct && !r.aligned(); r.bounced {
		if err := r.useBounce(); err != nil {
			return err
		}
	}
	ring, through := r.w.ring, r.w.d.writeThrough(r.w.features)
	if len(r.iov) == 1 && ring.Registered(r.iov[0]) {
		r.w.d.metrics.registered.Add(1)
		if r.typ == typeIn {
			return r.submitted(ring.ReadFixed(diskFile, r.iov[0], r.off, r.id))
		}
		return r.submitted(ring.WriteFixed(diskFile, r.iov[0], r.off, through, r.id))
	}
	if r.typ == typeIn {
		return r.submitted(ring.Readv(diskFile, r.iov, r.off, r.id))
	}
	return r.submitted(ring.Writev(diskFile, r.iov, r.off, through, r.id))
}

// submitted follows a try to fill a submission entry. The ring has two for
// each request, so there is always one.
func (r *request) submitted(ok bool) error {
	if !ok {
		return r.finishError()
	}
	return nil
}

// complete goes on after an io_uring request that gave res.
func (r *request) complete(res int32) error {
	switch e := unix.Errno(-res); {
	case res >= 0:
	case e == unix.EINTR || e == unix.EAGAIN || e == unix.ECANCELED: // ECANCELED: see iouring.Ring
		return r.again()
	}
	switch r.typ {
	case typeDiscard, typeWriteZeroes:
		return r.completeRange(res)
	case typeFlush:
		if res < 0 {
			return r.hostError(unix.Errno(-res))
		}
		r.took(&r.w.d.metrics.flushTimes)
		return r.finish(statusOK, 0)
	}
	if res <= 0 { // 0: the file has become shorter than the disk
		return r.hostError(unix.Errno(-res))
	}
	n := min(uint64(res), r.left)
	if err := r.fromBounce(n); err != nil {
		return err
	}
	r.off, r.left = r.off+n, r.left-n
	if r.left > 0 {
		return r.submit()
	}
	return r.transferred()
}

// again repeats what was interrupted.
func (r *request) again() error {
	switch r.typ {
	case typeDiscard, typeWriteZeroes:
		return r.submitRange()
	case typeFlush:
		return r.submitted(r.w.ring.Fdatasync(diskFile, r.id))
	}
	return r.submit()
}

func (r *request) transferred() error {
	if r.typ == typeIn {
		r.took(&r.w.d.metrics.readTimes)
		r.w.d.metrics.readBytes.Add(r.data)
		return r.finish(statusOK, r.data)
	}
	r.took(&r.w.d.metrics.writeTimes)
	r.w.d.metrics.writtenBytes.Add(r.data)
	return r.finish(statusOK, 0)
}

// serial answers GET_ID: the serial number, padded with zeros.
func (r *request) serial() error {
	n, err := queue.CopyIn(r.w.mem, r.chain.Writable, 0, r.w.d.serial[:min(r.data, SerialSize)])
	if err != nil {
		return err
	}
	return r.finish(statusOK, uint64(n))
}

func (r *request) finishError() error {
	r.w.d.metrics.errors.Add(1)
	return r.finish(statusIOErr, 0)
}

// finish writes the status byte, the last of the writable ones, and gives the
// chain back. wrote is how many bytes before it were filled; the used length
// counts only bytes written without a gap (section 2.7.8.2).
func (r *request) finish(status byte, wrote uint64) error {
	r.bounce, r.bounced = nil, false
	room := queue.Len(r.chain.Writable) - 1
	_, err := queue.CopyIn(r.w.mem, r.chain.Writable, room, []byte{status})
	if wrote == room {
		wrote++
	}
	return errors.Join(err, r.w.done(r, uint32(wrote)))
}
