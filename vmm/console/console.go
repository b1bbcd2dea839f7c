// Package console is what a guest prints and what is typed at it. A Hub takes
// output from the guest's console devices and keeps the last of it; any number
// of viewers follow, and a log file does.
//
// The guest never waits: output that a viewer is too slow for is lost to that
// viewer. Input waits for the guest, and only its sender waits with it.
package console

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// gather is how long a reader waits for more after the first byte: a guest
	// prints byte by byte, and each byte passed on alone is dear.
	gather = 2 * time.Millisecond
	// retry is how often input is offered to a guest that does not read.
	retry = 20 * time.Millisecond
	// drain is how long Close waits for viewers to take the last output.
	drain = time.Second
	// look is how often a viewer that sends no more is looked after: it may
	// have left, which no output would tell while the guest is silent.
	look  = 500 * time.Millisecond
	chunk = 4096
)

// An Input is a console device that can be typed at.
type Input interface {
	// Accept takes as much of b as it has room for, and says how many bytes
	// that is.
	Accept(b []byte) int
}

// A Hub connects console devices and viewers.
type Hub struct {
	mu     sync.Mutex
	some   sync.Cond // there is more output, or the Hub closes
	ring   []byte    // guarded by mu, as all below; output byte n is at n%len(ring)
	total  uint64    // bytes put out ever
	closed bool
	input  Input // the device that printed last

	viewers map[*os.File]struct{}
	wg      sync.WaitGroup // readers of output
}

// New makes a Hub that remembers the last size bytes.
func New(size int) *Hub {
	h := &Hub{ring: make([]byte, size), viewers: make(map[*os.File]struct{})}
	h.some.L = &h.mu
	return h
}

// Writer is where a console device writes its output to. What is typed goes to
// the device that wrote last: in may be nil for one that takes no input. Its
// Write does not block.
func (h *Hub) Writer(in Input) io.Writer { return writer{h, in} }

type writer struct {
	h  *Hub
	in Input
}

func (w writer) Write(b []byte) (int, error) {
	w.h.write(b, w.in)
	return len(b), nil
}

func (h *Hub) write(b []byte, in Input) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if in != nil {
		h.input = in
	}
	for len(b) > 0 {
		n := copy(h.ring[h.total%uint64(len(h.ring)):], b)
		h.total += uint64(n)
		b = b[n:]
	}
	h.some.Broadcast()
}

// SetInput says which device is typed at until one prints.
func (h *Hub) SetInput(in Input) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.input = in
}

// A reader is a viewer, or the log.
type reader struct {
	left bool // it takes no more; guarded by Hub.mu
}

// dismiss ends what follows the output for r.
func (h *Hub) dismiss(r *reader) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r.left = true
	h.some.Broadcast()
}

// read waits for output from byte pos on and copies it to b. It returns the
// position after it, which is further on by more than n where output was lost;
// ok is false when there will be no more, or r has left.
func (h *Hub) read(r *reader, pos uint64, b []byte) (next uint64, n int, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for pos == h.total && !h.closed && !r.left {
		h.some.Wait()
	}
	if pos == h.total || r.left {
		return pos, 0, false
	}
	size := uint64(len(h.ring))
	if h.total-pos > size {
		pos = h.total - size
	}
	for n < len(b) && pos < h.total {
		at := pos % size
		c := copy(b[n:], h.ring[at:min(size, at+h.total-pos)])
		n, pos = n+c, pos+uint64(c)
	}
	return pos, n, true
}

// follow gives all output from what is remembered on to f, until f fails, r
// leaves or the Hub closes.
func (h *Hub) follow(r *reader, f func([]byte) error) {
	buf := make([]byte, chunk)
	pos := h.oldest()
	for {
		next, n, ok := h.read(r, pos, buf)
		if !ok || f(buf[:n]) != nil {
			return
		}
		pos = next
		if n < len(buf) {
			time.Sleep(gather)
		}
	}
}

