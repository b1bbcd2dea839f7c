package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"time"
)

// An attack breaks rules of one device. What it does follows from r alone.
type attack struct {
	name string
	// breaks tells that the device has to say DEVICE_NEEDS_RESET.
	breaks bool
	// only are the kinds of devices that it is for; none: all.
	only []string
	// features are taken beyond VERSION_1, where offered; all have to be for the attack to be made.
	features uint64
	f        func(d *device, r *rand.Rand)
}

var attacks = []attack{
	{"loop", true, nil, 0, chain(func(d *device, r *rand.Rand, c []descriptor) []descriptor {
		c[len(c)-1].flags |= flagNext
		c[len(c)-1].next = uint16(r.IntN(len(c)))
		return c
	})},
	{"next outside", true, nil, 0, chain(func(d *device, r *rand.Rand, c []descriptor) []descriptor {
		c[len(c)-1].flags |= flagNext
		c[len(c)-1].next = uint16(d.rings[0].size + r.IntN(1<<15))
		return c
	})},
	{"buffer outside", true, nil, 0, chain(func(d *device, r *rand.Rand, c []descriptor) []descriptor {
		c[r.IntN(len(c))].gpa = d.outside(r)
		return c
	})},
	{"huge length", true, nil, 0, chain(func(d *device, r *rand.Rand, c []descriptor) []descriptor {
		c[r.IntN(len(c))].n = 1<<32 - 1 - uint32(r.IntN(1<<16))
		return c
	})},
	{"no length", false, nil, 0, chain(func(d *device, r *rand.Rand, c []descriptor) []descriptor {
		for i := range c {
			c[i].n = 0
		}
		return c
	})},
	{"wrong direction", true, nil, 0,
		chain(func(d *device, r *rand.Rand, c []descriptor) []descriptor {
			for i := range c {
				c[i].flags ^= flagWrite
			}
			return c
		})},
	{"wrong order", true, []string{"disk", "net", "vsock", "console", "balloon"}, 0,
		chain(func(d *device, r *rand.Rand, c []descriptor) []descriptor {
			c[0].flags |= flagWrite
			c[len(c)-1].flags &^= flagWrite
			return c
		})},
	{"indirect, not agreed on", false, nil, 0, chain(indirect)},
	{"indirect", true, nil, indirectDesc, chain(indirect)},
	{"head outside", true, nil, 0, func(d *device, r *rand.Rand) {
		t := d.target()
		t.entry(t.avail, uint16(t.size+r.IntN(1<<15)))
		t.publish(t.avail + 1)
		t.kick()
	}},
	{"index ahead", true, nil, 0, func(d *device, r *rand.Rand) {
		t := d.target()
		t.publish(uint16(t.size + 1 + r.IntN(1<<15)))
		t.kick()
	}},
	{"index backwards", true, nil, 0, func(d *device, r *rand.Rand) {
		t := d.target()
		t.publish(t.avail - 1 - uint16(r.IntN(1<<14)))
		t.kick()
	}},
	{"noise in rings", false, nil, 0, ringNoise},
	{"changed midway", false, nil, 0, changedMidway},
	{"packed noise", false, nil, ringPacked, packedNoise},
	{"rings anywhere", false, nil, 0, ringsAnywhere},
	{"ring outside", true, nil, 0, func(d *device, r *rand.Rand) {
		if d.negotiate(version1) == nil {
			d.queue(d.kind.target, false)
			d.setQueue([]int{queueDesc, queueDriver, queueDevice}[r.IntN(3)], d.outside(r)&^0xf)
			d.set(queueEnable, 2, 1)
			d.addStatus(driverOK)
		}
	}},
	{"queue size", true, nil, 0, func(d *device, r *rand.Rand) {
		if d.negotiate(version1) == nil {
			d.queue(d.kind.target, false)
			d.set(queueSize, 2, []uint64{0, 3, 1<<16 - 1, 1 << 15, 24}[r.IntN(5)])
			d.set(queueEnable, 2, 1)
			d.addStatus(driverOK)
		}
	}},
	{"queue changed late", false, nil, 0, queueLate},
	{"features changed late", false, nil, 0, featuresLate},
	{"no features", true, nil, 0, func(d *device, r *rand.Rand) {
		if d.reset() == nil {
			d.set(deviceStatus, 1, uint64(driverOK|r.IntN(2)<<1|r.IntN(2)))
		}
	}},
	{"status noise", false, nil, 0, func(d *device, r *rand.Rand) {
		for range 30 {
			d.set(deviceStatus, 1, uint64(r.IntN(256)))
		}
	}},
	{"register noise", false, nil, 0, registerNoise},
	{"MSI-X noise", false, nil, 0, msixNoise},
	{"config noise", false, nil, 0, configNoise},
	{"registers moved", false, nil, 0, moves},
	{"reset midway", false, nil, 0, resets},
	{"storm", false, nil, 0, storm},
	{"nonsense requests", false, nil, 0, nonsense},
	{"pages twice and outside", false, []string{"balloon"}, 0, pages},
	{"free pages and statistics", false, []string{"balloon"}, balloonStats | balloonReporting, reports},
	{"serial flood", false, []string{"console"}, 0, serialFlood},
}

