package figure

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFigures(t *testing.T) {
	s := func(name, side string, round int, v float64) Sample {
		return Sample{Name: name, Unit: "ms", Better: Lower, Side: side, Round: round, Value: v}
	}
	got, err := Figures([]Sample{
		s("start", Ours, 0, 30), s("start", "qemu", 0, 20),
		s("start", "qemu", 1, 40), s("start", Ours, 1, 20), s("start", Ours, 2, 10), s("start", "qemu", 2, 40),
		s("size", Ours, 0, 4),
		s("exits", Ours, 0, 1), s("exits", "qemu", 0, 0),
	})
	if err != nil {
		t.Fatal(err)
	}
	f := func(v float64) *float64 { return &v }
	want := []Figure{
		{Name: "start", Unit: "ms", Better: Lower, Ours: 20, Peer: f(40), PeerName: "qemu", Ratio: f(0.5), Spread: 2.5, Rounds: 3},
		{Name: "size", Unit: "ms", Better: Lower, Ours: 4, Rounds: 1},
		{Name: "exits", Unit: "ms", Better: Lower, Ours: 1, Peer: f(0), PeerName: "qemu", Rounds: 1},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("Figures differ (-want +got):\n%s", d)
	}
}

func TestFiguresWithoutOurs(t *testing.T) {
	got, err := Figures([]Sample{{Name: "x", Side: "qemu"}, {Name: "y", Side: Ours, Value: 2}})
	if err == nil || len(got) != 1 || got[0].Name != "y" || got[0].Ours != 2 {
		t.Errorf("Figures = %v, %v, want y and an error", got, err)
	}
}

func TestTableMarksWhatIsWorse(t *testing.T) {
	for _, c := range []struct {
		better Better
		ratio  float64
		want   bool
	}{{Lower, 1.2, true}, {Lower, 0.8, false}, {Higher, 0.8, true}, {Higher, 1.2, false}} {
		var b strings.Builder
		peer := 1.0
		Table(&b, []Figure{{Name: "x", Better: c.better, Peer: &peer, Ratio: &c.ratio}})
		if got := strings.Contains(b.String(), "worse"); got != c.want {
			t.Errorf("ratio %v with %v better: marked %v, want %v", c.ratio, c.better, got, c.want)
		}
	}
}
