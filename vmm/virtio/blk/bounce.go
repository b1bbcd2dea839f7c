package blk

import (
	"github.com/ashlar-hv/ashlar/vmm/iouring"
	"github.com/ashlar-hv/ashlar/vmm/virtio/queue"
)

// bounceSize bounds what a request with unaligned buffers takes of the host's
// memory in bytes; it goes in pieces of this size.
const bounceSize = 64 << 10

// aligned tells whether O_DIRECT takes the buffers as they are.
func (r *request) aligned() bool {
	var all uint64
	for _, v := range r.iov {
		all |= v.Base | v.Len
	}
	return all%uint64(r.w.d.geo.memAlign) == 0
}

// useBounce makes r.iov a buffer of our own, filled for a write.
func (r *request) useBounce() error {
	if r.bounce == nil {
		r.bounce = alignedBytes(bounceSize, uint64(r.w.d.geo.memAlign))
	}
	n := min(r.left, bounceSize)
	if r.typ == typeOut {
		if _, err := queue.CopyOut(r.w.mem, r.bufs, 0, r.bounce[:n]); err != nil {
			return err
		}
	}
	r.iov = append(r.iov[:0], iouring.Iovec{Base: iouring.Address(r.bounce), Len: n})
	return nil
}

// fromBounce copies n bytes that were read to the guest, if they came that way.
func (r *request) fromBounce(n uint64) error {
	if !r.bounced || r.typ != typeIn {
		return nil
	}
	_, err := queue.CopyIn(r.w.mem, r.bufs, 0, r.bounce[:n])
	return err
}

// alignedBytes makes n zero bytes at a multiple of align, a power of two.
func alignedBytes(n int, align uint64) []byte {
	b := make([]byte, n+int(align))
	skip := -iouring.Address(b) & (align - 1)
	return b[skip:][:n:n]
}
