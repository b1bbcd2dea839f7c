package queue

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ashlar-hv/ashlar/vmm/memory"
)

func packedConfig(size uint16) Config {
	return Config{Size: size, Desc: descAt, Driver: availAt, Device: usedAt, Packed: true, Indirect: true, EventIdx: true}
}

// putPacked writes entry i, its flags last.
func putPacked(t testing.TB, m *memory.Memory, table uint64, i uint16, d descriptor) {
	t.Helper()
	var b [descSize]byte
	binary.LittleEndian.PutUint64(b[0:], d.gpa)
	binary.LittleEndian.PutUint32(b[8:], d.len)
	binary.LittleEndian.PutUint16(b[12:], d.id)
	must(t, m.WriteAt(table+descSize*uint64(i), b[:14]))
	must(t, m.Store16(table+descSize*uint64(i)+14, d.flags))
}

func TestPackedConfig(t *testing.T) {
	m := newMemory(t)
	for _, tt := range []struct {
		name string
		edit func(*Config)
		ok   bool
	}{
		{"good", func(*Config) {}, true},
		{"size 3", func(c *Config) { c.Size = 3 }, true},
		{"size 0", func(c *Config) { c.Size = 0 }, false},
		{"size 65535", func(c *Config) { c.Size = 65535 }, false},
		{"ring unaligned", func(c *Config) { c.Desc += 8 }, false},
		{"driver events unaligned", func(c *Config) { c.Driver += 2 }, false},
		{"device events outside", func(c *Config) { c.Device = memSize - 2 }, false},
		{"ring outside", func(c *Config) { c.Desc = memSize - 64 }, false},
		{"second round", func(c *Config) { c.Start = Indexes{7 | 1<<15, 3} }, true},
		{"start outside the ring", func(c *Config) { c.Start.Avail = 8 }, false},
		{"start of used ones outside the ring", func(c *Config) { c.Start.Used = 8 | 1<<15 }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := packedConfig(8)
			tt.edit(&c)
			_, err := New(m, c)
			if ok := err == nil; ok != tt.ok || !ok && !errors.Is(err, ErrConfig) {
				t.Errorf("New: %v; want success %v", err, tt.ok)
			}
		})
	}
}

