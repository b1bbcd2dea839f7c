package queue

import (
	"encoding/binary"
	"fmt"
)

// A Buffer is a piece of guest memory. All of it lies inside one region.
type Buffer struct {
	GPA uint64
	Len uint32
}

// A Chain is one request: buffers to read, then buffers to write. Its slices
// are used again by the next Pop into it.
type Chain struct {
	Head     uint16 // for Push
	Readable []Buffer
	Writable []Buffer
}

// Descriptor flags (section 2.7.5).
const (
	flagNext     = 1
	flagWrite    = 2
	flagIndirect = 4

	descSize = 16
)

// A descriptor is a copy of one that the driver wrote.
type descriptor struct {
	gpa   uint64
	len   uint32
	flags uint16
	next  uint16
}

// descriptor copies the one at gpa.
func (q *Queue) descriptor(gpa uint64) (descriptor, error) {
	var b [descSize]byte
	if err := q.mem.ReadAt(gpa, b[:]); err != nil {
		return descriptor{}, fmt.Errorf("read descriptor: %w", err)
	}
	return descriptor{
		gpa:   binary.LittleEndian.Uint64(b[0:]),
		len:   binary.LittleEndian.Uint32(b[8:]),
		flags: binary.LittleEndian.Uint16(b[12:]),
		next:  binary.LittleEndian.Uint16(b[14:]),
	}, nil
}

// Pop takes the next chain that the driver has made available into c, and
// tells whether there was one. After an error nothing more can be taken.
func (q *Queue) Pop(c *Chain) (bool, error) {
	c.Head, c.Readable, c.Writable = 0, c.Readable[:0], c.Writable[:0]
	n, err := q.pending()
	if err != nil || n == 0 {
		return false, err
	}
	head, err := q.mem.Load16(q.c.Driver + 4 + 2*uint64(q.next&(q.c.Size-1)))
	if err != nil {
		return false, err
	}
	if head >= q.c.Size {
		return false, fmt.Errorf("available ring names descriptor %d of %d: %w", head, q.c.Size, ErrMalformed)
	}
	w := walk{q: q, c: c}
	if err := w.table(q.c.Desc, q.c.Size, head, false); err != nil {
		c.Readable, c.Writable = c.Readable[:0], c.Writable[:0]
		return false, fmt.Errorf("chain at descriptor %d: %w", head, err)
	}
	c.Head = head
	q.next++
	return true, nil
}

// Undo gives back the n chains that Pop took last and that were not pushed: the
// next Pop takes the first of them again.
func (q *Queue) Undo(n uint16) { q.next -= n }

// A walk follows one chain.
type walk struct {
	q     *Queue
	c     *Chain
	total uint64 // bytes of all buffers
}

// table follows the chain from entry i on in the descriptor table of n entries
// at gpa. As no chain is longer than its table, the count ends every loop.
func (w *walk) table(gpa uint64, n, i uint16, indirect bool) error {
	for range n {
		d, err := w.q.descriptor(gpa + descSize*uint64(i))
		if err != nil {
			return err
		}
		if d.flags&flagIndirect != 0 {
			if indirect || d.flags&flagNext != 0 {
				return fmt.Errorf("indirect descriptor that is nested or goes on: %w", ErrMalformed)
			}
			return w.indirect(d)
		}
		if err := w.add(d); err != nil {
			return err
		}
		if d.flags&flagNext == 0 {
			return nil
		}
		if i = d.next; i >= n {
			return fmt.Errorf("next descriptor is %d of %d: %w", i, n, ErrMalformed)
		}
	}
	return fmt.Errorf("chain is longer than %d descriptors: %w", n, ErrMalformed)
}

// indirect follows the table that d points to (section 2.7.5.3).
func (w *walk) indirect(d descriptor) error {
	n := d.len / descSize
	switch {
	case !w.q.c.Indirect:
		return fmt.Errorf("indirect descriptor was not negotiated: %w", ErrMalformed)
	case d.len%descSize != 0 || n == 0 || n > MaxChain:
		return fmt.Errorf("indirect table of %d bytes: %w", d.len, ErrMalformed)
	case !w.q.mem.Contains(d.gpa, uint64(d.len)):
		return fmt.Errorf("indirect table of %d bytes at %#x: %w", d.len, d.gpa, ErrMalformed)
	}
	return w.table(d.gpa, uint16(n), 0, true)
}

// add appends the buffer of d to the chain. Empty buffers are left out.
func (w *walk) add(d descriptor) error {
	c := w.c
	if d.flags&flagWrite == 0 && len(c.Writable) > 0 {
		return fmt.Errorf("readable buffer after a writable one: %w", ErrMalformed)
	}
	if d.len == 0 {
		return nil
	}
	if !w.q.mem.Contains(d.gpa, uint64(d.len)) {
		return fmt.Errorf("buffer of %d bytes at %#x outside guest memory: %w", d.len, d.gpa, ErrMalformed)
	}
	if w.total += uint64(d.len); w.total > 1<<32-1 {
		return fmt.Errorf("buffers of over 4 GiB: %w", ErrMalformed)
	}
	if len(c.Readable)+len(c.Writable) >= MaxChain {
		return fmt.Errorf("chain has over %d buffers: %w", MaxChain, ErrMalformed)
	}
	b := Buffer{GPA: d.gpa, Len: d.len}
	if d.flags&flagWrite != 0 {
		c.Writable = append(c.Writable, b)
	} else {
		c.Readable = append(c.Readable, b)
	}
	return nil
}
