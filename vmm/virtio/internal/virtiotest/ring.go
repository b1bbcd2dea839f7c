package virtiotest

import (
	"encoding/binary"
	"io"
	"log"
	"runtime"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/vmm/virtio"
)

// A Buf is a buffer in guest memory.
type Buf struct {
	GPA uint64
	Len uint32
}

// Cut splits b into pieces of at most n bytes.
func (b Buf) Cut(n uint32) []Buf {
	var out []Buf
	for gpa, left := b.GPA, b.Len; left > 0; {
		l := min(n, left)
		out = append(out, Buf{gpa, l})
		gpa, left = gpa+uint64(l), left-l
	}
	return out
}

// Descriptor flags.
const (
	Next     = 1
	Write    = 2
	Indirect = 4
)

// A Ring is the driver's side of a queue: a split one, or, where that was negotiated, a
// packed one, whose parts lie at Desc, Avail and Used.
type Ring struct {
	d                 *Driver
	Index             int
	Size              uint16
	Desc, Avail, Used uint64
	EventIdx          bool

	free uint16 // next descriptor to use, round and round
	idx  uint16 // available index
	last uint16 // used index seen

	packed *packedRing // nil where it is split
}

// NewRing lays out a ring in guest memory without telling the device.
func (d *Driver) NewRing(i int, size uint16, f virtio.Features) *Ring {
	n := uint64(size)
	r := &Ring{
		d: d, Index: i, Size: size, EventIdx: f.Has(virtio.FeatureEventIdx),
		Desc: d.M.Alloc(16 * n), Avail: d.M.Alloc(6 + 2*n), Used: d.M.Alloc(6 + 8*n),
	}
	if f.Has(virtio.FeatureRingPacked) {
		r.packed = &packedRing{r: r, entries: map[uint16]uint16{}}
	}
	return r
}

// Program tells the device where r is, with a vector of its own as far as there are so many, and enables it.
func (r *Ring) Program() {
	d := r.d
	d.SetCommon(QueueSelect, 2, uint64(r.Index))
	d.SetCommon(QueueSize, 2, uint64(r.Size))
	d.SetCommon(QueueVector, 2, uint64(r.vector()))
	for reg, v := range map[int]uint64{QueueDesc: r.Desc, QueueDriver: r.Avail, QueueDevice: r.Used} {
		d.SetCommon(reg, 4, v&0xffffffff)
		d.SetCommon(reg+4, 4, v>>32)
	}
	d.SetCommon(QueueEnable, 2, 1)
}

// vector is the queue's: queues of a device with fewer vectors share the last.
func (r *Ring) vector() int { return min(r.Index+1, len(r.d.M.Router.Vectors)-1) }

// Queue lays out, programs and enables a ring.
func (d *Driver) Queue(i int, size uint16, f virtio.Features) *Ring {
	r := d.NewRing(i, size, f)
	r.Program()
	return r
}

// SetDesc writes descriptor i of the table at gpa.
func (r *Ring) SetDesc(table uint64, i uint16, b Buf, flags, next uint16) {
	r.d.M.T.Helper()
	var p [16]byte
	binary.LittleEndian.PutUint64(p[0:], b.GPA)
	binary.LittleEndian.PutUint32(p[8:], b.Len)
	binary.LittleEndian.PutUint16(p[12:], flags)
	binary.LittleEndian.PutUint16(p[14:], next)
	r.d.M.Must(r.d.M.Mem.WriteAt(table+16*uint64(i), p[:]))
}

// Add makes a chain available and returns its head. It does not kick.
func (r *Ring) Add(readable, writable []Buf) uint16 {
	r.d.M.T.Helper()
	all := append(append([]Buf(nil), readable...), writable...)
	if r.packed != nil {
		return r.packed.add(all, len(readable))
	}
	head := r.free
	for i, b := range all {
		flags := uint16(0)
		if i >= len(readable) {
			flags |= Write
		}
		next := (r.free + 1) % r.Size
		if i < len(all)-1 {
			flags |= Next
		}
		r.SetDesc(r.Desc, r.free, b, flags, next)
		r.free = next
	}
	r.Expose(head)
	return head
}

// AddIndirect is Add with one indirect descriptor.
func (r *Ring) AddIndirect(readable, writable []Buf) uint16 {
	r.d.M.T.Helper()
	all := append(append([]Buf(nil), readable...), writable...)
	table := r.d.M.Alloc(16 * uint64(len(all)))
	for i, b := range all {
		flags := uint16(0)
		if i >= len(readable) {
			flags |= Write
		}
		if i < len(all)-1 {
			flags |= Next
		}
		r.SetDesc(table, uint16(i), b, flags, uint16(i+1))
	}
	if r.packed != nil {
		return r.packed.addIndirect(table, all, len(readable))
	}
	head := r.free
	r.SetDesc(r.Desc, head, Buf{table, uint32(16 * len(all))}, Indirect, 0)
	r.free = (r.free + 1) % r.Size
	r.Expose(head)
	return head
}

