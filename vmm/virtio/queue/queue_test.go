package queue

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ashlar-hv/ashlar/vmm/memory"
)

const (
	memSize = 1 << 20
	descAt  = 0x1000
	availAt = 0x2000
	usedAt  = 0x3000
	tableAt = 0x4000
)

func newMemory(t testing.TB) *memory.Memory {
	t.Helper()
	f, err := memory.Create("queue-test", memSize)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := memory.Map(f, memSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func config(size uint16) Config {
	return Config{Size: size, Desc: descAt, Driver: availAt, Device: usedAt}
}

func newQueue(t testing.TB, c Config) (*Queue, *memory.Memory) {
	t.Helper()
	m := newMemory(t)
	q, err := New(m, c)
	if err != nil {
		t.Fatal(err)
	}
	return q, m
}

func put(t testing.TB, m *memory.Memory, table uint64, i uint16, d descriptor) {
	t.Helper()
	var b [descSize]byte
	binary.LittleEndian.PutUint64(b[0:], d.gpa)
	binary.LittleEndian.PutUint32(b[8:], d.len)
	binary.LittleEndian.PutUint16(b[12:], d.flags)
	binary.LittleEndian.PutUint16(b[14:], d.next)
	must(t, m.WriteAt(table+descSize*uint64(i), b[:]))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// expose makes heads available, after idx entries before.
func expose(t testing.TB, m *memory.Memory, size, idx uint16, heads ...uint16) {
	t.Helper()
	for _, h := range heads {
		must(t, m.Store16(availAt+4+2*uint64(idx%size), h))
		idx++
	}
	must(t, m.Store16(availAt+2, idx))
}

func TestConfig(t *testing.T) {
	m := newMemory(t)
	for _, tt := range []struct {
		name string
		edit func(*Config)
		ok   bool
	}{
		{"good", func(*Config) {}, true},
		{"size 1", func(c *Config) { c.Size = 1 }, true},
		{"size 0", func(c *Config) { c.Size = 0 }, false},
		{"size 3", func(c *Config) { c.Size = 3 }, false},
		{"size 65535", func(c *Config) { c.Size = 65535 }, false},
		{"table unaligned", func(c *Config) { c.Desc += 8 }, false},
		{"available unaligned", func(c *Config) { c.Driver++ }, false},
		{"used unaligned", func(c *Config) { c.Device += 2 }, false},
		{"table outside", func(c *Config) { c.Desc = memSize - 64 }, false},
		{"available outside", func(c *Config) { c.Driver = memSize }, false},
		{"used outside", func(c *Config) { c.Device = 1 << 63 }, false},
		{"table wraps", func(c *Config) { c.Desc = ^uint64(15) }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := config(8)
			tt.edit(&c)
			q, err := New(m, c)
			if ok := err == nil; ok != tt.ok || !ok && (!errors.Is(err, ErrConfig) || q != nil) {
				t.Errorf("New = %v, %v; want success %v", q, err, tt.ok)
			}
		})
	}
}

func TestPop(t *testing.T) {
	const rd, wr, nx, ind = 0, flagWrite, flagNext, flagIndirect
	for _, tt := range []struct {
		name     string
		descs    []descriptor // from 0 on; the chain begins at 0
		table    []descriptor
		direct   bool // VIRTIO_F_INDIRECT_DESC not negotiated
		head     uint16
		readable []Buffer
		writable []Buffer
		err      error
	}{
		{name: "one", descs: []descriptor{{0x100, 16, rd, 0, 0}}, readable: []Buffer{{0x100, 16}}},
		{name: "two", descs: []descriptor{{0x100, 16, nx, 1, 0}, {0x200, 8, wr, 0, 0}},
			readable: []Buffer{{0x100, 16}}, writable: []Buffer{{0x200, 8}}},
		{name: "empty buffer", descs: []descriptor{{0x100, 0, nx, 1, 0}, {0x200, 8, wr, 0, 0}}, writable: []Buffer{{0x200, 8}}},
		{name: "loop", descs: []descriptor{{0x100, 1, nx, 1, 0}, {0x200, 1, nx, 0, 0}}, err: ErrMalformed},
		{name: "self loop of empty buffers", descs: []descriptor{{0x100, 0, nx, 0, 0}}, err: ErrMalformed},
		{name: "next out of range", descs: []descriptor{{0x100, 1, nx, 8, 0}}, err: ErrMalformed},
		{name: "head out of range", head: 8, err: ErrMalformed},
		{name: "readable after writable", descs: []descriptor{{0x100, 1, wr | nx, 1, 0}, {0x200, 1, rd, 0, 0}}, err: ErrMalformed},
		{name: "outside", descs: []descriptor{{memSize - 1, 2, rd, 0, 0}}, err: ErrMalformed},
		{name: "wraps", descs: []descriptor{{^uint64(0), 2, rd, 0, 0}}, err: ErrMalformed},
		{name: "indirect", descs: []descriptor{{tableAt, 32, ind, 0, 0}},
			table:    []descriptor{{0x100, 4, nx, 1, 0}, {0x200, 5, wr, 0, 0}},
			readable: []Buffer{{0x100, 4}}, writable: []Buffer{{0x200, 5}}},
		{name: "direct, then indirect", descs: []descriptor{{0x80, 3, nx, 1, 0}, {tableAt, 16, ind | wr, 0, 0}},
			table: []descriptor{{0x100, 4, rd, 0, 0}}, readable: []Buffer{{0x80, 3}, {0x100, 4}}},
		{name: "indirect not negotiated", direct: true, descs: []descriptor{{tableAt, 16, ind, 0, 0}}, err: ErrMalformed},
		{name: "indirect and next", descs: []descriptor{{tableAt, 16, ind | nx, 1, 0}}, err: ErrMalformed},
		{name: "nested", descs: []descriptor{{tableAt, 16, ind, 0, 0}}, table: []descriptor{{tableAt, 16, ind, 0, 0}}, err: ErrMalformed},
		{name: "indirect loop", descs: []descriptor{{tableAt, 16, ind, 0, 0}}, table: []descriptor{{0x100, 1, nx, 0, 0}}, err: ErrMalformed},
		{name: "indirect of 0 bytes", descs: []descriptor{{tableAt, 0, ind, 0, 0}}, err: ErrMalformed},
		{name: "indirect of 17 bytes", descs: []descriptor{{tableAt, 17, ind, 0, 0}}, err: ErrMalformed},
		{name: "indirect too long", descs: []descriptor{{tableAt, 16 * (MaxChain + 1), ind, 0, 0}}, err: ErrMalformed},
		{name: "indirect outside", descs: []descriptor{{memSize - 16, 32, ind, 0, 0}}, err: ErrMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := config(8)
			c.Indirect = !tt.direct
			q, m := newQueue(t, c)
			for i, d := range tt.descs {
				put(t, m, descAt, uint16(i), d)
			}
			for i, d := range tt.table {
				put(t, m, tableAt, uint16(i), d)
			}
			expose(t, m, 8, 0, tt.head)
			var got Chain
			ok, err := q.Pop(&got)
			if !errors.Is(err, tt.err) || ok != (tt.err == nil) {
				t.Fatalf("Pop = %v, %v; want error %v", ok, err, tt.err)
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

func TestAvailableIndexTooFar(t *testing.T) {
	q, m := newQueue(t, config(8))
	must(t, m.Store16(availAt+2, 9))
	var c Chain
	if ok, err := q.Pop(&c); ok || !errors.Is(err, ErrMalformed) {
		t.Errorf("Pop = %v, %v; want ErrMalformed", ok, err)
	}
}

// TestWrap takes the indexes over 65535.
func TestWrap(t *testing.T) {
	c := config(4)
	c.Start = Indexes{Avail: 65534, Used: 65534}
	q, m := newQueue(t, c)
	put(t, m, descAt, 2, descriptor{0x100, 1, 0, 0, 0})
	expose(t, m, 4, 65534, 2, 2, 2, 2)
	var ch Chain
	for i := range 4 {
		if ok, err := q.Pop(&ch); !ok || err != nil || ch.Head.ID != 2 {
			t.Fatalf("Pop %d = %v, %v", i, ok, err)
		}
		must(t, q.Push(ch.Head, uint32(i)))
	}
	if ok, err := q.Pop(&ch); ok || err != nil {
		t.Errorf("Pop of an empty ring = %v, %v", ok, err)
	}
	if idx, _ := m.Load16(usedAt + 2); idx != 2 {
		t.Errorf("used index = %d, want 2", idx)
	}
	if n, _ := m.Load32(usedAt + 4 + 8*1 + 4); n != 3 { // entry 65537 % 4
		t.Errorf("last used length = %d, want 3", n)
	}
	if got, want := q.Indexes(), (Indexes{2, 2}); got != want {
		t.Errorf("Indexes = %v, want %v", got, want)
	}
}

func TestInterrupt(t *testing.T) {
	for _, tt := range []struct {
		name     string
		eventIdx bool
		flags    uint16
		event    uint16
		push     int
		want     bool
	}{
		{"nothing used", false, 0, 0, 0, false},
		{"wanted", false, 0, 0, 1, true},
		{"not wanted", false, 1, 0, 1, false},
		{"event is next", true, 1, 0, 1, true},
		{"event passed in a batch", true, 0, 2, 4, true},
		{"event ahead", true, 0, 4, 4, false},
		{"event long behind", true, 0, 65000, 4, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := config(8)
			c.EventIdx = tt.eventIdx
			q, m := newQueue(t, c)
			must(t, m.Store16(availAt, tt.flags))
			must(t, m.Store16(availAt+4+2*8, tt.event))
			for range tt.push {
				must(t, q.Push(Head{}, 0))
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

func TestArm(t *testing.T) {
	for _, eventIdx := range []bool{false, true} {
		c := config(8)
		c.EventIdx = eventIdx
		q, m := newQueue(t, c)
		put(t, m, descAt, 0, descriptor{0x100, 1, 0, 0, 0})
		must(t, q.Disarm())
		if flags, _ := m.Load16(usedAt); (flags == noNotify) == eventIdx {
			t.Errorf("event index %v: used flags after Disarm = %d", eventIdx, flags)
		}
		if more, err := q.Arm(); more || err != nil {
			t.Errorf("Arm of an empty queue = %v, %v", more, err)
		}
		expose(t, m, 8, 0, 0)
		if more, err := q.Arm(); !more || err != nil {
			t.Errorf("Arm with a chain = %v, %v; want true", more, err)
		}
		var ch Chain
		if ok, err := q.Pop(&ch); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if _, err := q.Arm(); err != nil {
			t.Fatal(err)
		}
		if event, _ := m.Load16(usedAt + 4 + 8*8); eventIdx && event != 1 {
			t.Errorf("avail_event = %d, want 1", event)
		}
	}
}

func TestUndo(t *testing.T) {
	q, m := newQueue(t, config(8))
	put(t, m, descAt, 0, descriptor{0x100, 1, 0, 0, 0})
	put(t, m, descAt, 3, descriptor{0x200, 1, 0, 0, 0})
	expose(t, m, 8, 0, 0, 3)
	var c Chain
	var taken [2]Chain
	for i := range taken {
		if ok, err := q.Pop(&taken[i]); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	q.Undo(taken[:]...)
	if ok, err := q.Pop(&c); !ok || err != nil || c.Head.ID != 0 {
		t.Errorf("Pop after Undo = %v, %v, chain %d; want chain 0", ok, err, c.Head.ID)
	}
}

func TestCopy(t *testing.T) {
	m := newMemory(t)
	bufs := []Buffer{{0x100, 3}, {0x200, 5}, {0x300, 1}}
	if n, err := CopyIn(m, bufs, 2, []byte("abcdefghij")); n != 7 || err != nil {
		t.Errorf("CopyIn = %d, %v; want 7", n, err)
	}
	p := make([]byte, 4)
	if n, err := CopyOut(m, bufs, 3, p); n != 4 || err != nil || string(p) != "bcde" {
		t.Errorf("CopyOut = %d, %v, %q; want 4, bcde", n, err, p)
	}
	if n, err := CopyOut(m, bufs, 9, p); n != 0 || err != nil {
		t.Errorf("CopyOut at the end = %d, %v; want 0", n, err)
	}
	got := Slice(nil, bufs, 2, 6)
	if d := cmp.Diff([]Buffer{{0x102, 1}, {0x200, 5}}, got); d != "" {
		t.Error(d)
	}
	if n := Len(bufs); n != 9 {
		t.Errorf("Len = %d, want 9", n)
	}
}

// FuzzQueue lets a driver write anything into rings and registers: Pop must end,
// hand out only guest memory, and never panic.
func FuzzQueue(f *testing.F) {
	f.Add(uint8(3), uint16(1), []byte{0, 1, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 1, 0, 1, 0}, []byte{0, 0, 4, 0, 0, 0}, []byte{})
	f.Add(uint8(3), uint16(0), []byte{0, 64, 0, 0, 0, 0, 0, 0, 32, 0, 0, 0, 4, 0, 0, 0}, []byte{0, 0, 1, 0},
		[]byte{0, 1, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 2, 0, 0, 0})
	f.Add(uint8(0), uint16(65535), []byte{255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 0, 0, 0}, []byte{0, 0, 0, 0}, []byte{})
	m := newMemory(f)
	f.Fuzz(func(t *testing.T, order uint8, start uint16, desc, avail, table []byte) {
		c := config(1 << (order % 8))
		c.Indirect, c.EventIdx = order&0x40 == 0, order&0x80 != 0
		c.Start = Indexes{Avail: start, Used: start}
		must(t, m.Zero(0, 0x8000))
		must(t, m.WriteAt(descAt, desc[:min(len(desc), 4096)]))
		must(t, m.WriteAt(availAt, avail[:min(len(avail), 4096)]))
		must(t, m.WriteAt(tableAt, table[:min(len(table), 4096)]))
		q, err := New(m, c)
		if err != nil {
			t.Fatal(err)
		}
		var ch Chain
		for range int(c.Size) + 1 {
			ok, err := q.Pop(&ch)
			if !ok || err != nil {
				if len(ch.Readable)+len(ch.Writable) != 0 {
					t.Fatalf("Pop = %v, %v with buffers %v", ok, err, ch)
				}
				break
			}
			bufs := append(append([]Buffer(nil), ch.Readable...), ch.Writable...)
			if len(bufs) > MaxChain || ch.Head.ID >= c.Size {
				t.Fatalf("chain %d of %d buffers", ch.Head.ID, len(bufs))
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
				break
			}
		}
	})
}