// target is the queue under attack.
func (d *device) target() *ring { return d.rings[d.kind.target] }

// outside is an address that is no memory.
func (d *device) outside(r *rand.Rand) uint64 {
	places := []uint64{d.barAt, ecamBase, 0xfee00000, 0xfec00000, 0xc0000000, 1 << 40, 1 << 52, 1<<64 - 32, 1 << 63, 0xbffffff0}
	return places[r.IntN(len(places))] + 16*uint64(r.IntN(2)) // past none of them, and not round to 0
}

// lengthMost is more than any length of a buffer in the arena, lest it ends behind it.
const lengthMost = 0x3000

// anywhere is an address of a buffer in the arena, or one outside memory.
func (d *device) anywhere(r *rand.Rand) uint64 {
	if r.IntN(3) == 0 {
		return d.outside(r)
	}
	return d.gpa(bufferAt + r.IntN(arenaSize-bufferAt-lengthMost)) // no ring: a device that writes there would make up addresses
}

// chain makes an attack of what it does to the descriptors of an honest request.
func chain(edit func(*device, *rand.Rand, []descriptor) []descriptor) func(*device, *rand.Rand) {
	return func(d *device, r *rand.Rand) {
		c := []descriptor{
			{d.gpa(bufferAt), 16, flagNext, 1}, {d.gpa(bufferAt + 0x1000), 512, flagNext, 2}, {d.gpa(bufferAt + 0x2000), 1, 0, 0},
		}
		clear(d.a.b[bufferAt:][:0x3000])
		switch {
		case d.kind.inward:
			for i := range c {
				c[i].flags |= flagWrite
			}
		case d.kind.name == "disk":
			c[1].flags |= flagWrite
			c[2].flags |= flagWrite
		}
		t := d.target()
		for i, v := range edit(d, r, c) {
			t.descriptor(i, v)
		}
		t.entry(t.avail, 0)
		t.publish(t.avail + 1)
		t.kick()
	}
}

// indirect has the chain's first descriptor name a table, with something wrong about it.
func indirect(d *device, r *rand.Rand, c []descriptor) []descriptor {
	table := descriptor{d.gpa(tableAt), 16 * 4, flagIndirect, 0}
	for i := range 4 {
		descriptor{d.gpa(bufferAt), 16, flagNext, uint16(i + 1)}.put(d.a.b, tableAt+16*i)
	}
	switch r.IntN(5) {
	case 0:
		table.n = uint32(1 + r.IntN(15))
	case 1:
		table.gpa = d.outside(r)
	case 2: // a table in the table
		descriptor{d.gpa(tableAt), 16 * 4, flagIndirect, 0}.put(d.a.b, tableAt)
	case 3: // a loop, as next of the last is in the table
		descriptor{d.gpa(bufferAt), 16, flagNext, 0}.put(d.a.b, tableAt+16*3)
	case 4:
		table.n = 1<<32 - 16
	}
	return []descriptor{table}
}

func ringNoise(d *device, r *rand.Rand) {
	t := d.target()
	d.blank()
	for range 20 {
		for i := range t.size {
			t.descriptor(i, descriptor{d.anywhere(r), uint32(r.IntN(lengthMost)), uint16(r.IntN(8)), uint16(r.IntN(t.size + 1))})
			t.entry(uint16(i), uint16(r.IntN(t.size+1)))
		}
		t.publish(t.avail + uint16(r.IntN(t.size)))
		t.kick()
	}
}

