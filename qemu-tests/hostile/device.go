package main

import (
	"fmt"
	"time"
)

// Capabilities, and registers of the common configuration (VIRTIO 1.2 sections 4.1.4 and
// 4.1.4.3).
const (
	barSize = 0x8000

	capCommon = 1
	capNotify = 2
	capISR    = 3
	capDevice = 4
	capWindow = 5

	deviceFeatureSelect = 0x00
	deviceFeature       = 0x04
	driverFeatureSelect = 0x08
	driverFeature       = 0x0c
	numQueues           = 0x12
	deviceStatus        = 0x14
	queueSelect         = 0x16
	queueSize           = 0x18
	queueVector         = 0x1a
	queueEnable         = 0x1c
	queueDesc           = 0x20
	queueDriver         = 0x28
	queueDevice         = 0x30
	commonSize          = 0x38

	acknowledge = 1
	driver      = 2
	driverOK    = 4
	featuresOK  = 8
	needsReset  = 64

	version1     = 1 << 32
	indirectDesc = 1 << 28
	ringPacked   = 1 << 34
)

// Flags of descriptors (section 2.7.5).
const (
	flagNext     = 1
	flagWrite    = 2
	flagIndirect = 4
)

// patience bounds a wait: a guest that is emulated may see its timers a minute late.
const patience = 2 * time.Minute

// ringEntries is how many entries the honest driver's rings have, or fewer.
const ringEntries = 64

// A device is a virtio device that this program drives, honestly or not.
type device struct {
	*function
	kind   *kind
	a      *arena
	rings  []*ring
	common int
}

// A ring is a split queue's: descriptors at 0, available ring at 0x1000, used ring at 0x2000
// of its space in the arena.
type ring struct {
	d     *device
	index int
	at    int // in the arena
	size  int
	avail uint16 // next index
	used  uint16 // as seen last
}

func (d *device) reg(at, width int) uint64     { return peek(d.bar, d.common+at, width) }
func (d *device) set(at, width int, v uint64)  { poke(d.bar, d.common+at, width, v) }
func (d *device) status() uint64               { return d.reg(deviceStatus, 1) }
func (d *device) addStatus(v uint64)           { d.set(deviceStatus, 1, d.status()|v) }
func (d *device) gpa(at int) uint64            { return d.a.gpa + uint64(at) }
func (d *device) selectQueue(i int)            { d.set(queueSelect, 2, uint64(i)) }
func (d *device) setQueue(at int, v uint64)    { d.set(at, 4, v&0xffffffff); d.set(at+4, 4, v>>32) }
func (r *ring) bytes() []byte                  { return r.d.a.b[r.at:][:ringSpace] }
func (r *ring) descriptor(i int, v descriptor) { v.put(r.bytes(), 16*i) }
func (r *ring) usedIndex() uint16              { return uint16(peek(r.bytes(), 0x2002, 2)) }
func (r *ring) publish(index uint16)           { poke(r.bytes(), 0x1002, 2, uint64(index)) }
func (r *ring) entry(i uint16, head uint16) {
	poke(r.bytes(), 0x1004+2*(int(i)%r.size), 2, uint64(head))
}
func (r *ring) kick()                { r.d.notify(r.index) }
func (d *device) notify(i int)       { poke(d.bar, d.notifyAt(i), 2, uint64(i)) }
func (d *device) notifyAt(i int) int { p := d.caps[capNotify]; return p.off + p.multiplier*i }

// A descriptor is an entry of a descriptor table.
type descriptor struct {
	gpa   uint64
	n     uint32
	flags uint16
	next  uint16
}

func (v descriptor) put(b []byte, at int) {
	poke(b, at, 8, v.gpa)
	poke(b, at+8, 4, uint64(v.n))
	poke(b, at+12, 2, uint64(v.flags))
	poke(b, at+14, 2, uint64(v.next))
}

// reset writes 0 to the status and waits until it reads so.
func (d *device) reset() error {
	d.set(deviceStatus, 1, 0)
	return wait("a reset", func() bool { return d.status() == 0 })
}

