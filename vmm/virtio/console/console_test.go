package console

import (
	"bytes"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/vmm/virtio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/internal/virtiotest"
)

var all = ^virtio.Features(0)

func TestMain(m *testing.M) { os.Exit(virtiotest.Both(m, &all)) }

// A screen keeps what is printed.
type screen struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// A rig is a console with its driver started.
type rig struct {
	*virtiotest.Driver
	screen *screen
	keys   chan []byte
	rx, tx *virtiotest.Ring
}

func newRig(t testing.TB, want virtio.Features) *rig {
	t.Helper()
	r := &rig{screen: new(screen), keys: make(chan []byte)}
	d, err := New(Config{Output: r.screen, Input: r.keys})
	if err != nil {
		t.Fatal(err)
	}
	r.Driver = virtiotest.NewMachine(t).Plug(d)
	r.start(want)
	return r
}

func (r *rig) start(want virtio.Features) {
	f := r.Negotiate(want)
	r.rx, r.tx = r.Queue(receiveQueue, 8, f), r.Queue(transmitQueue, 8, f)
	r.Start()
}

func TestPrint(t *testing.T) {
	r := newRig(t, all)
	var want []byte
	for i := range 20 {
		text := bytes.Repeat([]byte{'a' + byte(i)}, i*700+1) // over maxWrite
		want = append(want, text...)
		if n := r.tx.Do(r.M.Put(text).Cut(5000), nil); n != 0 {
			t.Fatalf("used length = %d, want 0", n)
		}
	}
	if got := r.screen.String(); got != string(want) {
		t.Errorf("printed %d bytes, want %d of the same", len(got), len(want))
	}
}

func TestType(t *testing.T) {
	r := newRig(t, 0)
	r.keys <- []byte("hello, ")
	go func() { r.keys <- []byte("world") }() // waits until the first is taken
	var got []byte
	for len(got) < 12 {
		buf := r.M.Room(5)
		n := r.rx.Do(nil, []virtiotest.Buf{buf})
		got = append(got, r.M.Bytes(buf)[:n]...)
	}
	if string(got) != "hello, world" {
		t.Errorf("typed %q", got)
	}
}

// TestTypeAcrossReset keeps what a driver did not take for the next one.
func TestTypeAcrossReset(t *testing.T) {
	r := newRig(t, all)
	r.keys <- []byte("kept")
	r.start(all)
	buf := r.M.Room(8)
	if n := r.rx.Do(nil, []virtiotest.Buf{buf}); string(r.M.Bytes(buf)[:n]) != "kept" {
		t.Errorf("typed %q, want kept", r.M.Bytes(buf)[:n])
	}
}

func TestEmergencyWrite(t *testing.T) {
	r := newRig(t, all)
	r.Reset()
	r.SetDevice(cfgEmergencyWrite, 4, '!')
	r.SetDevice(0, 4, '?')
	if got := r.screen.String(); got != "!" {
		t.Errorf("printed %q, want !", got)
	}
}

func TestMalformed(t *testing.T) {
	r := newRig(t, all)
	buf := []virtiotest.Buf{r.M.Room(8)}
	r.tx.Add(nil, buf)
	r.tx.Kick()
	r.WaitBroken()
	r.start(all)
	r.rx.Add(buf, nil)
	r.rx.Kick()
	r.keys <- []byte("x")
	r.WaitBroken()
	r.start(all)
	if n := r.rx.Do(nil, buf); n != 1 {
		t.Errorf("after a reset: used length %d, want 1", n)
	}
}

// TestInputEnds closes the keyboard: the console goes on.
func TestInputEnds(t *testing.T) {
	r := newRig(t, all)
	close(r.keys)
	r.tx.Do([]virtiotest.Buf{r.M.Put([]byte("on"))}, nil)
	done := make(chan struct{})
	go func() { r.Reset(); close(done) }()
	select {
	case <-done:
	case <-time.After(virtiotest.Patience):
		t.Fatal("reset hangs")
	}
}

func TestState(t *testing.T) {
	r := newRig(t, all)
	d := r.Transport.Device().(*Device)
	r.keys <- []byte("state")
	r.Transport.Pause()
	s := d.Save()
	if string(s.Input) != "state" {
		t.Errorf("saved input %q", s.Input)
	}
	s.Input = []byte("other")
	r.M.Must(d.Restore(s))
	r.Transport.Resume()
	buf := r.M.Room(8)
	if n := r.rx.Do(nil, []virtiotest.Buf{buf}); string(r.M.Bytes(buf)[:n]) != "other" {
		t.Errorf("typed %q, want other", r.M.Bytes(buf)[:n])
	}
}

// FuzzConsole lets a driver fill the descriptors of both queues at will.
func FuzzConsole(f *testing.F) {
	f.Add([]byte{0, 64, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 2, 0, 0, 0}, []byte{0, 64, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0}, uint16(3))
	f.Add([]byte{0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, []byte{0, 64, 0, 0, 0, 0, 0, 0, 255, 255, 1, 0, 1, 0, 0, 0}, uint16(16))
	r := newRig(f, all)
	f.Fuzz(func(t *testing.T, rx, tx []byte, idx uint16) {
		r.M.Reuse(t)
		features := r.Negotiate(virtiotest.FuzzFeatures(all, idx))
		r.rx.Fuzz(features, rx, idx)
		r.tx.Fuzz(features, tx, idx)
		r.AddStatus(virtio.DriverOK)
		select {
		case r.keys <- []byte("typed"):
		default: // what was typed before is not taken yet
		}
		r.tx.Kick()
		r.tx.Settle()
		r.Reset()
		r.screen.mu.Lock()
		r.screen.b.Reset()
		r.screen.mu.Unlock()
	})
}
