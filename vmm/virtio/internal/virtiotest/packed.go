package virtiotest

import "encoding/binary"

// Flags of a packed descriptor (VIRTIO 1.2 section 2.8.1).
const (
	avail = 1 << 7
	used  = 1 << 15
)

// A round is an entry of a packed ring and how often the ring was gone round.
type round struct {
	at, rounds uint16
}

func (p *round) on(n, size uint16) {
	if p.at += n; p.at >= size {
		p.at, p.rounds = p.at-size, p.rounds+1
	}
}

// A packedRing is what a Ring does in a packed queue.
type packedRing struct {
	r       *Ring
	next    round             // entry to write
	last    round             // entry to look at
	id      uint16            // of the next chain
	entries map[uint16]uint16 // of chains under way, by their names
}

// put writes the next entry; its flags are written by the caller, the first last.
func (p *packedRing) put(b Buf, flags uint16) (at uint64, all uint16) {
	p.r.d.M.T.Helper()
	m := p.r.d.M
	at = p.r.Desc + 16*uint64(p.next.at)
	var d [14]byte
	binary.LittleEndian.PutUint64(d[0:], b.GPA)
	binary.LittleEndian.PutUint32(d[8:], b.Len)
	binary.LittleEndian.PutUint16(d[12:], p.id)
	m.Must(m.Mem.WriteAt(at, d[:]))
	if p.next.rounds%2 == 0 {
		flags |= avail
	} else {
		flags |= used
	}
	p.next.on(1, p.r.Size)
	return at + 14, flags
}

// add makes a chain available, of which the first readable buffers are to be read.
func (p *packedRing) add(bufs []Buf, readable int) uint16 {
	p.r.d.M.T.Helper()
	m := p.r.d.M
	var first uint64
	var firstFlags uint16
	for i, b := range bufs {
		flags := uint16(0)
		if i >= readable {
			flags |= Write
		}
		if i < len(bufs)-1 {
			flags |= Next
		}
		at, flags := p.put(b, flags)
		if i == 0 {
			first, firstFlags = at, flags
		} else {
			m.Must(m.Mem.Store16(at, flags))
		}
	}
	return p.expose(first, firstFlags, uint16(len(bufs)))
}

// addIndirect is add with one entry and bufs in table.
func (p *packedRing) addIndirect(table uint64, bufs []Buf, readable int) uint16 {
	p.r.d.M.T.Helper()
	for i, b := range bufs {
		flags := uint16(0)
		if i >= readable {
			flags |= Write
		}
		p.r.SetDesc(table, uint16(i), b, 0, flags) // the flags come last here
	}
	at, flags := p.put(Buf{table, uint32(16 * len(bufs))}, Indirect)
	return p.expose(at, flags, 1)
}

// expose makes what begins at first available.
func (p *packedRing) expose(first uint64, flags, entries uint16) uint16 {
	p.r.d.M.T.Helper()
	m := p.r.d.M
	p.wantInterrupt()
	p.entries[p.id] = entries
	m.Must(m.Mem.Store16(first, flags))
	p.id++
	return p.id - 1
}

// done tells whether the device has used another chain, and which.
func (p *packedRing) done() (id uint16, n uint32, ok bool) {
	p.r.d.M.T.Helper()
	m := p.r.d.M
	at := p.r.Desc + 16*uint64(p.last.at)
	flags, err := m.Mem.Load16(at + 14)
	m.Must(err)
	want := uint16(avail | used)
	if p.last.rounds%2 == 1 {
		want = 0
	}
	if flags&(avail|used) != want {
		return 0, 0, false
	}
	id, err = m.Mem.Load16(at + 12)
	m.Must(err)
	if flags&Write != 0 { // else the length says nothing
		n, err = m.Mem.Load32(at + 8)
		m.Must(err)
	}
	entries, known := p.entries[id]
	if !known {
		m.T.Fatalf("queue %d: chain %d was used that is not under way", p.r.Index, id)
	}
	delete(p.entries, id)
	p.last.on(entries, p.r.Size)
	return id, n, true
}

// wantInterrupt asks for an interrupt for the next used entry, or for all.
func (p *packedRing) wantInterrupt() {
	p.r.d.M.T.Helper()
	event := uint32(0)
	if p.r.EventIdx {
		const desc = 2
		event = desc<<16 | uint32(p.last.at) | uint32(p.last.rounds%2^1)<<15
	}
	p.r.d.M.Must(p.r.d.M.Mem.Store32(p.r.Avail, event))
}

// fuzz makes the first idx entries available, whatever is in them.
func (p *packedRing) fuzz(idx uint16) {
	m := p.r.d.M
	for i := range uint64(idx % p.r.Size) {
		at := p.r.Desc + 16*i + 14
		flags, err := m.Mem.Load16(at)
		m.Must(err)
		m.Must(m.Mem.Store16(at, flags&^used|avail))
	}
}
