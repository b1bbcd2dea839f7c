package blk

import (
	"math"
	"os"
	"slices"
	"testing"
	"time"
)

func TestHistogram(t *testing.T) {
	for _, tt := range []struct {
		took time.Duration
		want int
	}{
		{math.MinInt64, 0}, {0, 0}, {time.Microsecond - 1, 0}, {time.Microsecond, 1}, {2*time.Microsecond - 1, 1},
		{2 * time.Microsecond, 2}, {time.Millisecond, 10}, {1024 * time.Microsecond, 11}, {time.Second, 20},
		{1<<24*time.Microsecond - 1, 24}, {1 << 24 * time.Microsecond, 25}, {time.Hour, 25}, {math.MaxInt64, 25},
	} {
		var h histogram
		h.observe(int64(tt.took))
		want := make([]uint64, tt.want+1)
		want[tt.want] = 1
		if got := h.counts(); !slices.Equal(got, want) {
			t.Errorf("%v: counts = %v, want %v", tt.took, got, want)
		}
	}
	var h histogram
	if got := h.counts(); len(got) != 0 {
		t.Errorf("counts of nothing = %v", got)
	}
	if n := testing.AllocsPerRun(100, func() { h.observe(5) }); n != 0 {
		t.Errorf("a request allocates %v times", n)
	}
}

// Requests are counted by what they are, those that fail are not.
func TestHistograms(t *testing.T) {
	r := newLimitedRig(t, Limits{}, 1) // its clock stands still
	ring := r.rings[0]
	for range 3 {
		r.do(ring, typeIn, 0, nil, 512)
	}
	r.do(ring, typeOut, 0, make([]byte, 512), 0)
	r.do(ring, typeFlush, 0, nil, 0)
	r.do(ring, typeIn, 1<<40, nil, 512)
	r.M.Must(os.Truncate(r.name, 512))
	r.do(ring, typeIn, 8, nil, 512)
	got := r.dev.Histograms()
	for name, want := range map[string]uint64{"read": 3, "write": 1, "flush": 1} {
		if !slices.Equal(got[name], []uint64{want}) {
			t.Errorf("%s = %v, want %d of no time", name, got[name], want)
		}
	}
}
