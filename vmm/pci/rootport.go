package pci

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
)

const (
	// MaxPorts is the most root ports of a Bus.
	MaxPorts = 8
	// PortDevice is the device number of the root ports, which are its functions.
	PortDevice = Devices - 1

	// What a port's windows have of the Bus's: BARs of 32 bits, and those that are not
	// prefetchable, have to do with the first.
	portLow     = 32 << 20
	portHighMax = 512 << 30 // a BAR of 256 GiB, and others
)

// ErrOccupied says that there is a card in a slot, or one has yet to leave it.
var ErrOccupied = errors.New("the slot is taken")

// A RootPort is a PCI Express root port with a hot-plug slot for a single function
// (sections 6.7 and 7.5.3.9 to 7.5.3.11): a bridge from bus 0 to a bus of its own.
//
// The slot has an attention button and a power controller. The button is the only way to
// ask for an orderly removal: to Linux a card that is merely gone, or whose link is, was
// pulled out. The guest switches the power off when its driver has let go, by which it
// gives the card up. A card that arrives presses no button: it changes presence and link
// state, at which Linux powers the slot on at once, without the five seconds that it leaves
// for a second press. It arrives when power and power indicator are off: only then
// is the guest done with what was there before (section 6.7.1.1.2).
type RootPort struct {
	bus    *Bus
	s      *slot
	msi    *MSI
	cap    int // offset of the PCI Express capability
	report func(error)
	// visible is the card where the link is up.
	visible atomic.Pointer[slot]
	// remains are where BARs of a Lingerer were that was pulled out; nil is nowhere.
	remains atomic.Pointer[[]Window]

	// Guarded by s.mu; locks of the card's slot and the mapping are taken below.
	card     *slot  // in the slot
	arrived  bool   // the guest has been told of card
	ejected  func() // to be called when the guest gives card up
	leaving  *slot  // taken out, and not retired yet
	wanted   bool   // the button is to be pressed when the guest is done with the power indicator
	asserted bool   // an enabled event is pending: an interrupt was sent
	resets   bool   // Secondary Bus Reset is set
}

// AddPorts adds n root ports with empty slots as the functions of device PortDevice, port i
// (from 0) with bus i+1 behind it. It is for the maker of the machine, before Assign.
// report is told what goes wrong with a port's interrupt.
func (b *Bus) AddPorts(n int, r MSIRouter, report func(error)) error {
	if n < 0 || n > MaxPorts || len(b.ports) > 0 || n > 0 && b.slots[PortDevice] != nil {
		return fmt.Errorf("add %d root ports: %w", n, ErrSlot)
	}
	for i := range n {
		p, err := newRootPort(b, i, n > 1, r, report)
		if err != nil {
			return fmt.Errorf("add root port %d: %w", i, err)
		}
		b.ports = append(b.ports, p)
	}
	return nil
}

// Ports are the root ports.
func (b *Bus) Ports() []*RootPort { return b.ports }

// Buses is how many buses there are: bus 0, and one behind each root port.
func (b *Bus) Buses() int { return 1 + len(b.ports) }

// ECAMSize is what the Bus takes of the guest's address space for ECAM, in bytes.
func (b *Bus) ECAMSize() uint64 { return uint64(b.Buses()) * ECAMSize }

func newRootPort(b *Bus, i int, several bool, r MSIRouter, report func(error)) (*RootPort, error) {
	c := newHeader(Identity{Vendor: 0x1b36, Device: 0x000c, Class: ClassBridge})
	c.data[regHeaderType] = headerBridge
	if several {
		c.data[regHeaderType] |= multiFunction
	}
	for off := regPrimary; off <= regSubordinate; off++ {
		c.mask[off] = 0xff
	}
	for _, off := range []int{regMemBase, regMemLimit, regPrefBase, regPrefLimit} {
		binary.LittleEndian.PutUint16(c.mask[off:], windowMask)
	}
	c.data[regPrefBase], c.data[regPrefLimit] = window64, window64
	for _, off := range []int{regPrefBaseHigh, regPrefLimitHigh} {
		binary.LittleEndian.PutUint32(c.mask[off:], 0xffffffff)
	}
	binary.LittleEndian.PutUint16(c.mask[regBridgeControl:], bridgeParity|bridgeSERR|bridgeReset)
	p := &RootPort{bus: b, report: report}
	p.s = newSlot(portFunction{c})
	if err := p.addExpress(c, i); err != nil {
		return nil, err
	}
	var err error
	p.msi, err = NewMSI(c, r, func() { p.asserted = false; p.signal() }, report)
	if err != nil {
		return nil, err
	}
	c.Hook(regBridgeControl, 2, p.resetWritten, nil)
	return p, nil
}

