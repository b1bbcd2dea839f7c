package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Registers of a USB controller (eXtensible Host Controller Interface 1.2, chapter 5): of its
// capabilities, of its operation, and of an interrupter.
const (
	xhciDoorbells = 0x14
	xhciRuntime   = 0x18

	xhciCommand    = 0x00
	xhciStatus     = 0x04
	xhciRing       = 0x18
	xhciContexts   = 0x30
	xhciConfigure  = 0x38
	xhciFirstPort  = 0x400
	xhciPortStatus = 0x10 // from port to port

	xhciInterrupter  = 0x20 // the first one, and from one to the next
	interrupterPlace = 0x08 // ERSTSZ, then ERSTBA and ERDP

	xhciBAR = 0x4000
)

// Types of what is in rings (section 6.4.6).
const (
	trbSetup, trbData, trbStatus     = 2, 3, 4
	trbEnableSlot, trbAddressDevice  = 9, 11
	trbTransferEvent, trbCompletion  = 32, 33
	trbCycle, trbInterrupt, trbInner = 1, 1 << 5, 1 << 6
)

// An xhci is a USB controller without its driver.
type xhci struct {
	bar                           []byte
	operation, doorbells, runtime int
	commands                      *ring
	events                        []*ring // of the interrupters
}

// A ring is a page of entries of 16 bytes, of which no more are used than it has.
type ring struct {
	page []byte
	at   uint64
	next int
}

func newRing() (*ring, error) {
	b, err := lockedPages(1)
	if err != nil {
		return nil, err
	}
	at, err := physical(b)
	return &ring{page: b, at: at}, err
}

// push adds an entry.
func (r *ring) push(parameter uint64, status, control uint32) {
	for i, word := range []uint32{uint32(parameter), uint32(parameter >> 32), status, control | trbCycle} {
		register(r.page, 16*r.next+4*i).Store(word)
	}
	r.next++
}

// event waits for an event of a type, passes over others, and returns its last word.
func (r *ring) event(kind uint32) (control uint32, err error) {
	for {
		last := register(r.page, 16*r.next+12)
		if err := wait("the controller", "tells of no event", func() bool { return last.Load()&trbCycle != 0 }); err != nil {
			return 0, err
		}
		control, code := last.Load(), register(r.page, 16*r.next+8).Load()>>24
		r.next++
		if control>>10&0x3f != kind {
			continue
		}
		const success, shortPacket = 1, 13
		if code != success && code != shortPacket {
			return 0, fmt.Errorf("an event of type %d has the completion code %d", kind, code)
		}
		return control, nil
	}
}

// set writes a register of 64 bits in two halves, the upper one last.
func (x *xhci) set(off int, v uint64) {
	register(x.bar, off).Store(uint32(v))
	register(x.bar, off+4).Store(uint32(v >> 32))
}

// takeXHCI takes the controller from its driver, and has it run with so many interrupters, once
// its interrupts are set up.
func takeXHCI(device string, interrupters int, setUp func() error) (*xhci, error) {
	bar, err := takeBAR(device, 0, 0, xhciBAR)
	if err != nil {
		return nil, err
	}
	x := &xhci{bar: bar, operation: int(register(bar, 0).Load() & 0xff)}
	x.doorbells, x.runtime = int(register(bar, xhciDoorbells).Load()&^3), int(register(bar, xhciRuntime).Load()&^31)
	const run, reset, interrupts, halted = 1 << 0, 1 << 1, 1 << 2, 1 << 0
	command, status := register(bar, x.operation+xhciCommand), register(bar, x.operation+xhciStatus)
	command.Store(0)
	if err := wait("the controller", "does not halt", func() bool { return status.Load()&halted != 0 }); err != nil {
		return nil, err
	}
	command.Store(reset)
	if err := wait("the controller", "stays in reset", func() bool { return command.Load()&reset == 0 }); err != nil {
		return nil, err
	}
	if x.commands, err = newRing(); err != nil {
		return nil, err
	}
	register(bar, x.operation+xhciConfigure).Store(1) // device slot
	x.set(x.operation+xhciRing, x.commands.at|trbCycle)
	for n := range interrupters {
		if err := x.interrupter(n); err != nil {
			return nil, err
		}
	}
	if err := setUp(); err != nil {
		return nil, err
	}
	command.Store(run | interrupts)
	return x, wait("the controller", "does not run", func() bool { return status.Load()&halted == 0 })
}

// interrupter gives an interrupter a ring of one segment (section 6.5), and enables it.
func (x *xhci) interrupter(n int) error {
	events, err := newRing()
	if err != nil {
		return err
	}
	segments, err := newRing()
	if err != nil {
		return err
	}
	segments.push(events.at, page/16, 0)
	register(segments.page, 12).Store(0)
	at := x.runtime + xhciInterrupter*(n+1)
	const pending, enable = 1 << 0, 1 << 1
	register(x.bar, at).Store(pending | enable)
	register(x.bar, at+interrupterPlace).Store(1)
	x.set(at+interrupterPlace+0x10, events.at)
	x.set(at+interrupterPlace+0x08, segments.at)
	x.events = append(x.events, events)
	return nil
}

