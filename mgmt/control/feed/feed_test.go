package feed

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func image(n int64) *ashlarv1.Image { return &ashlarv1.Image{UploadedBytes: n} }

func TestFeed(t *testing.T) {
	f := New()
	f.Put("images/a", image(1))
	f.Put("images/a", image(1)) // no change
	f.Put("images/b", image(1))
	state, cursor := f.Snapshot()
	if len(state) != 2 || cursor != 2 || state[0].Name != "images/a" || state[0].Collection() != "images" {
		t.Errorf("snapshot = %v at %d", state, cursor)
	}
	f.Delete("images/a")
	f.Delete("images/a")
	f.Put("images/b", image(2))
	changes, err := f.Since(t.Context(), cursor, 10)
	if err != nil || len(changes) != 2 || !changes[0].Deleted || changes[1].Seq != 4 {
		t.Errorf("changes = %v, %v", changes, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := f.Since(ctx, 4, 10); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nothing new: %v", err)
	}
}

func TestBehind(t *testing.T) {
	f := New()
	for i := range int64(ringSize + 1) {
		f.Put("images/a", image(i+1))
	}
	if _, err := f.Since(t.Context(), 0, 10); !errors.Is(err, ErrBehind) {
		t.Errorf("from the start: %v, want ErrBehind", err)
	}
	if _, err := f.Since(t.Context(), 1<<40, 10); !errors.Is(err, ErrBehind) {
		t.Errorf("from the future: %v, want ErrBehind", err)
	}
	if got, ok := f.Pending(1); !ok || len(got) != ringSize || got[0].Seq != 2 {
		t.Errorf("from the oldest: %d, %v", len(got), ok)
	}
}

// Readers see every change once, in order, while writers write.
func TestConcurrent(t *testing.T) {
	f := New()
	const writers, each = 4, 100
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for cursor := uint64(0); cursor < writers*each; {
				changes, err := f.Since(t.Context(), cursor, 7)
				if err != nil {
					t.Error(err)
					return
				}
				for _, c := range changes {
					if c.Seq != cursor+1 {
						t.Errorf("after %d came %d", cursor, c.Seq)
					}
					cursor = c.Seq
				}
			}
		})
	}
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				f.Put(fmt.Sprintf("images/%d", w), image(int64(i+1)))
			}
		})
	}
	wg.Wait()
}

func FuzzCursor(f *testing.F) {
	feed := New()
	f.Add(feed.Token(7))
	f.Add("")
	f.Add("AAAAAAAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, token string) {
		cursor, ok, well := feed.Cursor(token)
		if !well && (ok || cursor != 0) {
			t.Errorf("Cursor(%q) = %d, %v, %v", token, cursor, ok, well)
		}
		if ok && feed.Token(cursor) != token {
			t.Errorf("Cursor(%q) = %d, whose token is another", token, cursor)
		}
	})
}