// addExpress adds the capability and what is behind its registers.
func (p *RootPort) addExpress(c *Config, i int) error {
	var body, mask, ones [expressEnd - 2]byte
	put := func(b []byte, reg int, v uint32, size int) {
		copy(b[reg-2:reg-2+size], binary.LittleEndian.AppendUint32(nil, v))
	}
	put(body[:], 2, expressRootPort, 2)
	put(body[:], 4, 1<<15, 4) // role-based error reporting
	put(mask[:], expressDeviceControl, 0x78ff, 2)
	put(body[:], expressLinkCap, linkSpeed|linkWidth|linkReports|uint32(i+1)<<portNumber, 4)
	put(mask[:], expressLinkControl, linkControl, 2)
	put(body[:], expressSlotCap, slotCaps|uint32(i+1)<<slotNumber, 4)
	put(body[:], expressSlotControl, slotIndicatorOff|slotPowerOff, 2)
	put(mask[:], expressSlotControl, slotControlBits, 2)
	put(ones[:], expressSlotStatus, slotEvents, 2)
	put(mask[:], expressRootControl, 0xf, 2)
	put(body[:], expressLinkCap2, linkSpeeds, 4)
	put(body[:], expressLinkControl2, linkSpeed, 2)
	put(mask[:], expressLinkControl2, 0xf, 2)
	off, err := c.AddCapability(CapExpress, body[:], mask[:])
	if err != nil {
		return err
	}
	p.cap = off
	c.ones = new([headerSpace]byte)
	copy(c.ones[off+2:], ones[:])
	c.Hook(off+expressLinkControl, 2, p.controlWritten, nil)
	c.Hook(off+expressSlotControl, 2, p.controlWritten, nil)
	c.Hook(off+expressSlotStatus, 2, p.signal, nil)
	return nil
}

// portFunction is what the Bus sees of a RootPort: it has no BARs.
type portFunction struct{ cfg *Config }

func (f portFunction) Config() *Config                    { return f.cfg }
func (f portFunction) BARRead(_ int, _ uint64, b []byte)  { Ones(b) }
func (f portFunction) BARWrite(_ int, _ uint64, _ []byte) {}
func (f portFunction) BARMapped(_ int, _ uint64, _ bool)  {}

func (p *RootPort) control() uint16 { return p.s.cfg.word(p.cap + expressSlotControl) }

// Plug puts fn into the slot and tells the guest. ejected is called, with locks held that
// none of the port's methods may be called under, when the guest has switched the slot's
// power off: fn is out of the slot then. The Bus calls fn until Retire has returned.
func (p *RootPort) Plug(fn Function, ejected func()) error {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if p.card != nil || p.leaving != nil {
		return ErrOccupied
	}
	p.card, p.ejected = newSlot(fn), ejected
	p.card.port, p.card.hidden = p, true
	p.card.cfg.behindPort()
	p.arrive()
	p.signal()
	return nil
}

// arrive tells the guest of a card, once it is ready for one. s.mu is held.
func (p *RootPort) arrive() {
	const idle = slotPowerOff | slotIndicatorOff
	if p.card != nil && !p.arrived && p.control()&(slotPowerOff|slotIndicator) == idle {
		p.arrived = true
		p.event(slotPresenceChanged|slotLinkChanged, slotPresent)
	}
}

