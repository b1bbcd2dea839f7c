package device

import (
	"bytes"
	"testing"
)

type record struct{ last []byte }

func (r *record) In(port uint16, b []byte) {
	for i := range b {
		b[i] = byte(port) + byte(i)
	}
}
func (r *record) Out(_ uint16, b []byte) { r.last = append(r.last, b...) }

func TestBus(t *testing.T) {
	var b Bus
	r := &record{}
	if err := b.Add(0x10, 4, r); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		base, n uint16
	}{{0x13, 1}, {0x0f, 2}, {0x10, 0}, {0xffff, 2}} {
		if err := b.Add(tt.base, tt.n, r); err == nil {
			t.Errorf("Add(%#x, %d) succeeded", tt.base, tt.n)
		}
	}
	for _, tt := range []struct {
		port uint16
		want []byte
	}{
		{0x10, []byte{0, 1, 2, 3}},
		{0x12, []byte{2, 3, 0xff, 0xff}},
		{0x0f, []byte{0xff, 0}},
		{0x80, []byte{0xff}},
		{0xffff, []byte{0xff, 0xff}},
	} {
		got := make([]byte, len(tt.want))
		b.In(tt.port, got)
		if !bytes.Equal(got, tt.want) {
			t.Errorf("In(%#x) = % x, want % x", tt.port, got, tt.want)
		}
	}
	b.Out(0x0f, []byte{1, 2})
	b.Out(0x80, []byte{3})
	if !bytes.Equal(r.last, []byte{2}) {
		t.Errorf("device got % x, want 2", r.last)
	}
}
