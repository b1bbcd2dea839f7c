package iouring

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

const (
	// piece is the most bytes of one registered buffer (io_uring_register(2)).
	piece = 1 << 30
	// maxPieces is how many buffers a ring takes (IORING_MAX_REG_BUFFERS).
	maxPieces = 1 << 14
)

// ErrBuffers says that memory cannot be registered: it is empty, or more than 16 TiB.
var ErrBuffers = errors.New("no memory to register")

// Buffers is memory that rings have at hand: its pages are looked up and pinned once, and not
// with each request (io_uring_register(2), IORING_REGISTER_BUFFERS). They stay the ones
// they are until all of these rings are closed: memory whose pages are taken away or
// replaced meanwhile would be written to where nobody reads.
type Buffers struct {
	span   Iovec
	holder *Ring // does nothing but to have the memory first
}

// Register pins the memory, in pieces of up to 1 GiB. What it has not allocated yet is. It
// counts against RLIMIT_MEMLOCK, once for all rings from Linux 6.12 on, and for each before.
func Register(span Iovec) (*Buffers, error) {
	if span.Len == 0 || span.Len > maxPieces*piece {
		return nil, fmt.Errorf("register %d bytes: %w", span.Len, ErrBuffers)
	}
	b := &Buffers{span: span}
	holder, err := New(1, nil, nil, b)
	if err != nil {
		return nil, err
	}
	b.holder = holder
	return b, nil
}

// Close makes no difference to the rings that have the memory. There is nothing to do of nil.
func (b *Buffers) Close() error {
	if b == nil {
		return nil
	}
	return b.holder.Close()
}

// pieces are the registered buffers, by their number.
func (b *Buffers) pieces() []Iovec {
	var out []Iovec
	for at := uint64(0); at < b.span.Len; at += piece {
		out = append(out, Iovec{Base: b.span.Base + at, Len: min(piece, b.span.Len-at)})
	}
	return out
}

// lend gives the memory to a ring, which has none yet.
func (b *Buffers) lend(fd int) error {
	var err error = unix.EINVAL
	if b.holder != nil {
		err = cloneBufferSet(fd, b.holder.fd)
	}
	if errors.Is(err, unix.EINVAL) { // it is the first, or this is no Linux 6.12
		err = registerBufferSet(fd, b.pieces())
	}
	if err != nil {
		return fmt.Errorf("register %d bytes: %w", b.span.Len, err)
	}
	return nil
}

// find returns the number of the registered buffer that all of v is in.
func (b *Buffers) find(v Iovec) (uint16, bool) {
	if b == nil || v.Len == 0 || v.Base < b.span.Base || v.Len > b.span.Len || v.Base-b.span.Base > b.span.Len-v.Len {
		return 0, false
	}
	first, last := (v.Base-b.span.Base)/piece, (v.Base-b.span.Base+v.Len-1)/piece
	return uint16(first), first == last
}

// Registered tells whether all of v is in one buffer that is registered: then ReadFixed and
// WriteFixed take it.
func (r *Ring) Registered(v Iovec) bool {
	_, ok := r.buffers.find(v)
	return ok
}

// ReadFixed is Readv for one range that is Registered.
func (r *Ring) ReadFixed(file int, v Iovec, off, data uint64) bool {
	return r.fixed(OpReadFixed, file, v, off, data) != nil
}

// WriteFixed is Writev for one range that is Registered.
func (r *Ring) WriteFixed(file int, v Iovec, off uint64, dsync bool, data uint64) bool {
	e := r.fixed(OpWriteFixed, file, v, off, data)
	if e != nil && dsync {
		e.opFlags = unix.RWF_DSYNC
	}
	return e != nil
}

func (r *Ring) fixed(op Op, file int, v Iovec, off, data uint64) *sqe {
	n, _ := r.buffers.find(v) // what is not in it fails with EFAULT
	e := r.next(op, file, data)
	if e != nil {
		e.addr, e.len, e.off, e.bufIndex = v.Base, uint32(min(v.Len, piece)), off, n
	}
	return e
}

// withFixed adds to ops those that do the same with registered buffers.
func withFixed(ops []Op) []Op {
	out := slices.Clone(ops)
	for _, op := range ops {
		switch op {
		case OpReadv:
			out = append(out, OpReadFixed)
		case OpWritev:
			out = append(out, OpWriteFixed)
		}
	}
	return out
}