// Ask asks the guest to give the card up, by the attention button. It is false where the
// guest has not powered the card: it can be taken out as it is.
func (p *RootPort) Ask() bool {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if p.visible.Load() == nil {
		return false
	}
	p.wanted = true
	p.press()
	p.signal()
	return true
}

// press presses the button, if that is wanted, and not while the power indicator blinks:
// the guest is switching the slot on or off then, and would take the button for
// a change of mind.
func (p *RootPort) press() {
	if p.wanted && p.control()&slotIndicator != slotIndicatorBlinks {
		p.wanted = false
		p.event(slotButton, 0)
	}
}

// Unplug takes the card out, whatever the guest does with it. An empty slot stays so.
func (p *RootPort) Unplug() {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if card := p.visible.Load(); card != nil {
		if _, ok := card.fn.(Lingerer); ok {
			p.remains.Store(card.places())
		}
	}
	p.takeOut()
	p.signal()
}

// places are where the BARs of s answer.
func (s *slot) places() *[]Window {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Window
	for i, at := range s.at {
		if at.on {
			out = append(out, Window{Base: at.gpa, Size: s.cfg.bar[i].Size})
		}
	}
	return &out
}

// lingers tells whether n bytes at gpa were a Lingerer's, pulled out of a slot that is
// still on.
func (b *Bus) lingers(gpa, n uint64) bool {
	for _, p := range b.ports {
		if r := p.remains.Load(); r != nil && slices.ContainsFunc(*r, func(w Window) bool { return w.contains(gpa, n) }) {
			return true
		}
	}
	return false
}

// takeOut takes the card out of the slot. s.mu is held.
func (p *RootPort) takeOut() {
	if p.card == nil {
		return
	}
	if p.arrived {
		p.event(slotPresenceChanged, 0)
	}
	p.leaving, p.card, p.ejected, p.wanted, p.arrived = p.card, nil, nil, false, false
	p.updateLink()
}

// Retire waits for the accesses to the card that was taken out last: when it returns
// the Bus calls its function no more.
func (p *RootPort) Retire() {
	p.s.mu.Lock()
	s := p.leaving
	p.s.mu.Unlock()
	if s == nil {
		return
	}
	s.use.Lock()
	s.gone = true
	s.use.Unlock()
	p.s.mu.Lock()
	p.leaving = nil
	p.s.mu.Unlock()
}

// Close frees the port's interrupt.
func (p *RootPort) Close() error { return p.msi.Close() }

// event sets event bits in Slot Status, and presence to what it is now. s.mu is held, as
// in all that follows.
func (p *RootPort) event(events, present uint16) {
	at := p.cap + expressSlotStatus
	v := p.s.cfg.word(at) | events
	if events&slotPresenceChanged != 0 {
		v = v&^slotPresent | present
	}
	p.s.cfg.setWord(at, v)
}

// signal interrupts when the first enabled event is there (section 6.7.3.4).
func (p *RootPort) signal() {
	c, s := p.control(), p.s.cfg.word(p.cap+expressSlotStatus)
	enabled := c & (slotButton | slotPresenceChanged)
	if c&slotLinkEnable != 0 {
		enabled |= slotLinkChanged
	}
	on := c&slotHotplugInterrupt != 0 && s&enabled != 0
	if on && !p.asserted {
		p.msi.Signal()
	}
	p.asserted = on
}

// controlWritten follows a write to Slot Control or Link Control.
func (p *RootPort) controlWritten() {
	if p.control()&slotPowerOff != 0 && p.visible.Load() != nil {
		ejected := p.ejected
		p.takeOut()
		ejected()
	}
	if p.control()&slotPowerOff != 0 {
		p.remains.Store(nil)
	}
	p.arrive()
	p.updateLink()
	p.press()
	p.signal()
}