// Expose makes the chain at head available.
func (r *Ring) Expose(head uint16) {
	r.d.M.T.Helper()
	m := r.d.M
	m.Must(m.Mem.Store16(r.Avail+4+2*uint64(r.idx%r.Size), head))
	r.wantInterrupt()
	r.idx++
	m.Must(m.Mem.Store16(r.Avail+2, r.idx))
}

// wantInterrupt asks for an interrupt for the next used entry.
func (r *Ring) wantInterrupt() {
	switch m := r.d.M; {
	case r.packed != nil:
		r.packed.wantInterrupt()
	case r.EventIdx:
		m.Must(m.Mem.Store16(r.Avail+4+2*uint64(r.Size), r.last))
	}
}

// Kick notifies the device.
func (r *Ring) Kick() {
	r.d.M.T.Helper()
	d := r.d
	d.SetCommon(QueueSelect, 2, uint64(r.Index))
	d.Write(d.notify+d.multiplier*d.Common(QueueNotifyOff, 2), 2, uint64(r.Index))
}

// Done tells whether the device has used another chain, and which.
func (r *Ring) Done() (head uint16, n uint32, ok bool) {
	r.d.M.T.Helper()
	if r.packed != nil {
		return r.packed.done()
	}
	m := r.d.M
	idx, err := m.Mem.Load16(r.Used + 2)
	m.Must(err)
	if idx == r.last {
		return 0, 0, false
	}
	at := r.Used + 4 + 8*uint64(r.last%r.Size)
	id, err := m.Mem.Load32(at)
	m.Must(err)
	n, err = m.Mem.Load32(at + 4)
	m.Must(err)
	r.last++
	return uint16(id), n, true
}

// Wait sleeps for the next used chain, with interrupts.
func (r *Ring) Wait() (head uint16, n uint32) {
	r.d.M.T.Helper()
	end := time.Now().Add(Patience)
	for {
		if head, n, ok := r.Done(); ok {
			return head, n
		}
		if r.EventIdx {
			r.wantInterrupt()
			if head, n, ok := r.Done(); ok {
				return head, n
			}
		}
		if !r.d.Vector(r.vector()).Take(time.Until(end)) || time.Now().After(end) {
			r.d.M.T.Fatalf("queue %d: no interrupt for a used chain (status %#x)", r.Index, r.d.Status())
		}
	}
}

// Do adds one chain, kicks and waits for it.
func (r *Ring) Do(readable, writable []Buf) uint32 {
	r.d.M.T.Helper()
	head := r.Add(readable, writable)
	r.Kick()
	got, n := r.Wait()
	if got != head {
		r.d.M.T.Fatalf("used chain %d, want %d", got, head)
	}
	return n
}

// Reuse goes on with the machine for another round t of a fuzz target: what was
// allocated so far stays, new allocations overwrite those of the last round.
func (m *Machine) Reuse(t testing.TB) {
	m.T = t
	log.SetOutput(io.Discard) // devices that need a reset, over and over
	if m.mark == 0 {
		m.mark = m.next
	}
	m.next = m.mark
}

// Settle gives the device a moment to use all that is available, unless it is
// broken first.
func (r *Ring) Settle() {
	r.d.M.T.Helper()
	for end := time.Now().Add(2 * time.Millisecond); time.Now().Before(end); runtime.Gosched() {
		if r.d.Status()&virtio.NeedsReset != 0 {
			return
		}
		if r.packed != nil {
			continue // nobody knows what is a chain there
		}
		idx, err := r.d.M.Mem.Load16(r.Used + 2)
		r.d.M.Must(err)
		if idx == r.idx {
			return
		}
	}
}

// Fuzz programs r anew with desc as its descriptor table, and idx entries
// available, of which entry i names descriptor i; in a packed queue, with desc as its
// ring and as many entries available as idx says modulo its size.
func (r *Ring) Fuzz(f virtio.Features, desc []byte, idx uint16) {
	r.d.M.T.Helper()
	m := r.d.M
	r.EventIdx = f.Has(virtio.FeatureEventIdx)
	r.packed = nil
	if f.Has(virtio.FeatureRingPacked) {
		r.packed = &packedRing{r: r, entries: map[uint16]uint16{}}
	}
	n := uint64(r.Size)
	m.Must(m.Mem.Zero(r.Desc, 16*n))
	m.Must(m.Mem.Zero(r.Avail, 6+2*n))
	m.Must(m.Mem.Zero(r.Used, 6+8*n))
	m.Must(m.Mem.WriteAt(r.Desc, desc[:min(len(desc), int(16*n))]))
	if r.packed != nil {
		r.packed.fuzz(idx)
		r.Program()
		return
	}
	for i := range r.Size {
		m.Must(m.Mem.Store16(r.Avail+4+2*uint64(i), i))
	}
	m.Must(m.Mem.Store16(r.Avail+2, idx))
	r.free, r.idx, r.last = 0, idx, 0
	r.Program()
}
