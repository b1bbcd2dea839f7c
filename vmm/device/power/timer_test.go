package power

import (
	"bytes"
	"testing"
	"time"
)

func TestTimer(t *testing.T) {
	start := time.Unix(1000, 0)
	for _, tt := range []struct {
		passed time.Duration
		port   uint16
		n      int
		want   []byte
	}{
		{0, 0, 4, []byte{0, 0, 0, 0}},
		{time.Second, 0, 4, []byte{0x99, 0x9e, 0x36, 0}}, // 3579545
		{time.Second, 1, 2, []byte{0x9e, 0x36}},
		{time.Second / 2, 0, 4, []byte{0x4c, 0x4f, 0x1b, 0}},
		{20 * time.Minute, 0, 4, []byte{0x30, 0x6d, 0x07, 0}},              // round once: 4295454000 ticks
		{100 * 365 * 24 * time.Hour, 0, 4, []byte{0x00, 0xee, 0xcd, 0xcd}}, // long up
	} {
		now := start
		timer := NewTimer(func() time.Time { return now })
		now = now.Add(tt.passed)
		timer.Out(0, []byte{1, 2, 3, 4})
		b := make([]byte, tt.n)
		timer.In(tt.port, b)
		if !bytes.Equal(b, tt.want) {
			t.Errorf("after %v, port %d: %x, want %x", tt.passed, tt.port, b, tt.want)
		}
	}
}