// updateLink brings the link up or down.
func (p *RootPort) updateLink() {
	link := p.s.cfg.word(p.cap + expressLinkControl)
	var up *slot
	if p.card != nil && p.arrived && p.control()&slotPowerOff == 0 && link&linkDisable == 0 {
		up = p.card
	}
	old := p.visible.Swap(up)
	if old == up {
		return
	}
	p.bus.setHidden(old, true)
	p.bus.setHidden(up, false)
	status := uint16(0)
	if up != nil {
		status = linkSpeed | linkWidth | linkActive
	}
	p.s.cfg.setWord(p.cap+expressLinkStatus, status)
	p.event(slotLinkChanged, 0)
}

// A Resetter is a Function that is told of a reset of its bus: what the guest
// has set up is forgotten. Its configuration space has been reset.
type Resetter interface{ BusReset() }

// resetWritten follows a write to Bridge Control.
func (p *RootPort) resetWritten() {
	on := p.s.cfg.word(regBridgeControl)&bridgeReset != 0
	card := p.visible.Load()
	if on && !p.resets && card != nil {
		card.mu.Lock()
		card.cfg.reset()
		p.bus.remap(card)
		if r, ok := card.fn.(Resetter); ok {
			r.BusReset()
		}
		card.mu.Unlock()
	}
	p.resets = on
}

// behind tells whether bus is the one behind the port.
func (p *RootPort) behind(bus uint64) bool {
	var b [2]byte
	p.s.cfg.Bytes(regSecondary, b[:])
	return bus != 0 && uint64(b[0]) == bus && b[1] >= b[0]
}

// forwards tells whether the port lets accesses to n bytes at gpa through.
func (p *RootPort) forwards(gpa, n uint64) bool {
	var b [regPrefLimitHigh + 4]byte
	p.s.cfg.Bytes(0, b[:])
	word := func(off int) uint64 { return uint64(binary.LittleEndian.Uint16(b[off:])) & windowMask << 16 }
	upper := func(off int) uint64 { return uint64(binary.LittleEndian.Uint32(b[off:])) << 32 }
	in := func(base, limit uint64) bool {
		return base <= limit && gpa >= base && n <= limit+windowUnit-gpa && gpa < limit+windowUnit
	}
	return b[regCommand]&cmdMemory != 0 && (in(word(regMemBase), word(regMemLimit)) ||
		in(word(regPrefBase)|upper(regPrefBaseHigh), word(regPrefLimit)|upper(regPrefLimitHigh)))
}

// assign gives the port its bus and windows, as firmware would, from what is left of low
// and high. number is that of the port's bus.
func (p *RootPort) assign(number int, low, high *Window, highSize uint64) error {
	c := p.s.cfg
	c.SetBytes(regPrimary, []byte{0, byte(number), byte(number)})
	gpa, ok := low.take(portLow)
	if !ok {
		return fmt.Errorf("%#x bytes for root port %d: %w", portLow, number, ErrWindow)
	}
	c.setWord(regMemBase, uint16(gpa>>16))
	c.setWord(regMemLimit, uint16((gpa+portLow-windowUnit)>>16))
	// A base above the limit is no window (section 7.5.1.3.9).
	first, last := uint64(windowMask<<16), uint64(0)
	if highSize != 0 {
		if gpa, ok = high.take(highSize); ok {
			first, last = gpa, gpa+highSize-windowUnit
		}
	}
	c.setWord(regPrefBase, uint16(first>>16)&windowMask|window64)
	c.setWord(regPrefLimit, uint16(last>>16)&windowMask|window64)
	c.SetBytes(regPrefBaseHigh, binary.LittleEndian.AppendUint32(nil, uint32(first>>32)))
	c.SetBytes(regPrefLimitHigh, binary.LittleEndian.AppendUint32(nil, uint32(last>>32)))
	return nil
}

// assignPorts shares half of what is left of high, and portLow each of low.
func (b *Bus) assignPorts(low, high *Window) error {
	size := uint64(0)
	if n := uint64(len(b.ports)); n != 0 {
		for size = portHighMax; size >= windowUnit && size*n > high.Size/2; {
			size /= 2
		}
		if size < windowUnit {
			size = 0
		}
	}
	for i, p := range b.ports {
		if err := p.assign(i+1, low, high, size); err != nil {
			return err
		}
	}
	return nil
}
