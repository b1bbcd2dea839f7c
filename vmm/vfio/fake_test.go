package vfio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/pci"
	"github.com/ashlar-hv/ashlar/vmm/pci/pcitest"
)

// A fake is a device in memory: configuration space as a real one has it, and what it
// is asked to do. Real ones are in passthrough_root_test.go.
type fake struct {
	t  testing.TB
	mu sync.Mutex

	space  [pci.ConfigSize]byte
	config uint64 // bytes of it
	bar    map[int][]byte
	large  map[int]uint64 // BARs without bytes of their own
	irqs   [irqCount]irqs
	areas  map[int][]area

	resets int
	mode   int // index of the interrupts that are set up, -1 for none
	fds    map[int]int
	maps   int // areas that are mapped
	peers  map[uint64]uint64
	closed bool
	broken error // all accesses fail
}

// Where the fake's capabilities are.
const (
	fakePower   = 0x40
	fakeMSI     = 0x50
	fakeExpress = 0x70
	fakeMSIX    = 0xb0
	fakeVPD     = 0xc0
	fakeVendor  = 0xd0
	fakeTable   = 0x2000
	fakePending = 0x3000
	fakeVectors = 65
	fakeBAR     = 0x10000
)

func newFake(t testing.TB) *fake {
	d := &fake{t: t, config: pci.ConfigSize, mode: -1, bar: map[int][]byte{0: make([]byte, fakeBAR)}, large: map[int]uint64{4: 64 << 30}, areas: map[int][]area{}, peers: map[uint64]uint64{}}
	d.irqs = [irqCount]irqs{{1, false, true}, {32, false, true}, {fakeVectors, true, true}, {1, false, true}, {1, false, true}}
	put := func(off int, b ...byte) { copy(d.space[off:], b) }
	put(0, 0x34, 0x12, 0x78, 0x56, 0, 0, statusCapList, 0, 3, 2, 8, 1)
	put(regHeaderType, 0x80)
	put(regBAR, bar64)        // BAR 0: 64 bits
	put(regBAR+8, barIO)      // BAR 2: I/O
	put(regBAR+16, bar64|0x8) // BAR 4: prefetchable
	put(0x2c, 0x11, 0x22, 0x33, 0x44)
	put(regCapPointer, fakePower)
	put(regPin, 1)
	put(fakePower, pci.CapPower, fakeMSI, 0x03, 0xc8, 0, 0)
	put(fakeMSI, pci.CapMSI, fakeExpress, 5<<1, 1) // 32 messages, masks, 32 bits
	d.space[fakeMSI+2] |= msi64
	put(fakeExpress, pci.CapExpress, fakeVPD, 2, 0)
	put(fakeExpress+expressDevCap, 0, 0, 0, 0x10)
	put(fakeExpress+expressDevCtl, 0x10, 0x28)
	put(fakeExpress+expressLinkCap, 0x43, 0, 0, 0)
	put(fakeVPD, 0x03, fakeMSIX)
	put(fakeMSIX, pci.CapMSIX, fakeVendor, fakeVectors-1, 0, 0, fakeTable>>8, 0, 0, 0, fakePending>>8, 0, 0)
	put(fakeVendor, pci.CapVendor, fakePower, 8, 0xaa, 0xbb) // the list goes round
	dword := func(off int, v uint32) { binary.LittleEndian.PutUint32(d.space[off:], v) }
	dword(0x100, 0x00010010|0x140<<20) // SR-IOV
	dword(0x140, 0x00020001|0x1a0<<20) // AER
	dword(0x1a0, 0x00010003|0x1b0<<20) // serial number
	dword(0x1a4, 0x01020304)
	dword(0x1b0, 0x0001000b|0x140<<20) // vendor-specific, and round
	dword(0x1b4, 0x010<<20)
	return d
}

func (d *fake) regionOf(i int) region {
	switch {
	case i == regionConfig:
		return region{size: d.config}
	case d.large[i] != 0:
		return region{size: d.large[i], areas: []area{{0, d.large[i]}}}
	}
	n := uint64(len(d.bar[i]))
	r := region{size: n, areas: d.areas[i]}
	if r.areas == nil && n > 0 && i != regionROM {
		r.areas = []area{{0, n}}
	}
	return r
}

func (d *fake) irqOf(i int) irqs { return d.irqs[i] }

// bytes are those of an access, which is to lie inside of what there is.
func (d *fake) bytes(i int, off uint64, n int) ([]byte, error) {
	if d.closed {
		d.t.Error("the device is used after it was closed")
	}
	if d.broken != nil {
		return nil, d.broken
	}
	b := d.bar[i]
	if i == regionConfig {
		b = d.space[:d.config]
		if n > 4 && n != int(d.config) || off%uint64(n) != 0 {
			d.t.Errorf("%d bytes of configuration space at %#x", n, off)
		}
	}
	if size := d.regionOf(i).size; off > size || uint64(n) > size-off {
		d.t.Errorf("%d bytes at %#x of region %d, which has %#x", n, off, i, size)
		return nil, errors.New("outside")
	}
	if d.large[i] != 0 {
		return make([]byte, n), nil
	}
	return b[off:][:n], nil
}

func (d *fake) read(i int, off uint64, b []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	from, err := d.bytes(i, off, len(b))
	copy(b, from)
	return err
}

func (d *fake) write(i int, off uint64, b []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	to, err := d.bytes(i, off, len(b))
	copy(to, b)
	return err
}

type fakeMapping struct{ d *fake }

func (m fakeMapping) HostAddr() uintptr { return 1 << 40 }
func (m fakeMapping) Close() error      { m.d.maps--; return nil }