func TestPackedPop(t *testing.T) {
	const av, wr, nx, ind = flagAvail, flagWrite, flagNext, flagIndirect
	for _, tt := range []struct {
		name     string
		descs    []descriptor // from 0 on
		table    []descriptor
		direct   bool // VIRTIO_F_INDIRECT_DESC not negotiated
		head     Head
		readable []Buffer
		writable []Buffer
		err      error
	}{
		{name: "nothing", descs: []descriptor{{0x100, 16, 0, 0, 5}}},
		{name: "used already", descs: []descriptor{{0x100, 16, av | flagUsed, 0, 5}}},
		{name: "one", descs: []descriptor{{0x100, 16, av, 0, 5}}, head: Head{5, 1}, readable: []Buffer{{0x100, 16}}},
		{name: "two", descs: []descriptor{{0x100, 16, av | nx, 0, 9}, {0x200, 8, av | wr, 0, 65535}}, head: Head{65535, 2},
			readable: []Buffer{{0x100, 16}}, writable: []Buffer{{0x200, 8}}},
		{name: "goes on in what is not available", descs: []descriptor{{0x100, 16, av | nx, 0, 9}, {0x200, 8, wr, 0, 1}}, err: ErrMalformed},
		{name: "longer than the ring", descs: []descriptor{{0x100, 1, av | nx, 0, 0}, {0x100, 1, av | nx, 0, 0}, {0x100, 1, av | nx, 0, 0}},
			err: ErrMalformed},
		{name: "outside", descs: []descriptor{{memSize - 1, 2, av, 0, 0}}, err: ErrMalformed},
		{name: "indirect", descs: []descriptor{{tableAt, 32, av | ind, 0, 3}}, table: []descriptor{{0x100, 4, 0, 0, 0}, {0x200, 5, wr, 0, 0}},
			head: Head{3, 1}, readable: []Buffer{{0x100, 4}}, writable: []Buffer{{0x200, 5}}},
		{name: "next in a table says nothing", descs: []descriptor{{tableAt, 32, av | ind, 0, 3}},
			table: []descriptor{{0x100, 4, nx, 77, 0}, {0x200, 5, wr | nx, 88, 0}},
			head:  Head{3, 1}, readable: []Buffer{{0x100, 4}}, writable: []Buffer{{0x200, 5}}},
		{name: "indirect not negotiated", direct: true, descs: []descriptor{{tableAt, 16, av | ind, 0, 0}}, err: ErrMalformed},
		{name: "indirect and next", descs: []descriptor{{tableAt, 16, av | ind | nx, 0, 0}}, err: ErrMalformed},
		{name: "nested", descs: []descriptor{{tableAt, 16, av | ind, 0, 0}}, table: []descriptor{{tableAt, 16, ind, 0, 0}}, err: ErrMalformed},
		{name: "readable after writable", descs: []descriptor{{tableAt, 32, av | ind, 0, 0}},
			table: []descriptor{{0x100, 4, wr, 0, 0}, {0x200, 5, 0, 0, 0}}, err: ErrMalformed},
		{name: "indirect of 17 bytes", descs: []descriptor{{tableAt, 17, av | ind, 0, 0}}, err: ErrMalformed},
		{name: "indirect outside", descs: []descriptor{{memSize - 16, 32, av | ind, 0, 0}}, err: ErrMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := packedConfig(3)
			c.Indirect = !tt.direct
			q, m := newQueue(t, c)
			for i, d := range tt.descs {
				putPacked(t, m, descAt, uint16(i), d)
			}
			for i, d := range tt.table {
				putPacked(t, m, tableAt, uint16(i), d)
			}
			var got Chain
			ok, err := q.Pop(&got)
			if !errors.Is(err, tt.err) || ok != (tt.head != Head{}) || got.Head != tt.head {
				t.Fatalf("Pop = %v, %v, chain %v; want %v, error %v", ok, err, got.Head, tt.head, tt.err)
			}
			if d := cmp.Diff(append([]Buffer{}, tt.readable...), append([]Buffer{}, got.Readable...)); d != "" {
				t.Errorf("readable: %s", d)
			}
			if d := cmp.Diff(append([]Buffer{}, tt.writable...), append([]Buffer{}, got.Writable...)); d != "" {
				t.Errorf("writable: %s", d)
			}
		})
	}
}

// A packedDriver makes entries available in turn.
type packedDriver struct {
	t     *testing.T
	m     *memory.Memory
	size  uint16
	at    place
	taken place
}

// add makes a chain of n entries available, by the name id.
func (d *packedDriver) add(id, n uint16) {
	d.t.Helper()
	for i := range n {
		flags := uint16(flagAvail)
		if d.at.second {
			flags = flagUsed
		}
		if i < n-1 {
			flags |= flagNext
		}
		putPacked(d.t, d.m, descAt, d.at.at, descriptor{gpa: 0x100, len: 1, flags: flags, id: id})
		d.at = d.at.on(1, d.size)
	}
}

// take sees a chain of n entries used, and returns its name and length.
func (d *packedDriver) take(n uint16) (id uint16, length uint32, ok bool) {
	d.t.Helper()
	at := descAt + descSize*uint64(d.taken.at)
	flags, err := d.m.Load16(at + 14)
	must(d.t, err)
	want := uint16(flagAvail | flagUsed)
	if d.taken.second {
		want = 0
	}
	if flags&(flagAvail|flagUsed) != want {
		return 0, 0, false
	}
	id, err = d.m.Load16(at + 12)
	must(d.t, err)
	length, err = d.m.Load32(at + 8)
	must(d.t, err)
	if (length > 0) != (flags&flagWrite != 0) {
		d.t.Fatalf("used entry of %d bytes with flags %#x", length, flags)
	}
	d.taken = d.taken.on(n, d.size)
	return id, length, true
}