func wait(what string, ok func() bool) error {
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(200 * time.Microsecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("no %s within %v", what, patience)
		}
	}
	return nil
}

func (d *device) offered() uint64 {
	d.set(deviceFeatureSelect, 4, 0)
	v := d.reg(deviceFeature, 4)
	d.set(deviceFeatureSelect, 4, 1)
	return v | d.reg(deviceFeature, 4)<<32
}

// negotiate takes the device from a reset to FEATURES_OK, with these features of those that
// are offered, and no interrupts.
func (d *device) negotiate(features uint64) error {
	if err := d.reset(); err != nil {
		return err
	}
	d.addStatus(acknowledge)
	d.addStatus(driver)
	features &= d.offered()
	for i := range 2 {
		d.set(driverFeatureSelect, 4, uint64(i))
		d.set(driverFeature, 4, features>>(32*i)&0xffffffff)
	}
	d.addStatus(featuresOK)
	if s := d.status(); s&featuresOK == 0 {
		return fmt.Errorf("status %#x: features %#x refused", s, features)
	}
	return nil
}

// queue gives queue i a fresh ring. It is enabled where on is true.
func (d *device) queue(i int, on bool) *ring {
	d.selectQueue(i)
	r := &ring{d: d, index: i, at: i * ringSpace, size: min(int(d.reg(queueSize, 2)), ringEntries)}
	clear(r.bytes())
	poke(r.bytes(), 0x1000, 2, 1) // no interrupts
	d.set(queueSize, 2, uint64(r.size))
	d.setQueue(queueDesc, d.gpa(r.at))
	d.setQueue(queueDriver, d.gpa(r.at+0x1000))
	d.setQueue(queueDevice, d.gpa(r.at+0x2000))
	if on {
		d.set(queueEnable, 2, 1)
	}
	return r
}

// start is what an honest driver does.
func (d *device) start(features uint64) error {
	if err := d.negotiate(version1 | features); err != nil {
		return err
	}
	d.rings = nil
	for i := range min(int(d.reg(numQueues, 2)), d.kind.queues) {
		d.rings = append(d.rings, d.queue(i, true))
	}
	if len(d.rings) != d.kind.queues {
		return fmt.Errorf("%d queues, want %d", len(d.rings), d.kind.queues)
	}
	d.addStatus(driverOK)
	if s := d.status(); s&(driverOK|needsReset) != driverOK {
		return fmt.Errorf("status %#x after DRIVER_OK", s)
	}
	return nil
}

// A buffer is a part of a request: bytes for the device, or room for what it says.
type buffer struct {
	out  []byte
	room int
}

// post makes one chain of buffers available at a place of their own, and says where each lies.
func (r *ring) post(slot int, buffers ...buffer) []int {
	const slotSize = 0x2000
	at := bufferAt + slotSize*slot
	head := slot * 4
	var places []int
	for i, b := range buffers {
		v := descriptor{gpa: r.d.gpa(at), n: uint32(len(b.out) + b.room)}
		if b.room > 0 {
			v.flags |= flagWrite
		}
		if i < len(buffers)-1 {
			v.flags |= flagNext
			v.next = uint16(head + i + 1)
		}
		copy(r.d.a.b[at:], b.out)
		r.descriptor(head+i, v)
		places = append(places, at)
		at += (len(b.out) + b.room + 63) &^ 63
	}
	r.entry(r.avail, uint16(head))
	r.avail++
	r.publish(r.avail)
	return places
}

// request makes an honest request, and waits for its end.
func (r *ring) request(buffers ...buffer) (places []int, written uint32, err error) {
	places = r.post(0, buffers...)
	r.kick()
	want := r.used + 1
	err = wait("answer to a request", func() bool { return r.usedIndex() == want || r.d.status()&needsReset != 0 })
	if err == nil && r.usedIndex() != want {
		err = fmt.Errorf("status %#x after an honest request", r.d.status())
	}
	if err != nil {
		return nil, 0, err
	}
	written = uint32(peek(r.bytes(), 0x2004+8*(int(r.used)%r.size)+4, 4))
	r.used = want
	return places, written, nil
}