func (d *fake) mapArea(int, area, uint64) (mapping, error) { d.maps++; return fakeMapping{d}, nil }

func (d *fake) mapBAR(gpa, size uint64, _ uintptr) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.peers[gpa] = size
	return nil
}

func (d *fake) unmapBAR(gpa, size uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.peers[gpa] != size {
		d.t.Errorf("%#x bytes at %#x are unmapped, %#x were mapped", size, gpa, d.peers[gpa])
	}
	delete(d.peers, gpa)
	return nil
}

// setIRQs is as the kernel has it: one kind at a time, and no others added to those that
// do not grow.
func (d *fake) setIRQs(index, start int, fds ...int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if index == irqError || index == irqRequest {
		return nil
	}
	if start < 0 || start+len(fds) > d.irqs[index].count || len(fds) == 0 {
		d.t.Errorf("interrupts %d to %d of kind %d", start, start+len(fds), index)
	}
	switch {
	case d.mode == -1:
		d.mode, d.fds = index, map[int]int{}
		if !d.irqs[index].grows {
			for i := range start + len(fds) {
				d.fds[i] = -1
			}
		}
	case d.mode != index:
		d.t.Errorf("kind %d is set up while kind %d is", index, d.mode)
		return errors.New("another kind")
	}
	for i, fd := range fds {
		if _, ok := d.fds[start+i]; !ok && !d.irqs[index].grows {
			d.t.Errorf("interrupt %d was added", start+i)
			return errors.New("cannot grow")
		}
		d.fds[start+i] = fd
	}
	return nil
}

func (d *fake) unmaskBy(int) error {
	if d.mode != irqINTx {
		d.t.Error("INTx is not set up")
	}
	return nil
}

func (d *fake) disableIRQs(index int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mode != index {
		d.t.Errorf("kind %d is disabled, %d is set up", index, d.mode)
	}
	d.mode, d.fds = -1, nil
	return nil
}

func (d *fake) reset() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.resets++
	return d.broken
}

func (d *fake) close() error {
	if d.mode != -1 || d.maps != 0 {
		d.t.Errorf("closed with interrupts of kind %d and %d areas", d.mode, d.maps)
	}
	d.closed = true
	return nil
}

// live are the interrupts that signal somebody.
func (d *fake) live() []int {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []int
	for i, fd := range d.fds {
		if fd >= 0 {
			out = append(out, i)
		}
	}
	slices.Sort(out)
	return out
}

// fakeSlots are memory slots that may not lie over each other, as KVM has it.
type fakeSlots struct {
	mu   sync.Mutex
	next uint32
	used map[uint32]area
}

func (s *fakeSlots) AddSlot(gpa, size uint64, host uintptr) (uint32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.used {
		if gpa < a.off+a.size && a.off < gpa+size {
			return 0, errors.New("taken")
		}
	}
	if s.used == nil {
		s.used = make(map[uint32]area)
	}
	s.next++
	s.used[s.next] = area{gpa, size}
	return s.next, nil
}

func (s *fakeSlots) RemoveSlot(slot uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.used[slot]; !ok {
		return fmt.Errorf("slot %d is not there", slot)
	}
	delete(s.used, slot)
	return nil
}

func (s *fakeSlots) areas() []area {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []area
	for _, a := range s.used {
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b area) int { return int(int64(a.off) - int64(b.off)) })
	return out
}

type fakeLine struct {
	t         testing.TB
	connected bool
}

func (l *fakeLine) Connect(_, _ *os.File) error {
	if l.connected {
		l.t.Error("the line is connected twice")
	}
	l.connected = true
	return nil
}

func (l *fakeLine) Disconnect(*os.File) error {
	if !l.connected {
		l.t.Error("the line is not connected")
	}
	l.connected = false
	return nil
}

// A fakeBoard is a bus with one device on it, as number 1.
type fakeBoard struct {
	*pci.Bus
	t       testing.TB
	fn      *Function
	dev     *fake
	slots   *fakeSlots
	line    *fakeLine
	router  *pcitest.Router
	reports []error
}

const (
	lowBase  = 0xc0000000
	highBase = 1 << 40
)

func newFakeBoard(t testing.TB, d *fake, c Config) *fakeBoard {
	t.Helper()
	b := &fakeBoard{t: t, dev: d, slots: &fakeSlots{}, line: &fakeLine{t: t}, router: &pcitest.Router{}}
	c.Router, c.Slots, c.Line = b.router, b.slots, b.line
	c.Report = func(err error) { b.reports = append(b.reports, err) }
	if c.Error == nil {
		c.Error, c.Request = func() {}, func() {}
	}
	var err error
	if b.fn, err = newFunction(d, c); err != nil {
		t.Fatal(err)
	}
	b.Bus = pci.NewBus(pci.Window{Base: lowBase, Size: 512 << 20}, pci.Window{Base: highBase, Size: 1 << 39})
	if err := errors.Join(b.Add(1, b.fn), b.Assign()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.fn.Close(); err != nil {
			t.Error(err)
		}
		if b.line.connected || len(b.slots.areas()) > 0 {
			t.Errorf("after Close the line is connected (%v), slots are %v", b.line.connected, b.slots.areas())
		}
	})
	return b
}

const ecam = 8 * pci.ConfigSize

func (b *fakeBoard) get(off, n int) uint32 {
	var v [4]byte
	b.Read(ecam+uint64(off), v[:n])
	return binary.LittleEndian.Uint32(v[:])
}

func (b *fakeBoard) set(off, n int, v uint32) {
	b.Write(ecam+uint64(off), binary.LittleEndian.AppendUint32(nil, v)[:n])
}
