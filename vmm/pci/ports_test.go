package pci_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/pci"
)

// recorder is the reset register of a test.
type recorder struct{ out []byte }

func (r *recorder) In(_ uint16, b []byte)  { b[0] = 0x5a }
func (r *recorder) Out(_ uint16, b []byte) { r.out = append(r.out, b...) }

func TestPorts(t *testing.T) {
	b := newBus(t, newFunction(t, map[int]pci.BAR{0: {Size: 4096}}))
	reset := &recorder{}
	p := pci.NewPorts(b, reset)
	in := func(port uint16, n int) uint64 {
		var v [8]byte
		p.In(port, v[:n])
		return binary.LittleEndian.Uint64(v[:])
	}
	out := func(port uint16, n int, v uint64) { p.Out(port, binary.LittleEndian.AppendUint64(nil, v)[:n]) }

	if got := in(4, 4); got != 0xffffffff {
		t.Errorf("data before any address = %#x, want all ones", got)
	}
	out(0, 4, 0x80000800)
	if got := in(0, 4); got != 0x80000800 {
		t.Errorf("address = %#x, want what was written", got)
	}
	for _, c := range []struct {
		port uint16
		n    int
	}{{4, 4}, {4, 2}, {6, 2}, {5, 1}} {
		if got, want := in(c.port, c.n), read(b, slot1+uint64(c.port-4), c.n); got != want {
			t.Errorf("data at %d, %d bytes = %#x, want ECAM's %#x", c.port, c.n, got, want)
		}
	}
	out(0, 4, 0x80000804)
	out(4, 2, 2) // memory decoding on
	if got := read(b, slot1+4, 2); got&2 == 0 {
		t.Errorf("command register = %#x after a write through the ports, want bit 1 set", got)
	}
	for name, address := range map[string]uint64{"another bus": 0x80010800, "an empty slot": 0x80001000, "another function": 0x80000900} {
		out(0, 4, address)
		if got := in(4, 4); got != 0xffffffff {
			t.Errorf("%s reads as %#x, want all ones", name, got)
		}
		out(4, 4, 0) // and takes writes without harm
	}
	out(0, 4, 0x80000800)
	p.Hide()
	if got := in(0, 4); got != 0xffffffff {
		t.Errorf("the address that is hidden = %#x, want all ones", got)
	}
	if got, want := in(4, 4), read(b, slot1, 4); got != want {
		t.Errorf("data with the address hidden = %#x, want ECAM's %#x", got, want)
	}
	if got := in(1, 1); got != 0x5a {
		t.Errorf("reset register = %#x, want 0x5a", got)
	}
	out(1, 1, 6)
	out(0, 4, 0x80000600) // an address is no reset
	if !bytes.Equal(reset.out, []byte{6}) {
		t.Errorf("the reset register took % x, want 06", reset.out)
	}
}