// changedMidway changes descriptors under a device that may just have read them.
func changedMidway(d *device, r *rand.Rand) {
	d.blank()
	d.fill(r)
	t := d.target()
	for range 300 {
		i := r.IntN(t.size)
		// A list of pages stays one: addresses are multiples of 4.
		t.descriptor(i, descriptor{d.anywhere(r) &^ 3, uint32(r.IntN(lengthMost)), uint16(r.IntN(8)), uint16(r.IntN(t.size + 1))})
		if r.IntN(8) == 0 {
			t.publish(t.avail + uint16(r.IntN(t.size)))
			t.kick()
		}
	}
}

// blank clears all that a balloon might take for numbers of pages: it takes those for true.
func (d *device) blank() {
	if d.kind.message == nil {
		clear(d.a.b[bufferAt:])
	}
}

// packedNoise is noise in a packed ring (section 2.8).
func packedNoise(d *device, r *rand.Rand) {
	t := d.target()
	d.blank()
	for range 10 {
		for i := range t.size {
			poke(t.bytes(), 16*i, 8, d.anywhere(r))
			poke(t.bytes(), 16*i+8, 4, uint64(r.IntN(lengthMost)))
			poke(t.bytes(), 16*i+12, 2, uint64(r.IntN(1<<16)))
			flags := uint64(r.IntN(4)) | uint64(r.IntN(4))<<7&(1<<7) | uint64(r.IntN(2))<<15
			if r.IntN(4) == 0 {
				flags = uint64(r.IntN(1<<16)) &^ flagIndirect
			}
			poke(t.bytes(), 16*i+14, 2, flags)
		}
		poke(t.bytes(), 0x1000, 4, uint64(r.Uint32()))
		t.kick()
	}
}

// ringsAnywhere lays rings over each other, buffers and registers. Used rings lie so that what the
// device writes makes no address of a descriptor that would be memory of this guest's kernel.
func ringsAnywhere(d *device, r *rand.Rand) {
	if d.negotiate(version1) != nil {
		return
	}
	d.blank()
	for i := range d.kind.queues {
		d.queue(i, false)
		for _, at := range []int{queueDesc, queueDriver, queueDevice} {
			v := d.gpa(16 * r.IntN(0x400))
			if at == queueDevice {
				v += 4
			}
			if r.IntN(6) == 0 {
				v = d.outside(r)
			}
			d.setQueue(at, v)
		}
		d.set(queueEnable, 2, 1)
	}
	for at := 0; at < tableAt; at += 16 {
		n := uint32(r.IntN(0x1000))
		descriptor{d.gpa(bufferAt + r.IntN(arenaSize-bufferAt-0x1000)), n, uint16(r.IntN(4)), uint16(r.IntN(ringEntries))}.put(d.a.b, at)
	}
	d.addStatus(driverOK)
	for i := range d.kind.queues {
		d.notify(i)
	}
}

// queueLate changes queues under a device that works on them.
func queueLate(d *device, r *rand.Rand) {
	d.fill(r)
	for range 30 {
		d.selectQueue(r.IntN(4) * r.IntN(1<<14))
		switch r.IntN(4) {
		case 0:
			d.set(queueSize, 2, uint64(r.IntN(1<<16)))
		case 1:
			d.set(queueEnable, 2, uint64(r.IntN(3)))
		case 2:
			d.setQueue([]int{queueDesc, queueDriver, queueDevice}[r.IntN(3)], d.anywhere(r))
		case 3:
			d.set(queueVector, 2, uint64(r.IntN(1<<16)))
		}
		d.target().kick()
	}
}

func featuresLate(d *device, r *rand.Rand) {
	d.fill(r)
	for range 20 {
		d.set(driverFeatureSelect, 4, uint64(r.IntN(3)))
		d.set(driverFeature, 4, uint64(r.Uint32()))
		d.addStatus(featuresOK)
		d.target().kick()
	}
	if d.reset() == nil {
		d.set(driverFeatureSelect, 4, 1)
		d.set(driverFeature, 4, uint64(r.Uint32()|1))
		d.addStatus(acknowledge | driver | featuresOK)
	}
}