// connected resets the port with a device, and returns its number and speed.
func (x *xhci) connected() (port, speed uint32, err error) {
	const present, reset, power, changed = 1 << 0, 1 << 4, 1 << 9, 1 << 21
	for i := range 16 {
		r := register(x.bar, x.operation+xhciFirstPort+xhciPortStatus*i)
		if r.Load()&present == 0 {
			continue
		}
		r.Store(power | reset)
		err := wait("the port", "stays in reset", func() bool { return r.Load()&changed != 0 })
		return uint32(i) + 1, r.Load() >> 10 & 0xf, err
	}
	return 0, 0, errors.New("no port has a device")
}

// address gives the device at a port an address (section 4.3), and returns its slot and
// the ring of its control endpoint.
func (x *xhci) address(port, speed uint32) (slot uint32, control *ring, err error) {
	var r [4]*ring // pages, in truth
	for i := range r {
		if r[i], err = newRing(); err != nil {
			return 0, nil, err
		}
	}
	list, input, output, control := r[0], r[1], r[2], r[3]
	x.set(x.operation+xhciContexts, list.at)
	x.commands.push(0, 0, trbEnableSlot<<10)
	register(x.bar, x.doorbells).Store(0)
	done, err := x.events[0].event(trbCompletion)
	if err != nil {
		return 0, nil, err
	}
	slot = done >> 24
	register(list.page, 8*int(slot)).Store(uint32(output.at))
	register(list.page, 8*int(slot)+4).Store(uint32(output.at >> 32))
	const context, controlEndpoint, tries, packet = 0x20, 4 << 3, 3 << 1, 64 << 16
	for off, word := range map[int]uint32{
		4:              3, // slot and first endpoint are here
		context:        1<<27 | speed<<20,
		context + 4:    port << 16,
		2*context + 4:  packet | controlEndpoint | tries,
		2*context + 8:  uint32(control.at) | trbCycle,
		2*context + 12: uint32(control.at >> 32),
		2*context + 16: 8,
	} {
		register(input.page, off).Store(word)
	}
	x.commands.push(input.at, 0, trbAddressDevice<<10|slot<<24)
	register(x.bar, x.doorbells).Store(0)
	_, err = x.events[0].event(trbCompletion)
	return slot, control, err
}

// describe reads what the device is (Universal Serial Bus 2.0, section 9.4.3), and has interrupter n
// tell that it has.
func (x *xhci) describe(slot uint32, control *ring, n int) error {
	answer, err := newRing()
	if err != nil {
		return err
	}
	const getDescriptor, ofDevice, size = 0x80 | 6<<8, 1 << 24, 18
	control.push(getDescriptor|ofDevice|size<<48, 8, trbSetup<<10|3<<16|trbInner)
	control.push(answer.at, size, trbData<<10|1<<16)
	control.push(0, uint32(n)<<22, trbStatus<<10|trbInterrupt)
	register(x.bar, x.doorbells+4*int(slot)).Store(1)
	if _, err := x.events[n].event(trbTransferEvent); err != nil {
		return err
	}
	if got := answer.page[:2]; got[0] != size || got[1] != 1 {
		return fmt.Errorf("the device's descriptor begins with % x", got)
	}
	return nil
}

// messages are those of MSI that useMSI has the device send; firstVector is that of the first.
const (
	messages    = 4
	firstVector = 0xe0
)

// useMSI has a USB controller send messages of MSI, of which each is a vector that nobody has here:
// the kernel tells of it.
func useMSI() error {
	device, err := functionOf("0x0c0330", "")
	if err != nil {
		return err
	}
	x, err := takeXHCI(device, messages, func() error { return enableMSI(device) })
	if err != nil {
		return err
	}
	port, speed, err := x.connected()
	if err != nil {
		return err
	}
	slot, control, err := x.address(port, speed)
	if err != nil {
		return err
	}
	for n := range messages {
		if err := x.describe(slot, control, n); err != nil {
			return fmt.Errorf("interrupter %d: %w", n, err)
		}
		if err := wait(fmt.Sprintf("message %d", n), "has not come", func() bool { return unhandled(firstVector + n) }); err != nil {
			return err
		}
		if unhandled(firstVector + n + 1) {
			return fmt.Errorf("message %d has come before its time", n+1)
		}
	}
	register(x.bar, x.operation+xhciCommand).Store(0)
	return nil
}

// enableMSI has a PCI function send messages to the first processor (PCI Local Bus 3.0, section 6.8.1).
func enableMSI(device string) error {
	f, err := os.OpenFile(device+"/config", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var b [256]byte
	if _, err := f.ReadAt(b[:], 0); err != nil {
		return err
	}
	const first, msi = 0x34, 5
	for off := int64(b[first]); off != 0; off = int64(b[off+1]) {
		if b[off] != msi {
			continue
		}
		const enable, log2, wide = 1, 2, 1 << 7 // log2 of messages
		if b[off+2]>>1&7 < log2 || b[off+2]&wide == 0 {
			return fmt.Errorf("the MSI capability's control is %#x", b[off+2])
		}
		if _, err := f.WriteAt([]byte{0, 0, 0xe0, 0xfe, 0, 0, 0, 0, firstVector, 0}, off+4); err != nil {
			return err
		}
		_, err := f.WriteAt([]byte{log2<<4 | enable, 0}, off+2)
		return err
	}
	return fmt.Errorf("%s has no MSI capability", device)
}

// unhandled tells whether the first processor has met a vector that nobody has.
func unhandled(vector int) bool {
	log := make([]byte, 256<<10)
	n, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, log)
	return err == nil && strings.Contains(string(log[:n]), fmt.Sprintf("No irq handler for 0.%d\n", vector))
}
