package pci_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/pci"
)

// FuzzPorts lets a guest use the ports of configuration space at will: what they show of a
// function is what ECAM shows, and the function stays who it is.
func FuzzPorts(f *testing.F) {
	f.Add([]byte{0x80, 4, 0, 8, 0, 0x80, 0x94, 4, 2, 0, 0, 0, 0x14, 4, 0, 0, 0, 0})
	f.Add([]byte{0x81, 1, 6, 0, 0, 0, 0x83, 4, 1, 2, 3, 4, 0x07, 4, 0, 0, 0, 0})
	fn := newFunction(f, map[int]pci.BAR{0: {Size: 0x1000}, 2: {Size: 0x2000, Is64: true}})
	must(f, fn.cfg.AddExpress())
	bus := newBus(f, fn)
	f.Fuzz(func(t *testing.T, b []byte) {
		p := pci.NewPorts(bus, &recorder{})
		for b = b[:min(len(b), 600)]; len(b) >= 6; b = b[6:] {
			port := uint16(b[0] & 7)
			// As package device hands them on: 1, 2 or 4 bytes, none past the last port.
			n := min(1<<(b[1]%3), pci.PortCount-int(port))
			if b[0]&0x80 != 0 {
				p.Out(port, b[2:2+n])
				continue
			}
			got := make([]byte, n)
			p.In(port, got)
			var address [4]byte
			p.In(0, address[:])
			a := binary.LittleEndian.Uint32(address[:])
			if port < 4 || a>>31 == 0 {
				continue
			}
			want := make([]byte, n)
			bus.Read(uint64(a>>8&0xffff)<<12|uint64(a&0xfc)|uint64(port-4), want)
			if !bytes.Equal(got, want) {
				t.Fatalf("%d bytes at port %d of %#x = %x, ECAM has %x", n, port, a, got, want)
			}
		}
		fn.events = nil
		if id := read(bus, slot1, 4); id != 0x56781234 {
			t.Fatalf("identity = %#x", id)
		}
	})
}
