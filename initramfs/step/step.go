// Package step runs the steps of the boot in order. A step that fails or takes
// too long is reported, and the next one begins: the machine comes up as far
// as it can.
package step

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// A Step is one thing to do.
type Step struct {
	// Name is a word for messages.
	Name string
	// Deadline is how long it may take.
	Deadline time.Duration
	// Run does it. It returns what was done, in a few words, and a function
	// that records the outcome; that function is called only when Run ended
	// within its deadline, and never at the same time as another step's.
	Run func(ctx context.Context) (Outcome, error)
}

// An Outcome is what a step has to tell.
type Outcome struct {
	// Message says what was done, in a few words.
	Message string
	// Record stores the result; nil means there is none. It is called also
	// when Run returned an error.
	Record func()
}

// ErrLate is what a step that did not end in time fails with. It may still go
// on by itself; its outcome is ignored.
var ErrLate = errors.New("not done in time")

// A Report is how a step went.
type Report struct {
	Step    string
	Message string
	Took    time.Duration
	Err     error
}

// Run runs the steps and tells report of each as it ends.
func Run(ctx context.Context, steps []Step, report func(Report)) {
	for _, s := range steps {
		begin := time.Now()
		o, err := s.run(ctx)
		if o.Record != nil {
			err = errors.Join(err, record(o.Record))
		}
		report(Report{Step: s.Name, Message: o.Message, Took: time.Since(begin), Err: err})
	}
}

// record calls f. PID 1 must not go down with it, either.
func record(f func()) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = programError(p)
		}
	}()
	f()
	return nil
}

func programError(p any) error {
	return fmt.Errorf("program error: %v\n%s", p, debug.Stack())
}

type result struct {
	outcome Outcome
	err     error
}

func (s Step) run(ctx context.Context) (Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, s.Deadline)
	defer cancel()
	done := make(chan result, 1)
	go func() {
		defer func() {
			// PID 1 must not go down with a step.
			if p := recover(); p != nil {
				done <- result{err: programError(p)}
			}
		}()
		o, err := s.Run(ctx)
		done <- result{o, err}
	}()
	select {
	case r := <-done:
		return r.outcome, r.err
	case <-ctx.Done():
	}
	// The step hears of the deadline too, and may have something to say.
	select {
	case r := <-done:
		return r.outcome, r.err
	case <-time.After(100 * time.Millisecond):
		return Outcome{}, fmt.Errorf("%w: more than %v", ErrLate, s.Deadline)
	}
}
