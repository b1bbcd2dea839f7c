package ged

import (
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/acpi"
)

// FuzzRegister has a guest read and write the register in pieces while events come: the line is
// high just while there is one that was not read.
func FuzzRegister(f *testing.F) {
	f.Add([]byte{0x80, 1, 0x03, 0x40, 0x80, 0xff, 0x00})
	f.Fuzz(func(t *testing.T, b []byte) {
		high := false
		d := New(func(now bool) {
			if now == high {
				t.Fatalf("the line is set to %v again", now)
			}
			high = now
		})
		var pending acpi.Event
		for ; len(b) > 1; b = b[2:] {
			port := uint16(b[0] % acpi.EventsSize)
			p := make([]byte, 1+int(b[0]>>2)%(acpi.EventsSize-int(port)))
			switch {
			case b[0]&0x80 != 0:
				e := acpi.Event(b[1]) << (b[0] % 25)
				d.Raise(e)
				pending |= e
			case b[0]&0x40 != 0:
				d.Out(port, p)
			default:
				d.In(port, p)
				for i, got := range p {
					at := 8 * (int(port) + i)
					if want := byte(pending >> at); got != want {
						t.Fatalf("byte %d = %#x, want %#x", at/8, got, want)
					}
					pending &^= 0xff << at
				}
			}
			if high != (pending != 0) {
				t.Fatalf("the line is high: %v, with %#x pending", high, pending)
			}
		}
	})
}
