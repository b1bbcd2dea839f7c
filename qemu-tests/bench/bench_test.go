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
	sample := `SAMPLE {"name":"a","unit":"ms","better":"lower","side":"q35","round":1,"value":2.5}` + "\n"
	want := []figure.Sample{{Name: "a", Unit: "ms", Better: figure.Lower, Side: "q35", Round: 1, Value: 2.5}}
	var said []string
	say := func(s string) { said = append(said, s) }
	got, err := receive(strings.NewReader("SAY half way\n"+sample+"DONE \n"), say)
	if err != nil || !cmp.Equal(got, want) || !cmp.Equal(said, []string{"half way"}) {
		t.Errorf("receive = %v, %v and said %q, want %v", got, err, said, want)
	}
	if got, err := receive(strings.NewReader(sample), say); !cmp.Equal(got, want) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("receive of half a run = %v, %v, want %v", got, err, io.ErrUnexpectedEOF)
	}
	if got, err := receive(strings.NewReader(sample+"FAILED no KVM\n"), say); !cmp.Equal(got, want) || err == nil || err.Error() != "no KVM" {
		t.Errorf("receive of a failed run = %v, %v, want no KVM", got, err)
	}
	if got, err := receive(strings.NewReader("SAMPLE {\nDONE\n"), say); got != nil || err == nil {
		t.Errorf("receive of a broken sample = %v, %v, want an error", got, err)
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
