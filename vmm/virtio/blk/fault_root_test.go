//go:build roottest

package blk

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/qemu-tests/scratch"
)

// A stage is a part of a test with an end of its own, by which a disk does not flush any more.
type stage struct {
	testing.TB
	ends []func()
}

func (s *stage) Cleanup(f func()) { s.ends = append(s.ends, f) }

func (s *stage) Error(args ...any) {
	s.Helper()
	if err, ok := args[0].(error); ok && errors.Is(err, unix.EIO) {
		s.Log(args...)
		return
	}
	s.TB.Error(args...)
}

func (s *stage) end() {
	for _, f := range slices.Backward(s.ends) {
		f()
	}
	s.ends = nil
}

// A disk whose file lies on a disk that fails, wholly or in part, answers with errors, and with
// nothing else: what was flushed is there again when that works.
func TestDiskFails(t *testing.T) {
	for name, flags := range map[string]int{"cached": os.O_RDWR, "direct": os.O_RDWR | unix.O_DIRECT} {
		t.Run(name, func(t *testing.T) { diskFails(t, flags) })
	}
}

func diskFails(t *testing.T, flags int) {
	// What is written goes into the page cache, and fails when it is flushed; or past it.
	var writing, flushing byte = statusOK, statusIOErr
	if flags&unix.O_DIRECT != 0 {
		writing, flushing = flushing, writing
	}
	failing := scratch.NewFailing(t, scratch.Node(t))
	scratch.Format(t, failing.Node)
	dir, unmount := scratch.Mount(t, failing.Node)
	t.Setenv("TMPDIR", dir)
	const (
		size  = 32 << 20
		piece = 128 << 10
		bad   = 8 << 20  // where the part that fails begins
		end   = 12 << 20 // and ends
		good  = 20 << 20
	)
	var troubles atomic.Int32
	st := &stage{TB: t}
	t.Cleanup(st.end)
	r := newRig(st, Config{Trouble: func(full bool) {
		if troubles.Add(1); full {
			t.Error("a disk that fails is told of as full")
		}
	}}, size, flags, all)
	ring, file := r.rings[0], r.dev.file
	is := func(what string, got, want byte) {
		t.Helper()
		if got != want {
			t.Errorf("%s: status %d, want %d", what, got, want)
		}
	}
	flush := func(what string, want byte) {
		t.Helper()
		_, status, _ := r.do(ring, typeFlush, 0, nil, 0)
		is("flush "+what, status, want)
	}
	write := func(what string, at int, b byte, want byte) {
		t.Helper()
		data := bytes.Repeat([]byte{b}, piece)
		_, status, _ := r.do(ring, typeOut, uint64(at/SectorSize), data, 0)
		is("write "+what, status, want)
		if status == statusOK {
			copy(r.want[at:], data)
		}
	}
	read := func(what string, at int, want byte) {
		t.Helper()
		got, status, _ := r.do(ring, typeIn, uint64(at/SectorSize), nil, piece)
		is("read "+what, status, want)
		if status == statusOK && !bytes.Equal(got, r.want[at:at+piece]) {
			t.Errorf("read %s: not what was written", what)
		}
	}
	scratch.Forget(t, file)

	failing.FailFile(file, bad, end)
	read("from the part that fails", bad, statusIOErr)
	read("beside it", good, statusOK)
	if n := troubles.Load(); n != 1 {
		t.Errorf("the host was told %d times of the trouble, want once", n)
	}
	failing.Heal()
	read("from it when it works again", bad, statusOK)

	before := bytes.Clone(r.want)
	failing.FailFile(file, bad, end)
	write("to the part that fails", bad, 1, writing)
	write("beside it", good, 2, statusOK)
	flush("with a part that fails", flushing)
	failing.Heal()
	write("again when it works", bad, 3, statusOK)
	flush("when it works", statusOK)
	scratch.Forget(t, file)
	read("what was written again", bad, statusOK)
	read("beside it, written before the flush that failed", good, statusOK)

	failing.FailAll()
	write("to a disk that fails", good+piece, 4, writing)
	flush("of a disk that fails", flushing)
	_, status, _ := r.do(ring, typeIn, 0, nil, piece)
	is("read from a disk that fails", status, statusIOErr)
	copy(r.want[good+piece:], before[good+piece:good+2*piece]) // it was not flushed

	// The file system has shut down. With a disk that works it has all that was flushed.
	r.Reset()
	st.end()
	unmount()
	failing.Heal()
	again, _ := scratch.Mount(t, failing.Node)
	got, err := os.ReadFile(strings.Replace(r.name, dir, again, 1))
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < size; at += piece {
		if !bytes.Equal(got[at:at+piece], r.want[at:at+piece]) {
			t.Errorf("after all: bytes %d to %d are not what was flushed", at, at+piece)
		}
	}
}

