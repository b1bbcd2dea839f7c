package queue

import (
	"encoding/binary"
	"fmt"

	"github.com/ashlar-hv/ashlar/vmm/memory"
)

// A Buffer is a piece of guest memory. All of it lies inside one region.
type Buffer struct {
	GPA uint64
	Len uint32
}

// A Chain is one request: buffers to read, then buffers to write. Its slices
// are used again by the next Pop into it.
type Chain struct {
	Head     Head
	Readable []Buffer
	Writable []Buffer
}

// A Head names a chain to Push.
type Head struct {
	ID      uint16 // the driver's name for it
	Entries uint16 // how many of the ring's it takes: 1 in a split queue
}

func (c *Chain) empty() { c.Head, c.Readable, c.Writable = Head{}, c.Readable[:0], c.Writable[:0] }

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
	next  uint16 // split only
	id    uint16 // packed only
}

// A walker reads descriptors of one kind.
type walker struct {
	mem      *memory.Memory
	indirect bool // they are allowed
	packed   bool
}

// descriptor copies the one at gpa.
func (w *walker) descriptor(gpa uint64) (descriptor, error) {
	var b [descSize]byte
	if err := w.mem.ReadAt(gpa, b[:]); err != nil {
		return descriptor{}, fmt.Errorf("read descriptor: %w", err)
	}
	le := binary.LittleEndian
	d := descriptor{gpa: le.Uint64(b[0:]), len: le.Uint32(b[8:])}
	if w.packed {
		d.id, d.flags = le.Uint16(b[12:]), le.Uint16(b[14:])
	} else {
		d.flags, d.next = le.Uint16(b[12:]), le.Uint16(b[14:])
	}
	return d, nil
}

var errNested = fmt.Errorf("indirect descriptor in an indirect table: %w", ErrMalformed)

// A walk follows one chain.
type walk struct {
	*walker
	c     *Chain
	total uint64 // bytes of all buffers
}

// table follows the chain from entry i on in the split descriptor table of n entries
// at gpa. As no chain is longer than its table, the count ends every loop.
func (w *walk) table(gpa uint64, n, i uint16, indirect bool) error {
	for range n {
		d, err := w.descriptor(gpa + descSize*uint64(i))
		if err != nil {
			return err
		}
		if indirect && d.flags&flagIndirect != 0 {
			return errNested
		}
		if err := w.entry(d); err != nil || d.flags&flagNext == 0 {
			return err
		}
		if i = d.next; i >= n {
			return fmt.Errorf("next descriptor is %d of %d: %w", i, n, ErrMalformed)
		}
	}
	return fmt.Errorf("chain is longer than %d descriptors: %w", n, ErrMalformed)
}

// entry adds what d is: a buffer, or a table of them.
func (w *walk) entry(d descriptor) error {
	switch {
	case d.flags&flagIndirect == 0:
		return w.add(d)
	case d.flags&flagNext != 0:
		return fmt.Errorf("indirect descriptor that goes on: %w", ErrMalformed)
	}
	return w.follow(d)
}

// follow takes the table that d points to (sections 2.7.5.3 and 2.8.8).
func (w *walk) follow(d descriptor) error {
	n := d.len / descSize
	switch {
	case !w.indirect:
		return fmt.Errorf("indirect descriptor was not negotiated: %w", ErrMalformed)
	case d.len%descSize != 0 || n == 0 || n > MaxChain:
		return fmt.Errorf("indirect table of %d bytes: %w", d.len, ErrMalformed)
	case !w.mem.Contains(d.gpa, uint64(d.len)):
		return fmt.Errorf("indirect table of %d bytes at %#x: %w", d.len, d.gpa, ErrMalformed)
	case w.packed:
		return w.list(d.gpa, n)
	}
	return w.table(d.gpa, uint16(n), 0, true)
}

// list takes the n descriptors of a packed queue's indirect table at gpa, all of them.
func (w *walk) list(gpa uint64, n uint32) error {
	for i := range uint64(n) {
		d, err := w.descriptor(gpa + descSize*i)
		if err != nil {
			return err
		}
		if d.flags&flagIndirect != 0 {
			return errNested
		}
		if err := w.add(d); err != nil {
			return err
		}
	}
	return nil
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
	if !w.mem.Contains(d.gpa, uint64(d.len)) {
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
