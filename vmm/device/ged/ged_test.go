package ged

import (
	"slices"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/acpi"
)

func TestEvents(t *testing.T) {
	var line []bool
	d := New(func(high bool) { line = append(line, high) })
	read := func(port uint16, n int) []byte {
		b := make([]byte, n)
		d.In(port, b)
		return b
	}
	if got := read(0, 4); !slices.Equal(got, []byte{0, 0, 0, 0}) || line != nil {
		t.Errorf("register of a new device = %v, line %v", got, line)
	}
	d.Raise(acpi.CPUEvent)
	d.Raise(acpi.CPUEvent)
	d.Raise(1 << 9)
	d.Out(0, []byte{0xff})
	if !slices.Equal(line, []bool{true}) {
		t.Errorf("line = %v, want high once", line)
	}
	if got := read(1, 1); got[0] != 2 || len(line) != 1 {
		t.Errorf("second byte = %v, line %v", got, line)
	}
	if got := read(0, 4); !slices.Equal(got, []byte{byte(acpi.CPUEvent), 0, 0, 0}) {
		t.Errorf("register = %v", got)
	}
	if got := read(0, 4); !slices.Equal(got, []byte{0, 0, 0, 0}) || !slices.Equal(line, []bool{true, false}) {
		t.Errorf("register after it was read = %v, line %v", got, line)
	}
}
