package operation

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/mgmt/control/feed"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func load(t *testing.T, path string) (*store.Store, *Registry, []*Op) {
	t.Helper()
	s, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	r, open, err := Load(s, feed.New(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s, r, open
}

func begin(t *testing.T, r *Registry, kind string) *Op {
	t.Helper()
	op, err := r.Begin(store.Operation{Kind: kind, Target: "virtualMachines/a"}, func(*store.Tx, string) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return op
}

func TestOperations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s, r, _ := load(t, path)
	done, failed, open := begin(t, r, "start"), begin(t, r, "stop"), begin(t, r, "delete")
	done.Progress(50, "half")
	done.Progress(10, "not less")
	if got := done.Proto(); got.ProgressPercent != 50 || got.Message != "not less" || got.Done {
		t.Errorf("under way: %v", got)
	}
	done.Finish(nil)
	failed.Finish(refuse.Precondition(refuse.WrongState, "virtualMachines/a", "is on fire"))
	open.Amend(func(rec *store.Operation) { rec.Grace = time.Second })
	<-done.Done()
	if done.Context().Err() == nil || done.Cancelled() {
		t.Error("context of an ended operation")
	}
	s.Close()

	s, r, left := load(t, path)
	defer s.Close()
	if len(left) != 1 || left[0].Record().Kind != "delete" || left[0].Record().Grace != time.Second || left[0].FromEarlierBoot() {
		t.Errorf("left open: %v", left)
	}
	op, err := r.Get(Prefix + failed.Record().ID)
	if err != nil {
		t.Fatal(err)
	}
	if got := op.Proto(); !got.Done || got.Error.GetCode() != "FAILED_PRECONDITION" || got.Error.GetMessage() != "is on fire" || got.EndTime == nil {
		t.Errorf("failed: %v", got)
	}
	if got := r.List(); len(got) != 3 || got[2].Kind != "start" && got[1].Kind != "start" && got[0].Kind != "start" {
		t.Errorf("list: %v", got)
	}
	for _, name := range []string{"", "operations/", "virtualMachines/a"} {
		if _, err := r.Get(name); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("Get(%q): %v", name, err)
		}
	}

	// After a day what has ended is forgotten, what goes on is not.
	if err := r.Sweep(time.Now().Add(23 * time.Hour)); err != nil || len(r.List()) != 3 {
		t.Errorf("too early: %v, %v", err, r.List())
	}
	if err := r.Sweep(time.Now().Add(25 * time.Hour)); err != nil || len(r.List()) != 1 {
		t.Errorf("after a day: %v, %v", err, r.List())
	}
}

func TestEarlierBoot(t *testing.T) {
	s, r, _ := load(t, filepath.Join(t.TempDir(), "db"))
	defer s.Close()
	op := begin(t, r, "start")
	if op.FromEarlierBoot() {
		t.Error("begun just now, from an earlier boot")
	}
	op.Amend(func(rec *store.Operation) { rec.Booted = sinceBoot() + time.Hour })
	if !op.FromEarlierBoot() {
		t.Error("begun when the host had been up for longer than now, not from an earlier boot")
	}
}

func TestNewID(t *testing.T) {
	s, r, _ := load(t, filepath.Join(t.TempDir(), "db"))
	defer s.Close()
	last := ""
	for range 1000 {
		id := r.newID()
		if len(id) != 32 || id <= last {
			t.Fatalf("id %q after %q", id, last)
		}
		last = id
	}
}

// Operations that were begun in the same millisecond, or after the clock was set back,
// are taken up in the order in which they were begun.
func TestTakenUpInOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	old := store.Operation{ID: "ffff" + strings.Repeat("0", 28), Kind: "stop", Target: "virtualMachines/a"} // in 8900 years
	if err := s.Update(func(tx *store.Tx) error { return store.Operations.Put(tx, old) }); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s, r, _ := load(t, path)
	want := []string{old.ID}
	for range 20 {
		want = append(want, begin(t, r, "start").Record().ID)
	}
	s.Close()
	s, _, open := load(t, path)
	defer s.Close()
	got := []string{}
	for _, op := range open {
		got = append(got, op.Record().ID)
	}
	if !slices.Equal(got, want) {
		t.Errorf("taken up in the order %v, want %v", got, want)
	}
}

// Somebody who begins operations without end does not fill the memory until the next
// Sweep.
func TestKept(t *testing.T) {
	s, r, _ := load(t, filepath.Join(t.TempDir(), "db"))
	defer s.Close()
	r.kept = 8
	for range 40 {
		begin(t, r, "start").Finish(nil)
	}
	if n := len(r.List()); n < 8 || n > 11 {
		t.Errorf("%d operations are kept, want 8 to 11", n)
	}
}

func TestCancelIsStored(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s, r, _ := load(t, path)
	begin(t, r, "delete").Cancel()
	ended := begin(t, r, "start")
	ended.Finish(nil)
	ended.Cancel() // too late
	s.Close()
	s, r, open := load(t, path)
	defer s.Close()
	if len(open) != 1 || !open[0].Cancelled() {
		t.Errorf("taken up: %v", open)
	}
	if op, err := r.Get(Prefix + ended.Record().ID); err != nil || op.Proto().Error != nil {
		t.Errorf("cancelled after its end: %v, %v", op, err)
	}
}

// What ends while the disk is full is stored when there is room again, and before anything
// that begins later: a later run does not take it up.
func TestEndOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=48m"); err != nil {
		t.Fatalf("mount a small file system: %v: this test runs as root", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	path, filler := filepath.Join(dir, "db"), filepath.Join(dir, "filler")
	s, r, _ := load(t, path)
	full, left := begin(t, r, "stop"), begin(t, r, "pause")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	for b := make([]byte, 4096); err == nil; {
		_, err = f.Write(b)
	}
	f.Close()
	full.Finish(errors.New(strings.Repeat("x", 6<<20))) // more than the room that the store has kept
	<-full.Done()
	if _, err := r.Begin(store.Operation{Kind: "start"}, func(*store.Tx, string) error { return nil }); !errors.Is(err, store.ErrFull) {
		t.Errorf("Begin on the full disk = %v, want ErrFull", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	last := begin(t, r, "start")
	s.Close()
	s, _, open := load(t, path)
	defer s.Close()
	if len(open) != 2 || open[0].Record().ID != left.Record().ID || open[1].Record().ID != last.Record().ID {
		t.Errorf("%d operations are taken up, want the two that had not ended", len(open))
	}
}