// Of a disk that fails by the clock a guest gets an error or what was written, and what was flushed stays.
func TestDiskFlickers(t *testing.T) {
	t.Run("reads", func(t *testing.T) { diskFlickers(t, scratch.Reads) })
	t.Run("everything", func(t *testing.T) { diskFlickers(t, scratch.Everything) })
}

func diskFlickers(t *testing.T, flaw scratch.Flaw) {
	failing := scratch.NewFailing(t, scratch.Node(t))
	scratch.Format(t, failing.Node)
	dir, unmount := scratch.Mount(t, failing.Node)
	t.Setenv("TMPDIR", dir)
	const (
		size   = 8 << 20
		piece  = 64 << 10
		pieces = size / piece
	)
	var troubles atomic.Int32
	st := &stage{TB: t}
	t.Cleanup(st.end)
	r := newRig(st, Config{Trouble: func(bool) { troubles.Add(1) }}, size, os.O_RDWR|unix.O_DIRECT, all)
	ring := r.rings[0]
	// What may be in each piece: the byte of the last write that was flushed, and all since.
	may := make([][]byte, pieces)
	content := func(p int, got []byte, what string) {
		t.Helper()
		for _, b := range may[p] {
			if bytes.Equal(got, bytes.Repeat([]byte{b}, piece)) {
				return
			}
		}
		t.Errorf("piece %d %s: %d..., want one of %d", p, what, got[0], may[p])
	}
	for p := range may {
		if _, status, _ := r.do(ring, typeOut, uint64(p*piece/SectorSize), make([]byte, piece), 0); status != statusOK {
			t.Fatalf("write piece %d: status %d", p, status)
		}
		may[p] = []byte{0}
	}
	if _, status, _ := r.do(ring, typeFlush, 0, nil, 0); status != statusOK {
		t.Fatalf("flush: status %d", status)
	}

	failing.Flicker(flaw)
	seen := make(map[string][2]int) // how many were well, and were not
	count := func(what string, status byte) bool {
		t.Helper()
		n := seen[what]
		if status == statusOK {
			n[0]++
		} else if n[1]++; status != statusIOErr {
			t.Errorf("%s: status %d, want %d or %d", what, status, statusOK, statusIOErr)
		}
		seen[what] = n
		return status == statusOK
	}
	for began, i := time.Now(), 0; time.Since(began) < 5*time.Second; i++ {
		p := i * 7 % pieces // each in its turn
		at, b := uint64(p*piece/SectorSize), byte(i%255+1)
		_, status, _ := r.do(ring, typeOut, at, bytes.Repeat([]byte{b}, piece), 0)
		may[p] = append(may[p], b) // maybe, if it failed
		written := count("write", status)
		if written {
			// A write that is acknowledged takes the place of those before it, until the power goes.
			got, status, _ := r.do(ring, typeIn, at, nil, piece)
			if count("read", status) && !bytes.Equal(got, bytes.Repeat([]byte{b}, piece)) {
				t.Errorf("piece %d after write %d, which was acknowledged: %d...", p, i, got[0])
			}
		}
		if _, status, _ := r.do(ring, typeFlush, 0, nil, 0); count("flush", status) && written {
			may[p] = []byte{b}
		}
	}
	t.Logf("well, and with an error: %v", seen)
	failed := "read"
	if flaw == scratch.Everything {
		failed = "write"
	}
	if n := seen[failed]; n[0] == 0 || n[1] == 0 {
		t.Errorf("of the disk that flickers %d times %s worked and %d times not: want both", n[0], failed, n[1])
	}
	if n := troubles.Load(); n != 1 {
		t.Errorf("the host was told %d times of the trouble, want once", n)
	}
	if n := seen["write"]; flaw == scratch.Reads && n[1] > 0 {
		t.Errorf("%d writes failed on a disk of which only reads fail", n[1])
	}

	failing.Heal()
	if flaw == scratch.Reads { // without anything else it goes on
		for p := range may {
			got, status, _ := r.do(ring, typeIn, uint64(p*piece/SectorSize), nil, piece)
			if status != statusOK {
				t.Errorf("read piece %d when the disk works again: status %d", p, status)
				continue
			}
			content(p, got, "when the disk works again")
		}
	}
	r.Reset()
	st.end()
	unmount()
	again, _ := scratch.Mount(t, failing.Node)
	got, err := os.ReadFile(strings.Replace(r.name, dir, again, 1))
	if err != nil {
		t.Fatal(err)
	}
	for p := range may {
		content(p, got[p*piece:(p+1)*piece], "after all")
	}
}
