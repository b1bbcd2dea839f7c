package pvpanic

import (
	"slices"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/device"
)

func TestEvents(t *testing.T) {
	for _, tt := range []struct {
		written byte
		want    []byte
	}{
		{0, nil}, {1, []byte{Panicked}}, {2, []byte{CrashLoaded}}, {3, []byte{CrashLoaded, Panicked}}, {0xfc, nil},
	} {
		var got []byte
		p := Port{Event: func(e byte) { got = append(got, e) }}
		p.Out(0, []byte{tt.written})
		if !slices.Equal(got, tt.want) {
			t.Errorf("%#x gives events %v, want %v", tt.written, got, tt.want)
		}
	}
}

func FuzzPort(f *testing.F) {
	f.Add([]byte{1}, uint16(0))
	f.Add([]byte{3, 0xff, 0, 1}, uint16(0xffff))
	f.Fuzz(func(t *testing.T, b []byte, off uint16) {
		var bus device.Bus
		events := 0
		if err := bus.Add(0x505, Ports, Port{Event: func(byte) { events++ }}); err != nil {
			t.Fatal(err)
		}
		// An access has 1, 2 or 4 bytes.
		data := make([]byte, 4)
		copy(data, b)
		b = data[:1<<(off>>8%3)]
		bus.Out(0x500+off%8, b)
		bus.In(0x500+off%8, b)
		if at := 5 - int(off%8); at >= 0 && at < len(b) && b[at] != Panicked|CrashLoaded {
			t.Errorf("the port reads as %#x", b[at])
		}
		if events > 2 {
			t.Errorf("%d events of one write", events)
		}
	})
}
