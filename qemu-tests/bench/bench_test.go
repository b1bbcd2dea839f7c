package bench

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ashlar-hv/ashlar/qemu-tests/bench/figure"
)

func TestReceive(t *testing.T) {
	turn := `SAMPLE {"name":"a","unit":"ms","better":"lower","side":"q35","round":1,"value":2.5}` + "\nTURN a, round 2, q35\n"
	want := progress{
		samples: []figure.Sample{{Name: "a", Unit: "ms", Better: figure.Lower, Side: "q35", Round: 1, Value: 2.5}},
		turns:   []string{"a, round 2, q35"},
	}
	for _, c := range []struct {
		name, in string
		want     progress
		err      error
	}{
		{"whole", "SAY half way\nALIVE \n" + turn + "DONE \n", want, nil},
		{"lost after a turn", turn, want, io.ErrUnexpectedEOF},
		{"lost in a turn", turn + strings.SplitAfter(turn, "\n")[0], want, io.ErrUnexpectedEOF},
		{"failed", turn + "FAILED no KVM\n", want, errFailed},
		{"broken", "SAMPLE {\nDONE\n", progress{}, errFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got progress
			err := got.receive(strings.NewReader(c.in), func(string) {})
			if d := cmp.Diff(c.want, got, cmp.AllowUnexported(progress{})); d != "" || !errors.Is(err, c.err) {
				t.Errorf("receive: %v, want %v (-want +got):\n%s", err, c.err, d)
			}
		})
	}
}

func TestShares(t *testing.T) {
	s := func(name, side string, round int, v float64) figure.Sample {
		return figure.Sample{Name: name, Unit: "ms", Better: figure.Lower, Side: side, Round: round, Value: v}
	}
	got := shares([]figure.Sample{
		s(firstRun+"128 MiB", "q35", 0, 20), s(firstRun+"128 MiB", "q35", 1, 99), s(firstRun+"4096 MiB", "q35", 0, 30),
		s(toInit+"128 MiB", "q35", 0, 80), s(toInit+"128 MiB", "other", 0, 80),
	})
	want := []figure.Sample{{Name: share + "128 MiB", Unit: "%", Better: figure.Lower, Side: "q35", Value: 25}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("shares differ (-want +got):\n%s", d)
	}
}
