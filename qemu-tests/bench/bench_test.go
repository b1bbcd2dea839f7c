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
		text     string // of the error
	}{
		{"whole", "SAY half way\nALIVE \n" + turn + "DONE \n", want, nil, ""},
		{"lost after a turn", turn, want, io.ErrUnexpectedEOF, "before it was done"},
		{"lost in a turn", turn + strings.SplitAfter(turn, "\n")[0], want, io.ErrUnexpectedEOF, "before it was done"},
		{"failed", turn + "FAILED no KVM\n", want, errFailed, "no KVM"},
		{"broken", "SAMPLE {\nDONE\n", progress{}, errFailed, "sample"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got progress
			var said []string
			err := got.receive(strings.NewReader(c.in), silenceLimit, func(s string) { said = append(said, s) })
			if half := strings.HasPrefix(c.in, "SAY half way\n"); half != cmp.Equal(said, []string{"half way"}) {
				t.Errorf("it said %q", said)
			}
			if err != nil && !strings.Contains(err.Error(), c.text) {
				t.Errorf("receive: %v, want %q in it", err, c.text)
			}
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