// registerNoise writes and reads everywhere, at every width. Addresses of rings are set whole,
// so that none of them comes to lie in memory of somebody else.
func registerNoise(d *device, r *rand.Rand) {
	for range 150 {
		width := 1 << r.IntN(4)
		area := []int{d.common, d.common, d.caps[capISR].off, d.caps[capDevice].off, d.caps[capNotify].off}[r.IntN(5)]
		at := area + r.IntN(0x40)
		if r.IntN(8) == 0 {
			at = area + 0x1000 - width
		}
		if at < d.common+commonSize && at+width > d.common+queueDesc {
			d.setQueue([]int{queueDesc, queueDriver, queueDevice}[r.IntN(3)], d.gpa(r.IntN(bufferAt))&^0xf)
			continue
		}
		if r.IntN(2) == 0 {
			peek(d.bar, at, width)
		} else {
			poke(d.bar, at, width, r.Uint64()>>(8*r.IntN(8)))
		}
	}
}

// msixNoise fills the table with nonsense, and has vectors used. Messages that would reach this
// guest's own processor have an unused vector: they are not what is tested.
func msixNoise(d *device, r *rand.Rand) {
	bar, vectors := peek(d.config, d.msix+4, 4), int(peek(d.config, d.msix+2, 2)&0x7ff)+1
	table := int(bar &^ 7)
	for range 25 {
		poke(d.config, d.msix+2, 2, uint64(r.IntN(4))<<14|uint64(r.IntN(1<<14)))
		e := table + 16*r.IntN(vectors+2)
		address := uint64(0xfee00000) | uint64(0x80+r.IntN(0x7e))<<12 // of no processor
		data := uint64(r.Uint32())
		switch r.IntN(3) {
		case 0:
			address = r.Uint64() | 1<<40
		case 1:
			address, data = 0xfee00000, uint64(0x31+r.IntN(8))
		}
		poke(d.bar, e+12, 4, 1) // masked while it changes
		poke(d.bar, e, 8, address)
		poke(d.bar, e+8, 4, data)
		poke(d.bar, e+12, 4, uint64(r.Uint32()))
		d.selectQueue(d.kind.target)
		d.set(queueVector, 2, uint64(r.IntN(vectors+2)))
		width := 1 << r.IntN(4)
		peek(d.bar, table+r.IntN(0x2000-8), width) // the pending bits too
	}
	d.fill(r)
	for i := range vectors {
		poke(d.bar, table+16*i+12, 4, 1)
	}
}

// configNoise reads and writes configuration space at every width and offset. By its ports it is
// only read: the kernel uses them as well.
func configNoise(d *device, r *rand.Rand) {
	window := d.caps[capWindow].cap
	port, err := os.Open("/dev/port")
	if err != nil {
		fmt.Println("ERR", err)
		return
	}
	defer port.Close()
	for range 100 {
		width := 1 << r.IntN(4)
		at := r.IntN(256)
		if r.IntN(4) == 0 {
			at = r.IntN(configSize - 8)
		}
		if at < window+20 && at+width > window {
			d.windowNoise(r, window)
			continue
		}
		switch r.IntN(4) {
		case 0:
			peek(d.config, at, width)
		case 1:
			_, _ = port.ReadAt(make([]byte, width), 0xcf8+int64(r.IntN(8))) // byte by byte
		default:
			poke(d.config, at, width, r.Uint64())
		}
	}
}

// windowNoise uses the configuration access capability (section 4.1.4.9), but not to set
// addresses of rings to what it likes.
func (d *device) windowNoise(r *rand.Rand, window int) {
	off := []uint64{uint64(r.IntN(queueDesc - 4)), uint64(0x1000 + r.IntN(barSize)), r.Uint64() | 1<<31}[r.IntN(3)]
	poke(d.config, window+4, 1, uint64(r.IntN(2)*r.IntN(256)))
	poke(d.config, window+8, 4, off)
	poke(d.config, window+12, 4, uint64([]int{0, 1, 2, 3, 4, 8}[r.IntN(6)]))
	if r.IntN(2) == 0 {
		peek(d.config, window+16, 1<<r.IntN(3))
	} else {
		poke(d.config, window+16, 1<<r.IntN(3), uint64(r.Uint32()))
	}
}

