package step

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRunGoesOnAfterFailures(t *testing.T) {
	var recorded []string
	record := func(s string) func() { return func() { recorded = append(recorded, s) } }
	stuck := make(chan struct{})
	defer close(stuck)
	broken := errors.New("broken")
	steps := []Step{
		{"good", time.Minute, func(context.Context) (Outcome, error) {
			return Outcome{"fine", record("good")}, nil
		}},
		{"bad", time.Minute, func(context.Context) (Outcome, error) { return Outcome{Record: record("bad")}, broken }},
		{"panics", time.Minute, func(context.Context) (Outcome, error) { panic("ouch") }},
		{"record panics", time.Minute, func(context.Context) (Outcome, error) {
			return Outcome{"fine", func() { panic("ow") }}, nil
		}},
		{"stuck", 10 * time.Millisecond, func(context.Context) (Outcome, error) {
			<-stuck
			return Outcome{"late", record("stuck")}, nil
		}},
		{"heeds", 10 * time.Millisecond, func(ctx context.Context) (Outcome, error) {
			<-ctx.Done()
			return Outcome{"gave up", record("heeds")}, ctx.Err()
		}},
		{"last", time.Minute, func(context.Context) (Outcome, error) { return Outcome{}, nil }},
	}
	got := map[string]Report{}
	Run(context.Background(), steps, func(r Report) { got[r.Step] = r })

	if diff := cmp.Diff([]string{"good", "bad", "heeds"}, recorded); diff != "" {
		t.Errorf("recorded (-want +got):\n%s", diff)
	}
	if len(got) != len(steps) {
		t.Errorf("%d reports, want %d", len(got), len(steps))
	}
	for name, want := range map[string]error{
		"good": nil, "bad": broken, "stuck": ErrLate, "heeds": context.DeadlineExceeded, "last": nil,
	} {
		if !errors.Is(got[name].Err, want) {
			t.Errorf("%s failed with %v, want %v", name, got[name].Err, want)
		}
	}
	for name, want := range map[string]string{"panics": "program error: ouch", "record panics": "program error: ow"} {
		if err := got[name].Err; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s failed with %v, want %q", name, err, want)
		}
	}
}
