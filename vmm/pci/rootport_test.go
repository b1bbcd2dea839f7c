package pci_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/pci"
	"github.com/ashlar-hv/ashlar/vmm/pci/pcitest"
)

// Registers of a root port, from the start of its configuration space.
const (
	express     = 0x40
	linkControl = express + 0x10
	linkStatus  = express + 0x12
	slotControl = express + 0x18
	slotStatus  = express + 0x1a
	msi         = 0x7c

	button, presence, present, linkChanged = 1, 1 << 3, 1 << 6, 1 << 8
	linkActive                             = 1 << 13
	// What Linux enables, with the power indicator on and off.
	enables          = 1 | 1<<5 | 1<<12
	powerOn, blinks  = enables | 1<<8, enables | 2<<8
	powerOff, offLit = enables | 3<<8 | 1<<10, enables | 1<<8 | 1<<10 // the latter while it is busy
)

// slots are a bus with root ports.
type slots struct {
	*pci.Bus
	t       testing.TB
	router  *pcitest.Router
	ejected int
}

func newSlots(t testing.TB, n int) *slots {
	t.Helper()
	s := &slots{t: t, router: &pcitest.Router{}}
	s.Bus = pci.NewBus(pci.Window{Base: 0xc0000000, Size: 512 << 20}, pci.Window{Base: highBase, Size: 1 << 40})
	must(t, s.AddPorts(n, s.router, func(err error) { t.Logf("reported: %v", err) }))
	must(t, s.Assign())
	t.Cleanup(func() {
		for _, p := range s.Ports() {
			must(t, p.Close())
		}
	})
	return s
}

// port is where port i's register is in ECAM.
func port(i int, reg uint64) uint64 { return pci.PortDevice<<15 | uint64(i)<<12 | reg }

// behind is where a register of the card in port i is.
func behind(i int, reg uint64) uint64 { return uint64(i+1)<<20 | reg }

func (s *slots) want(name string, off uint64, n int, want uint64) {
	s.t.Helper()
	if got := read(s.Bus, off, n); got != want {
		s.t.Errorf("%s = %#x, want %#x", name, got, want)
	}
}

// powered is a port that Linux would have set up, with fn in it.
func (s *slots) powered(fn pci.Function) {
	s.t.Helper()
	write(s.Bus, port(0, msi+4), 4, 0xfee00000)
	write(s.Bus, port(0, msi+2), 2, 1)
	write(s.Bus, port(0, 4), 2, 6)
	write(s.Bus, port(0, slotControl), 2, powerOff)
	must(s.t, s.Ports()[0].Plug(fn, func() { s.ejected++ }))
	write(s.Bus, port(0, slotStatus), 2, 0x1ff)
	write(s.Bus, port(0, slotControl), 2, powerOn)
	write(s.Bus, port(0, slotStatus), 2, 0x1ff)
	s.router.Vectors[0].Take(0)
}

func (s *slots) interrupted(name string, want bool) {
	s.t.Helper()
	if got := s.router.Vectors[0].Take(0); got != want {
		s.t.Errorf("%s: interrupt %v, want %v", name, got, want)
	}
}

func TestRootPorts(t *testing.T) {
	s := newSlots(t, 8)
	if s.ECAMSize() != 9<<20 {
		t.Errorf("ECAM of %#x bytes, want 9 buses", s.ECAMSize())
	}
	for _, tt := range []struct {
		name string
		off  uint64
		n    int
		want uint64
	}{
		{"identity", port(7, 0), 4, 0x000c1b36},
		{"class", port(0, 8), 4, 0x06040000},
		{"header type", port(0, 0x0e), 1, 0x81},
		{"buses of port 2", port(2, 0x18), 4, 0x00030300},
		{"memory window of port 1", port(1, 0x20), 4, 0xc3f0c200},
		{"prefetchable window of port 1", port(1, 0x24), 4, 0xfff10001},
		{"its base, high", port(1, 0x28), 4, 0x110},
		{"its limit, high", port(1, 0x2c), 4, 0x11f},
		{"no I/O window", port(0, 0x1c), 2, 0},
		{"first capability", port(0, 0x34), 1, express},
		{"root port with a slot", port(0, express), 4, 0x01427c10},
		{"slot 8", port(7, express+0x14), 4, 8<<19 | 1<<18 | 0x73},
		{"slot off, indicator off", port(0, slotControl), 2, 0x700},
		{"nothing in it", port(0, slotStatus), 2, 0},
		{"no link", port(0, linkStatus), 2, 0},
		{"MSI, 64 bits", port(0, msi), 4, 0x00800005},
		{"nothing behind", behind(0, 0), 4, 0xffffffff},
		{"past the buses", 9 << 20, 4, 0xffffffff},
	} {
		s.want(tt.name, tt.off, tt.n, tt.want)
	}
	if err := s.Add(pci.PortDevice, newFunction(t, nil)); !errors.Is(err, pci.ErrSlot) {
		t.Errorf("a device in the ports' place: %v, want ErrSlot", err)
	}
	if err := s.AddPorts(1, s.router, nil); !errors.Is(err, pci.ErrSlot) {
		t.Errorf("ports twice: %v, want ErrSlot", err)
	}
}

