package lab

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

// Rescue is the root shell of a host that was started from the rescue variant
// of the image, on its second serial port.
type Rescue struct {
	mu    sync.Mutex
	c     net.Conn
	n     int
	ready bool // it has answered
}

// Rescue connects to the shell.
func (l *Lab) Rescue() (*Rescue, error) {
	c, err := net.Dial("unix", l.Path(RescueFile))
	if err != nil {
		return nil, fmt.Errorf("rescue shell: %w: start the lab with LAB_RESCUE=1", err)
	}
	return &Rescue{c: c}, nil
}

// Close closes the connection; the shell goes on.
func (r *Rescue) Close() error { return r.c.Close() }

// Run runs a command line once and returns what it printed.
func (r *Rescue) Run(command string) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// A shell that was just started drops what came before, so it is first asked for nothing,
	// again and again.
	for end := time.Now().Add(patience); !r.ready; {
		_, err := r.run("true", 10*time.Second)
		switch {
		case err == nil:
			r.ready = true
		case !errors.Is(err, errNoAnswer) || time.Now().After(end):
			return "", err
		}
	}
	return r.run(command, patience)
}

// patience is how long a shell may take over a command: a host in software emulation, beside
// others, is slow.
const patience = 5 * time.Minute

var errNoAnswer = errors.New("no answer")

// run says a command line and waits for its end.
func (r *Rescue) run(command string, patience time.Duration) (string, error) {
	r.n++
	// The quotes keep the echo of the line from being taken for the marks themselves.
	begin, end := fmt.Sprintf("BEGIN%d:", r.n), fmt.Sprintf("END%d:", r.n)
	if _, err := fmt.Fprintf(r.c, "echo BEGIN''%d:; %s; echo END''%d:\n", r.n, command, r.n); err != nil {
		return "", fmt.Errorf("rescue shell: %w", err)
	}
	var got bytes.Buffer
	buf := make([]byte, 4096)
	r.c.SetReadDeadline(time.Now().Add(patience))
	for {
		n, err := r.c.Read(buf)
		got.Write(buf[:n])
		text := strings.ReplaceAll(got.String(), "\r", "")
		if _, after, ok := strings.Cut(text, begin+"\n"); ok {
			if out, _, ok := strings.Cut(after, end+"\n"); ok {
				return out, nil
			}
		}
		switch {
		case isTimeout(err):
			return "", fmt.Errorf("rescue shell: %w to %q, only:\n%s", errNoAnswer, command, text)
		case err != nil:
			return "", fmt.Errorf("rescue shell: %w", err)
		}
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
