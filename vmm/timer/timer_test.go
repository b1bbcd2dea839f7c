package timer

import (
	"errors"
	"os"
	"testing"
	"time"
)

func TestTicks(t *testing.T) {
	const every = 10 * time.Millisecond
	began := time.Now()
	tm, err := Every(every)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := tm.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took < 3*every {
		t.Errorf("three ticks came after %v, want %v or more", took, 3*every)
	}
	ended := make(chan error)
	go func() {
		for {
			if err := tm.Wait(); err != nil {
				ended <- err
				return
			}
		}
	}()
	if err := tm.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("Wait ends with %v, want %v", err, os.ErrClosed)
	}
}

func TestEveryRefusesNoTime(t *testing.T) {
	if tm, err := Every(-1); err == nil {
		tm.Close()
		t.Error("a timer of less than no time is made")
	}
}