func (h *Hub) oldest() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.total - min(h.total, uint64(len(h.ring)))
}

// ErrClosed says that the guest has ended.
var ErrClosed = errors.New("console closed")

// Attach makes a viewer and returns its end of a stream socket: what is
// remembered of the output comes out of it, then what follows; what is
// written to it is typed.
func (h *Hub) Attach() (*os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("attach to console: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "console"), os.NewFile(uintptr(fds[1]), "console-viewer")
	if err := h.View(ours); err != nil {
		theirs.Close()
		return nil, err
	}
	return theirs, nil
}

// View makes a viewer of f, which the Hub owns from then on. f is a socket or
// terminal that os.File can wait for.
func (h *Hub) View(f *os.File) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		f.Close()
		return fmt.Errorf("attach to console: %w", ErrClosed)
	}
	h.viewers[f] = struct{}{}
	r, followed, done := &reader{}, make(chan struct{}), make(chan struct{})
	h.wg.Go(func() {
		h.follow(r, func(b []byte) error { _, err := f.Write(b); return err })
		close(followed)
		h.mu.Lock()
		delete(h.viewers, f)
		h.mu.Unlock()
		f.Close() // wakes the reader below
		<-done
	})
	go func() {
		defer close(done)
		h.listen(f)
		await(f, followed)
		h.dismiss(r)
	}()
	return nil
}

// await waits until nobody is at the other end of f, or until followed is closed.
func await(f *os.File, followed <-chan struct{}) {
	for present(f) {
		select {
		case <-followed:
			return
		case <-time.After(look):
		}
	}
}

// present tells whether somebody may still read at the other end of f, who
// perhaps sends no more: writing nothing to a socket fails once that is closed.
// It goes past the lock of f, which a write to a slow viewer holds.
func present(f *os.File) bool {
	c, err := f.SyscallConn()
	if err != nil {
		return false
	}
	var left error
	err = c.Control(func(fd uintptr) { _, left = unix.Write(int(fd), nil) })
	return err == nil && left == nil
}

// listen types what comes from f, until it ends.
func (h *Hub) listen(f *os.File) {
	buf := make([]byte, 512)
	for {
		n, err := f.Read(buf)
		if !h.typed(f, buf[:n]) || err != nil {
			return
		}
	}
}

// typed gives b to the guest, waiting until it has taken all of it. It is false
// when the Hub has closed, or f while the guest took nothing.
func (h *Hub) typed(f *os.File, b []byte) bool {
	for {
		h.mu.Lock()
		in, closed := h.input, h.closed
		h.mu.Unlock()
		if closed {
			return false
		}
		if in != nil {
			b = b[in.Accept(b):]
		}
		if len(b) == 0 {
			return true
		}
		if !present(f) {
			return false
		}
		time.Sleep(retry)
	}
}

// Log appends all output to f, starting at its end. When f would grow over
// limit bytes its older half is dropped. What f does not take, on a full disk,
// is missing from it. f stays the caller's, who closes it after Close.
func (h *Hub) Log(f *os.File, limit int64) error {
	fi, err := f.Stat()
	if err != nil {
		return fmt.Errorf("log console: %w", err)
	}
	l := &logFile{f: f, size: fi.Size(), limit: limit}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return fmt.Errorf("log console: %w", ErrClosed)
	}
	h.wg.Go(func() {
		h.follow(&reader{}, func(b []byte) error {
			_ = l.append(b) // there may be room again for what comes next
			return nil
		})
	})
	return nil
}

// Close lets viewers and log take the last output, and ends them.
func (h *Hub) Close() {
	h.mu.Lock()
	h.closed = true
	h.some.Broadcast()
	deadline := time.Now().Add(drain)
	for f := range h.viewers {
		_ = f.SetWriteDeadline(deadline) // one that has gone needs none
	}
	h.mu.Unlock()
	h.wg.Wait()
}