// TestPackedRounds goes round a ring whose size is no power of two with chains of one and
// two entries, given back in another order, some of them by Stage.
func TestPackedRounds(t *testing.T) {
	q, m := newQueue(t, packedConfig(5))
	d := &packedDriver{t: t, m: m, size: 5}
	for round := range uint16(40) {
		d.add(2*round, 2)
		d.add(2*round+1, 1)
		var a, b, none Chain
		for _, c := range []*Chain{&a, &b} {
			if ok, err := q.Pop(c); !ok || err != nil {
				t.Fatalf("round %d: Pop = %v, %v", round, ok, err)
			}
		}
		if ok, err := q.Pop(&none); ok || err != nil {
			t.Fatalf("round %d: third Pop = %v, %v", round, ok, err)
		}
		q.Undo(a, b)
		for _, c := range []*Chain{&a, &b} {
			if ok, err := q.Pop(c); !ok || err != nil {
				t.Fatalf("round %d: Pop after Undo = %v, %v", round, ok, err)
			}
		}
		must(t, q.Stage(b.Head, 7))
		must(t, q.Stage(a.Head, 0))
		if _, _, ok := d.take(1); ok {
			t.Fatalf("round %d: a staged chain shows before Publish", round)
		}
		must(t, q.Publish())
		for i, c := range []struct {
			head Head
			n    uint32
		}{{b.Head, 7}, {a.Head, 0}} {
			if id, n, ok := d.take(c.head.Entries); !ok || id != c.head.ID || n != c.n {
				t.Fatalf("round %d: used %d: chain %d, %d bytes, %v; want chain %d, %d bytes", round, i, id, n, ok, c.head.ID, c.n)
			}
		}
		// What a pause keeps is enough to go on.
		c := packedConfig(5)
		c.Start = q.Indexes()
		var err error
		if q, err = New(m, c); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPackedInterrupt(t *testing.T) {
	for _, tt := range []struct {
		name  string
		start uint16 // of used entries
		event uint32 // flags and offset, as they stand in memory
		push  int
		want  bool
	}{
		{"nothing used", 0, 0, 0, false},
		{"enabled", 0, eventEnable << 16, 1, true},
		{"disabled", 0, eventDisable << 16, 1, false},
		{"reserved flags", 0, 3 << 16, 1, true},
		{"this entry", 0, eventDesc<<16 | 1<<15 | 0, 1, true},
		{"passed in a batch", 0, eventDesc<<16 | 1<<15 | 2, 4, true},
		{"ahead", 0, eventDesc<<16 | 1<<15 | 4, 4, false},
		{"ahead, in the next round", 0, eventDesc<<16 | 0, 4, false},
		{"over the end", 6, eventDesc<<16 | 1<<15 | 7, 4, true},
		{"over the end, to the next round", 6, eventDesc<<16 | 1, 4, true},
		{"over the end, ahead", 6, eventDesc<<16 | 2, 4, false},
		{"second round", 6 | 1<<15, eventDesc<<16 | 7, 4, true},
		{"the whole ring", 0, eventDesc<<16 | 1<<15 | 9, 8, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := packedConfig(8)
			c.Start = Indexes{tt.start, tt.start}
			q, m := newQueue(t, c)
			must(t, m.Store32(availAt, tt.event))
			for range tt.push {
				must(t, q.Push(Head{Entries: 1}, 0))
			}
			if got, err := q.Interrupt(); got != tt.want || err != nil {
				t.Errorf("Interrupt = %v, %v; want %v", got, err, tt.want)
			}
			if got, err := q.Interrupt(); got || err != nil {
				t.Errorf("second Interrupt = %v, %v; want false", got, err)
			}
		})
	}
}

func TestPackedArm(t *testing.T) {
	for _, eventIdx := range []bool{false, true} {
		c := packedConfig(2)
		c.EventIdx = eventIdx
		q, m := newQueue(t, c)
		d := &packedDriver{t: t, m: m, size: 2}
		event := func() uint32 {
			v, err := m.Load32(usedAt)
			must(t, err)
			return v
		}
		for i := range 5 {
			must(t, q.Disarm())
			if event() != eventDisable<<16 {
				t.Errorf("events after Disarm = %#x", event())
			}
			if more, err := q.Arm(); more || err != nil {
				t.Errorf("Arm of an empty queue = %v, %v", more, err)
			}
			want := uint32(0)
			if eventIdx {
				want = eventDesc<<16 | uint32(i%2)
				if i/2%2 == 0 {
					want |= 1 << 15
				}
			}
			if event() != want {
				t.Errorf("events after Arm at entry %d = %#x, want %#x", i, event(), want)
			}
			d.add(0, 1)
			if more, err := q.Arm(); !more || err != nil {
				t.Errorf("Arm with a chain = %v, %v; want true", more, err)
			}
			var ch Chain
			if ok, err := q.Pop(&ch); !ok || err != nil {
				t.Fatal(ok, err)
			}
			must(t, q.Push(ch.Head, 0))
			if _, _, ok := d.take(1); !ok {
				t.Fatal("not used")
			}
		}
	}
}

// FuzzPacked lets a driver write anything into a packed ring and its tables: Pop must
// end, hand out only guest memory, and never panic.
func FuzzPacked(f *testing.F) {
	f.Add(uint16(3), uint16(1), []byte{0, 1, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 1, 0, 0x80, 0}, []byte{}, uint32(0))
	f.Add(uint16(8), uint16(0), []byte{0, 64, 0, 0, 0, 0, 0, 0, 32, 0, 0, 0, 4, 0, 0x84, 0},
		[]byte{0, 1, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 2, 0, 0, 0}, uint32(0x20003))
	f.Add(uint16(1), uint16(0x8000), []byte{255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 0, 0, 0x80}, []byte{}, ^uint32(0))
	m := newMemory(f)
	f.Fuzz(func(t *testing.T, size, start uint16, desc, table []byte, event uint32) {
		c := packedConfig(size%256 + 1)
		c.Indirect, c.EventIdx = size&0x4000 == 0, size&0x8000 == 0
		c.Start = Indexes{Avail: start, Used: start}
		must(t, m.Zero(0, 0x8000))
		must(t, m.WriteAt(descAt, desc[:min(len(desc), 4096)]))
		must(t, m.Store32(availAt, event))
		must(t, m.WriteAt(tableAt, table[:min(len(table), 4096)]))
		q, err := New(m, c)
		if err != nil {
			if int(start&^secondRound) < int(c.Size) {
				t.Fatal(err)
			}
			return
		}
		var ch Chain
		for range 2*int(c.Size) + 1 {
			ok, err := q.Pop(&ch)
			if !ok || err != nil {
				if len(ch.Readable)+len(ch.Writable) != 0 {
					t.Fatalf("Pop = %v, %v with buffers %v", ok, err, ch)
				}
				break
			}
			bufs := append(append([]Buffer(nil), ch.Readable...), ch.Writable...)
			if len(bufs) > MaxChain || ch.Head.Entries == 0 || ch.Head.Entries > c.Size {
				t.Fatalf("chain %v of %d buffers", ch.Head, len(bufs))
			}
			for _, b := range bufs {
				if b.Len == 0 || !m.Contains(b.GPA, uint64(b.Len)) {
					t.Fatalf("buffer %+v", b)
				}
			}
			must(t, q.Push(ch.Head, 1))
			if _, err := q.Interrupt(); err != nil {
				t.Fatal(err)
			}
			if _, err := q.Arm(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