// moves has the registers move about while the device works.
func moves(d *device, r *rand.Rand) {
	places := []uint64{0xc0000000, 0xe0000000, 0xfec00000, 0xfee00000, 0, 1 << 20, 1 << 32, d.barAt + barSize, d.barAt - barSize, 1<<64 - barSize, 1 << 45}
	for range 10 {
		d.fill(r)
		d.move(places[r.IntN(len(places))])
		if r.IntN(2) == 0 {
			d.command(uint64(r.IntN(8)))
		}
		d.command(memoryOn | busMasterOn)
		d.move(d.barAt)
		d.target().kick()
	}
}

// resets has requests under way when it resets.
func resets(d *device, r *rand.Rand) {
	for range 6 {
		d.fill(r)
		if d.start(0) != nil {
			return
		}
	}
}

// fill makes some requests, and does not wait.
func (d *device) fill(r *rand.Rand) {
	t := d.target()
	if d.kind.message == nil {
		d.fillPages(r)
		return
	}
	for i := range t.size / 4 {
		t.post(i, d.kind.message(r)...)
	}
	t.kick()
}

// nonsense makes requests that are whole, and mean nothing. Nobody has promised an answer: the
// kernel (vhost-net) goes no further than a frame without a whole header, until a reset.
func nonsense(d *device, r *rand.Rand) {
	for range 10 {
		d.fill(r)
		t := d.target()
		for range 50 {
			if t.usedIndex() == t.avail || d.status()&needsReset != 0 {
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// storm kicks far more often than there is something to do.
func storm(d *device, r *rand.Rand) {
	d.fill(r)
	for range 400 {
		poke(d.bar, d.notifyAt(r.IntN(d.kind.queues+1)), 1<<r.IntN(4), r.Uint64())
	}
}

// fillPages names pages of the arena, many times over, and such as are none.
func (d *device) fillPages(r *rand.Rand) {
	for _, t := range d.rings[:2] {
		for i := range t.size / 4 {
			var b []byte
			for range 1 + r.IntN(256) {
				page := uint32(d.gpa(pagesAt)/4096) + uint32(r.IntN((arenaSize-pagesAt)/4096))
				if r.IntN(4) == 0 {
					page = uint32(0xc0000+r.IntN(0x40000)) | uint32(r.IntN(4))<<30
				}
				b = binary.LittleEndian.AppendUint32(b, page)
			}
			t.post(i, buffer{out: b[:len(b)-r.IntN(2)*r.IntN(4)]})
		}
		t.kick()
	}
}

// reports says of pages of the arena and of others that they are free, and tells nonsense of the
// rest (VIRTIO 1.2 sections 5.5.6.5 and 5.5.6.7).
func reports(d *device, r *rand.Rand) {
	statistics, free := d.rings[2], d.rings[3]
	for range 5 {
		statistics.post(0, buffer{out: noise(r, 1+r.IntN(200))})
		statistics.kick()
		for i := range free.size {
			v := descriptor{d.gpa(pagesAt + r.IntN(arenaSize-pagesAt-lengthMost)), uint32(r.IntN(lengthMost)), flagWrite, 0}
			if r.IntN(16) == 0 {
				v.gpa = d.outside(r)
			}
			free.descriptor(i, v)
			free.entry(free.avail, uint16(i))
			free.avail++
		}
		free.publish(free.avail)
		free.kick()
	}
}

func pages(d *device, r *rand.Rand) {
	for range 5 {
		d.fillPages(r)
	}
}

// serialFlood prints past the driver, and kicks the UART's other registers about: not those of
// its interrupts, which the guest needs for the next line.
func serialFlood(_ *device, r *rand.Rand) {
	f, err := os.OpenFile("/dev/port", os.O_RDWR, 0)
	if err != nil {
		fmt.Println("ERR", err)
		return
	}
	defer f.Close()
	for i := range 300 {
		b := []byte{'.'}
		if i%100 == 99 {
			b[0] = '\n'
		}
		_, _ = f.WriteAt(b, 0x3f8)
		if i%8 == 0 {
			_, _ = f.WriteAt(noise(r, 1), 0x3ff) // the scratch register
		}
	}
}
