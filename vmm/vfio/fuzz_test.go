package vfio

import (
	"encoding/binary"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/pci"
)

// FuzzGuest lets a guest do what it likes with configuration space and BARs: the device is
// used as it is there, one kind of interrupts at a time, nothing is mapped over something
// else or outside the windows, and all is given back.
func FuzzGuest(f *testing.F) {
	f.Add([]byte{1, 4, 0x04, 0, 0x06, 0, 0, 0, 1, 4, 0x14, 0, 0, 1, 0, 0, 3, 4, 0, 0x20, 0, 0, 0xe0, 0xfe})
	f.Add([]byte{1, 2, 0xb2, 0, 0, 0x80, 0, 0, 3, 4, 0x0c, 0x20, 0, 0, 0, 0, 1, 2, 0x78, 0, 0, 0x80, 0, 0})
	f.Add([]byte{1, 2, 0x52, 0, 0x71, 0, 0, 0, 1, 2, 0x44, 0, 3, 0, 0, 0, 1, 2, 0x44, 0, 0, 0, 0, 0})
	f.Add([]byte{0, 8, 0xfc, 0x0f, 0, 0, 0, 0, 2, 8, 0xfe, 0xff, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		d := newFake(t)
		d.irqs[irqMSIX].grows = len(in)%2 == 0
		d.bar[regionROM] = make([]byte, 0x800)
		b := newFakeBoard(t, d, Config{ROM: true})
		for in = in[:min(len(in), 800)]; len(in) >= 8; in = in[8:] {
			// Widths as KVM hands them on, at any offset.
			n, at := 1<<(in[1]%4), uint64(binary.LittleEndian.Uint16(in[2:]))
			v := append(append([]byte(nil), in[4:8]...), in[4:8]...)[:n]
			gpa := uint64(highBase) + at
			if in[0]&4 != 0 {
				gpa = lowBase + at
			}
			switch in[0] & 3 {
			case 0:
				b.Read(ecam+at%pci.ConfigSize, v)
			case 1:
				b.Write(ecam+at%pci.ConfigSize, v)
			case 2:
				b.MMIORead(gpa, v)
			case 3:
				b.MMIOWrite(gpa, v)
			}
			for _, a := range b.slots.areas() {
				low := a.off >= lowBase && a.off+a.size <= lowBase+512<<20
				if high := a.off >= highBase && a.off+a.size <= highBase+1<<39; !low && !high {
					t.Fatalf("%#x bytes are mapped at %#x", a.size, a.off)
				}
			}
		}
		if id := b.get(0, 4); id != 0x56781234 {
			t.Fatalf("identity %#x", id)
		}
	})
}

// FuzzDevice has a device say what it likes of itself: it is refused, or shown to a guest that reads
// and writes all of it.
func FuzzDevice(f *testing.F) {
	f.Add(uint16(0x34), []byte{0xfc, 0xff}, uint64(0x1000))
	f.Add(uint16(0x100), []byte{0x0b, 0, 1, 0x10, 0, 0, 0xf0, 0xff}, uint64(0))
	f.Add(uint16(fakeMSIX), []byte{0x11, 0, 0xff, 0xff, 0xf8, 0xff, 0xff, 0xff, 5}, uint64(0x17))
	f.Fuzz(func(t *testing.T, at uint16, with []byte, size uint64) {
		d := newFake(t)
		copy(d.space[at%pci.ConfigSize:], with)
		if size != 0 {
			d.bar[1] = make([]byte, size%(1<<20))
		}
		fn, err := newFunction(d, Config{Slots: &fakeSlots{}, Router: nil, Report: func(error) {}, Error: func() {}, Request: func() {}})
		if err != nil {
			return
		}
		defer fn.Close()
		bus := pci.NewBus(pci.Window{Base: lowBase, Size: 512 << 20}, pci.Window{Base: highBase, Size: 1 << 39})
		if bus.Add(1, fn) != nil {
			t.Fatal("not added")
		}
		for off := uint64(0); off < pci.ConfigSize; off += 4 {
			if off >= fakeMSI && off < fakeExpress {
				continue // vectors, which nobody makes here
			}
			var v [4]byte
			bus.Read(ecam+off, v[:])
			bus.Write(ecam+off, v[:])
		}
	})
}