func TestRootPortWrites(t *testing.T) {
	s := newSlots(t, 1)
	for _, tt := range []struct {
		name string
		reg  uint64
		n    int
		v    uint64
		want uint64
	}{
		{"identity stays", 0, 4, 0, 0x000c1b36},
		{"header type stays", 0x0e, 1, 0xff, 1},
		{"no BAR", 0x10, 8, 1<<64 - 1, 0},
		{"buses", 0x18, 4, 0xff020100, 0x00020100},
		{"memory window", 0x20, 4, 0xffffffff, 0xfff0fff0},
		{"prefetchable window", 0x24, 4, 0xffffffff, 0xfff1fff1},
		{"upper half", 0x28, 8, 1<<64 - 1, 1<<64 - 1},
		{"bridge control", 0x3e, 2, 0xffff, 0x43},
		{"slot capabilities stay", express + 0x14, 4, 0, 1<<19 | 1<<18 | 0x73},
		{"slot control", slotControl, 2, 0xffff, 0x1729},
		{"slot status stays", slotStatus, 2, 0xffff, 0},
		{"link control", linkControl, 2, 0xffff, 0xd3},
		{"link status stays", linkStatus, 2, 0xffff, 0},
		{"MSI control", msi + 2, 2, 0xffff, 0x81},
	} {
		write(s.Bus, port(0, tt.reg), tt.n, tt.v)
		s.want(tt.name, port(0, tt.reg), tt.n, tt.want)
	}
}

// A card comes, is powered on, asked for and powered off.
func TestHotplug(t *testing.T) {
	s := newSlots(t, 2)
	p, f := s.Ports()[0], newFunction(t, map[int]pci.BAR{0: {Size: 0x8000, Is64: true}})
	must(t, f.cfg.AddExpress())
	_, err := f.cfg.AddCapability(pci.CapVendor, []byte{4, 0}, nil)
	must(t, err)
	write(s.Bus, port(0, msi+4), 4, 0xfee00000)
	write(s.Bus, port(0, msi+2), 2, 1)
	write(s.Bus, port(0, 4), 2, 6)
	write(s.Bus, port(0, slotControl), 2, powerOff)
	must(t, p.Plug(f, func() { s.ejected++ }))
	if err := p.Plug(f, nil); !errors.Is(err, pci.ErrOccupied) {
		t.Errorf("two cards in one slot: %v, want ErrOccupied", err)
	}
	s.interrupted("arrival", true)
	s.want("arrived", port(0, slotStatus), 2, linkChanged|presence|present)
	s.want("not powered", behind(0, 0), 4, 0xffffffff)
	write(s.Bus, port(0, slotStatus), 2, linkChanged|presence)
	s.want("events cleared", port(0, slotStatus), 2, present)

	write(s.Bus, port(0, slotControl), 2, blinks)
	s.interrupted("link up", true)
	s.want("link up", port(0, slotStatus), 2, present|linkChanged)
	s.want("link", port(0, linkStatus), 2, linkActive|0x14)
	s.want("card", behind(0, 0), 4, 0x56781234)
	s.want("card's first capability", behind(0, 0x34), 1, 0x40)
	s.want("card's express capability", behind(0, 0x40), 4, 0x00027c10)
	s.want("card's other capability", behind(0, 0x7c), 4, 0x00040009)
	s.want("card's link", behind(0, 0x52), 2, 0x14)
	s.want("card, function 1", behind(0, 0x1000), 4, 0xffffffff)
	s.want("card, device 1", behind(0, 1<<15), 4, 0xffffffff)
	s.want("nothing in the other slot", behind(1, 0), 4, 0xffffffff)
	write(s.Bus, port(0, slotStatus), 2, linkChanged)

	// Its BAR answers in the port's window alone.
	const at = 0xc0008000
	mmio := func(gpa uint64) bool { return s.MMIORead(gpa, make([]byte, 4)) }
	write(s.Bus, behind(0, 0x10), 8, at)
	write(s.Bus, behind(0, 4), 2, 2)
	if !mmio(at) {
		t.Error("the card's BAR does not answer in the port's window")
	}
	write(s.Bus, behind(0, 0x10), 8, 0xc2000000) // the other port's
	if mmio(0xc2000000) || mmio(at) {
		t.Error("the card's BAR answers outside its port's window")
	}
	write(s.Bus, port(0, 0x20), 4, 0xc3f0c200)
	if !mmio(0xc2000000) {
		t.Error("the port's window was moved, and the BAR does not answer there")
	}
	write(s.Bus, port(0, 4), 2, 4)
	if mmio(0xc2000000) {
		t.Error("the card's BAR answers though the port forwards no memory")
	}
	write(s.Bus, port(0, 4), 2, 6)
	write(s.Bus, port(0, 0x3e), 2, 0x40) // a reset of the bus
	s.want("BAR after the reset", behind(0, 0x10), 4, 4)
	write(s.Bus, behind(0, 0x10), 8, 0xc2000000)
	write(s.Bus, behind(0, 4), 2, 2)

	// Asked for while the guest is still switching on: the button waits.
	if !p.Ask() {
		t.Error("a powered card need not be asked for")
	}
	s.want("button while the indicator blinks", port(0, slotStatus), 2, present)
	write(s.Bus, port(0, slotControl), 2, powerOn)
	s.interrupted("button", true)
	s.want("button", port(0, slotStatus), 2, present|button)
	write(s.Bus, port(0, slotStatus), 2, button)

	write(s.Bus, port(0, slotControl), 2, powerOff)
	if s.ejected != 1 {
		t.Errorf("ejected %d times, want once", s.ejected)
	}
	s.want("gone", port(0, slotStatus), 2, presence|linkChanged)
	s.want("gone", behind(0, 0), 4, 0xffffffff)
	if mmio(0xc2000000) {
		t.Error("a card that is gone answers")
	}
	if err := p.Plug(f, nil); !errors.Is(err, pci.ErrOccupied) {
		t.Errorf("a card before the last has left: %v, want ErrOccupied", err)
	}
	p.Retire()
	must(t, p.Plug(newFunction(t, nil), func() {}))
}

