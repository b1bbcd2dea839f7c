package hostcall

import (
	"slices"
	"testing"
)

func TestParseDevice(t *testing.T) {
	for name, want := range map[string]struct {
		kind   DeviceKind
		number int
		ok     bool
	}{
		"disk0": {DiskKind, 0, true}, "disk15": {DiskKind, 15, true}, "nic7": {NICKind, 7, true},
		"": {}, "disk": {}, "disk16": {}, "nic8": {}, "disk-1": {}, "disk01": {}, "disk+1": {}, "nic 1": {}, "tap1": {}, "disk1\n": {},
	} {
		kind, number, ok := ParseDevice(name)
		if kind != want.kind || number != want.number || ok != want.ok {
			t.Errorf("ParseDevice(%q) = %s, %d, %v; want %+v", name, kind, number, ok, want)
		}
		if ok && DeviceName(kind, number) != name {
			t.Errorf("%q comes back as %q", name, DeviceName(kind, number))
		}
	}
}

// TestNumber numbers what was written before there were numbers, and nothing else.
func TestNumber(t *testing.T) {
	for _, tt := range []struct{ in, want []int }{
		{nil, nil}, {[]int{0}, []int{0}}, {[]int{3}, []int{3}}, {[]int{0, 0, 0}, []int{0, 1, 2}},
		{[]int{0, 2}, []int{0, 2}}, {[]int{2, 0}, []int{2, 0}}, {[]int{0, 1, 2}, []int{0, 1, 2}},
	} {
		got := slices.Clone(tt.in)
		Number(got, func(n *int) *int { return n })
		if !slices.Equal(got, tt.want) {
			t.Errorf("Number(%v) = %v, want %v", tt.in, got, tt.want)
		}
	}
}
