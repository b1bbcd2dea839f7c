package console

import (
	"io"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/term"
)

// A Terminal is the user's terminal in raw mode.
type Terminal struct {
	in      *os.File
	out     io.Writer
	old     *term.State
	once    sync.Once
	modes   modes
	mu      sync.Mutex // guards modes, orders writes
	signals chan os.Signal
	done    chan struct{}
	wg      sync.WaitGroup
}

// IsTerminal tells whether f is one.
func IsTerminal(f *os.File) bool { return f != nil && term.IsTerminal(int(f.Fd())) }

// Raw puts the terminal that in and out belong to into raw mode. Restore must
// be called on every path; signals that end the process do so themselves, and
// end is called then.
func Raw(in *os.File, out io.Writer, end func()) (*Terminal, error) {
	old, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return nil, err
	}
	t := &Terminal{in: in, out: out, old: old, signals: make(chan os.Signal, 1), done: make(chan struct{})}
	signal.Notify(t.signals, endSignals...)
	t.wg.Go(func() {
		select {
		case <-t.signals:
			t.restore()
			end()
		case <-t.done:
		}
	})
	return t, nil
}

// Write shows the guest's output.
func (t *Terminal) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.modes.follow(p)
	return t.out.Write(p)
}

// Restore brings the terminal back to what it was.
func (t *Terminal) Restore() {
	t.restore()
	signal.Stop(t.signals)
	select {
	case <-t.done:
	default:
		close(t.done)
	}
	t.wg.Wait()
}

func (t *Terminal) restore() {
	t.once.Do(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		// There is nobody to tell if the terminal has gone.
		_, _ = io.WriteString(t.out, t.modes.restore())
		_ = term.Restore(int(t.in.Fd()), t.old)
	})
}