// A card is pulled out, and another put in before the guest has noticed: its power is
// off and on again before the new one starts, and it is not given up by that.
func TestSurprise(t *testing.T) {
	s := newSlots(t, 1)
	p := s.Ports()[0]
	s.powered(newFunction(t, nil))
	s.want("card", behind(0, 0), 4, 0x56781234)
	p.Unplug()
	p.Unplug()
	s.interrupted("removal", true)
	s.want("pulled out", port(0, slotStatus), 2, presence|linkChanged)
	s.want("pulled out", behind(0, 0), 4, 0xffffffff)
	p.Retire()
	must(t, p.Plug(newFunction(t, nil), func() { s.ejected++ }))
	s.want("new card in a slot that is on", behind(0, 0), 4, 0xffffffff)
	s.want("which is not told yet", port(0, slotStatus), 2, presence|linkChanged)
	write(s.Bus, port(0, slotStatus), 2, 0x1ff)
	if p.Ask() {
		t.Error("a card that the guest has not seen has to be asked for")
	}
	write(s.Bus, port(0, slotControl), 2, offLit)
	s.want("nor before the indicator is off", port(0, slotStatus), 2, 0)
	s.interrupted("nor then", false)
	write(s.Bus, port(0, slotControl), 2, powerOff)
	s.interrupted("arrival", true)
	s.want("arrived", port(0, slotStatus), 2, presence|linkChanged|present)
	write(s.Bus, port(0, slotControl), 2, powerOn)
	s.want("new card", behind(0, 0), 4, 0x56781234)
	if s.ejected != 0 {
		t.Errorf("ejected %d times, want never", s.ejected)
	}
}

// A lingerer is a function that reads as zeros when it was pulled out.
type lingerer struct{ *function }

func (lingerer) Lingers() {}

func TestLingerer(t *testing.T) {
	s := newSlots(t, 1)
	p := s.Ports()[0]
	f := lingerer{newFunction(t, map[int]pci.BAR{0: {Size: 0x8000, Is64: true}})}
	s.powered(f)
	write(s.Bus, behind(0, 0x10), 8, 0xc0008000)
	write(s.Bus, behind(0, 4), 2, 2)
	f.bar[0] = 7
	at := func(gpa uint64) (byte, bool) {
		b := []byte{0x55}
		ok := s.MMIORead(gpa, b)
		return b[0], ok
	}
	if v, ok := at(0xc0008000); v != 7 || !ok {
		t.Errorf("BAR = %d, %v", v, ok)
	}
	p.Unplug()
	p.Retire()
	if v, ok := at(0xc0008000); v != 0 || !ok {
		t.Errorf("BAR after it was pulled out = %d, %v, want 0", v, ok)
	}
	if _, ok := at(0xc0010000); ok {
		t.Error("what was no BAR answers")
	}
	s.want("configuration space", behind(0, 0), 4, 0xffffffff)
	write(s.Bus, port(0, slotControl), 2, powerOff)
	if _, ok := at(0xc0008000); ok {
		t.Error("the BAR answers with the slot switched off")
	}
}

// MSI follows its registers, and events that came before it are not lost.
func TestRootPortMSI(t *testing.T) {
	s := newSlots(t, 1)
	write(s.Bus, port(0, slotControl), 2, powerOff)
	must(t, s.Ports()[0].Plug(newFunction(t, nil), func() {}))
	s.interrupted("MSI off", false)
	write(s.Bus, port(0, msi+4), 8, 0xfee01000)
	write(s.Bus, port(0, msi+12), 2, 0x4041)
	write(s.Bus, port(0, msi+2), 2, 1)
	s.interrupted("MSI on", true)
	if a, d, masked := s.router.Vectors[0].Message(); a != 0xfee01000 || d != 0x4041 || masked {
		t.Errorf("message %#x to %#x, masked %v", d, a, masked)
	}
	write(s.Bus, port(0, msi+4), 4, 0x1000)
	if _, _, masked := s.router.Vectors[0].Message(); !masked {
		t.Error("a vector with no message address is not masked")
	}
	write(s.Bus, port(0, msi+2), 2, 0)
}

// The ports' registers reach secondary buses by mechanism #1 too.
func TestPortsReachBuses(t *testing.T) {
	s := newSlots(t, 1)
	s.powered(newFunction(t, nil))
	p := pci.NewPorts(s.Bus, &recorder{})
	var b [4]byte
	p.Out(0, binary.LittleEndian.AppendUint32(nil, 0x80010000))
	p.In(4, b[:])
	if got := binary.LittleEndian.Uint32(b[:]); got != 0x56781234 {
		t.Errorf("bus 1 by ports = %#x", got)
	}
	p.Out(0, binary.LittleEndian.AppendUint32(nil, 0x80020000))
	p.In(4, b[:])
	if got := binary.LittleEndian.Uint32(b[:]); got != 0xffffffff {
		t.Errorf("bus 2 by ports = %#x", got)
	}
}

// FuzzRootPort has a guest write what it likes to a port and the card behind, while cards
// come and go: each 8 bytes are an action, a size, a register and a value.
func FuzzRootPort(f *testing.F) {
	f.Add([]byte{0, 2, byte(slotControl), 0, 0x21, 0x17, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 2, byte(slotControl), 0, 0x21, 0x11, 0, 0,
		5, 0, 0, 0, 0, 0, 0, 0, 0, 2, byte(slotControl), 0, 0x21, 0x17, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{4, 0, 0, 0, 0, 0, 0, 0, 0, 2, byte(slotControl), 0, 0x21, 0x11, 0, 0, 1, 4, 0x10, 0, 0, 0, 0, 0xc0, 1, 2, 4, 0, 2, 0, 0, 0,
		0, 2, 4, 0, 6, 0, 0, 0, 0, 4, 0x20, 0, 0, 0xc2, 0xf0, 0xc3, 7, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		s := newSlots(t, 2)
		p := s.Ports()[0]
		inside := false
		for ; len(in) >= 8; in = in[8:] {
			n := int(in[1])%8 + 1
			reg := uint64(binary.LittleEndian.Uint16(in[2:]))
			v := uint64(binary.LittleEndian.Uint32(in[4:]))
			switch in[0] % 8 {
			case 0:
				write(s.Bus, port(0, reg%0x100), n, v)
			case 1:
				write(s.Bus, behind(0, reg), n, v)
			case 2:
				write(s.Bus, port(1, reg%0x100), n, v)
			case 3:
				s.MMIOWrite(0xc0000000+v%(512<<20), in[:n])
			case 4:
				if err := p.Plug(newFunction(t, map[int]pci.BAR{0: {Size: 0x8000, Is64: true}}), func() { inside = false }); err == nil {
					inside = true
				}
			case 5:
				p.Ask()
			case 6:
				p.Retire()
			case 7:
				p.Unplug()
				inside = false
			}
			if got := read(s.Bus, port(0, slotStatus), 2)&present != 0; got && !inside {
				t.Fatal("presence of nothing")
			}
			if !inside && (read(s.Bus, behind(0, 0), 4) != 0xffffffff || s.MMIORead(0xc0000000+v%(512<<20), make([]byte, n))) {
				t.Fatal("an empty slot answers")
			}
			if got := read(s.Bus, port(0, 0), 4); got != 0x000c1b36 {
				t.Fatalf("identity = %#x", got)
			}
		}
	})
}
